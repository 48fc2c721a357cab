"""docs/compose.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from orchestrator.compose.keys import TABLE
from orchestrator.compose.reference import BEGIN, END, generated, rewritten

PAGE = Path(__file__).parents[3] / "docs/compose.md"


def test_the_page_is_as_the_code_makes_it() -> None:
    text = PAGE.read_text()
    assert rewritten(text) == text, "python -m orchestrator.compose.reference docs/compose.md"


def test_every_key_of_a_service_is_told() -> None:
    told = generated()
    keys = [path.split(".")[2] for path in TABLE if path.startswith("services.*.") and path.count(".") == 2]
    assert [key for key in keys if f"| `{key}` |" not in told] == []


def test_what_people_wrote_is_kept() -> None:
    assert rewritten(f"a {BEGIN} old {END} b").startswith(f"a {BEGIN}\n\n## The pipeline")
    assert rewritten(f"a {BEGIN} old {END} b").endswith(f"{END} b")
