"""What `gorae config` prints reads again as the same project, by our reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose.load import ComposeError, read
from orchestrator.compose.printed import as_json, as_yaml, escaped
from tests.support.canonical import differences
from tests.support.cases import Case, cases, directory, in_place

# Every third: two readings of each of the thousand would take longer than they tell.
ACCEPTED = [case for case in cases()[::3] if (case.folder / "expected.json").exists()]
# docker compose prints these, too, and refuses what it printed: the canonical form lacks what is referred to.
ONE_WAY = ("no model of that name", "there is no service")
FILLED = {"dockerfile", "name"}  # where the canonical form leaves a default out, the second reading fills it in


def project(case: Case, here: Path) -> dict[str, Any]:
    composed = read(
        [here / name for name in case.files],
        environ={"HOME": "/home/u", **case.environment},
        cwd=directory(case, here),
        profiles=case.profiles,
        env_files=[here / name for name in case.env_files],
        project=case.project,
    )
    return composed.document()


def again(text: str, folder: Path) -> dict[str, Any]:
    (folder / "printed.yaml").write_text(text)
    return read([folder / "printed.yaml"], environ={}, cwd=folder, profiles=["*"]).document()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_what_is_printed_reads_as_the_same(case: Case, scratch: Path) -> None:
    here = in_place(case, scratch)
    document = project(case, here)
    try:
        found = again(as_yaml(escaped(document)), directory(case, here))
    except ComposeError as error:
        assert all(any(text in problem.message for text in ONE_WAY) for problem in error.problems)
        return
    left = [item for item in differences(document, found) if item.path[-1] not in FILLED]
    assert not left


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.text("-+.0123456789eExXob_:~ nNyY<=#'\"\\\n\t|>", max_size=8),
    st.sampled_from(
        [
            "y",
            "n",
            "yes",
            "no",
            "on",
            "off",
            "true",
            "False",
            "null",
            "~",
            ".inf",
            ".nan",
            "0o17",
            "017",
            "1e3",
            "1_000",
            "12:30",
            "2020-01-02",
            "=",
            "<<",
            "-",
            "?",
            "!a",
        ]
    ),
)


@given(values=st.dictionaries(TEXTS.filter(lambda key: key.strip() == key and key != ""), TEXTS, max_size=4))
def test_any_text_reads_as_itself(values: dict[str, str], scratch: Path) -> None:
    document = {"name": "p", "services": {"a": {"image": "x", "labels": values, "command": [*values.values()]}}}
    text = as_yaml(escaped(document))
    found = again(text, scratch)["services"]["a"]
    assert found.get("labels", {}) == values
    assert found.get("command") == ([*values.values()])
    ours = yaml.load(text, Loader=yaml.CSafeLoader)["services"]["a"]  # a reader of YAML 1.1
    assert ours["labels"] == escaped(values)
    assert ours["command"] == escaped([*values.values()])


def test_keys_are_in_alphabetical_order() -> None:
    document = {"volumes": {"v": {}}, "services": {"b": {"tty": True, "image": "x"}, "a": {}}, "name": "p"}
    assert list(json.loads(as_json(document))["services"]["b"]) == ["image", "tty"]


def test_yaml_begins_with_the_name_and_the_services() -> None:
    document = {"configs": {}, "name": "p", "services": {"a": {"image": "x"}}}
    assert as_yaml(document).splitlines() == ["name: p", "services:", "  a:", "    image: x", "configs: {}"]


def test_blkio_config_has_small_letters_in_yaml_and_capitals_in_json() -> None:
    blkio = {"weight": 5, "weight_device": [{"Path": "/dev/a", "Weight": 1}]}
    document = {"name": "p", "services": {"a": {"blkio_config": blkio}}}
    assert yaml.safe_load(as_yaml(document))["services"]["a"]["blkio_config"]["weight_device"] == [
        {"path": "/dev/a", "weight": 1}
    ]
    assert json.loads(as_json(document))["services"]["a"]["blkio_config"] == blkio
