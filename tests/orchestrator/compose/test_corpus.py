"""Real Compose files, the reference's own test inputs, and probes: each gives the model, or the refusal, it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import Case, cases, with_ours
from tests.support.corpus import OUTCOMES, judge


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_case(case: Case, scratch: Path, pytestconfig: pytest.Config) -> None:
    outcome = judge(case, with_ours, scratch)
    pytestconfig.stash[OUTCOMES].append(outcome)
    assert outcome.fine, str(outcome)
