"""The table of keys is whole, well formed and documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.compose.forms import SHAPES
from orchestrator.compose.keys import ROOT, TABLE, Branch, Verdict
from orchestrator.compose.longforms import FORMS
from orchestrator.compose.values import _MEANINGS, _TAKEN, _WORDS

SCHEMA = json.loads((Path(__file__).parents[2] / "corpus/compose-spec.json").read_text())
BEYOND = {  # what the reference takes and the schema has not yet; and our own
    "services.*.build.no_cache_filter",
    "services.*.develop.watch.[].x-initialSync",
    "services.*.pre_start",
    "services.*.storage_opt.*",
    "services.*.x-gorae-healthcheck",
    "services.*.x-gorae-on-unhealthy",
    "services.*.x-gorae-drain",
}


def specified(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """The path of every property of a JSON Schema; `*`: of any name, `[]`: an entry of a list."""
    if path:
        yield ".".join(path)
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    below = list(schema.get("properties", {}).items())
    below += [("*", child) for name, child in schema.get("patternProperties", {}).items() if not name.startswith("^x-")]
    below += [("[]", schema["items"])] if "items" in schema else []
    below += [("*", schema["additionalProperties"])] if isinstance(schema.get("additionalProperties"), dict) else []
    for name, child in below:
        yield from specified(child, (*path, name))
    for other in schema.get("oneOf", []) + schema.get("anyOf", []):
        yield from (found for found in specified(other, path) if found != ".".join(path))


def known(branch: Branch, path: str = "") -> Iterator[str]:
    for name, child in branch.children.items():
        where = f"{path}.{name}" if path else name
        yield where
        yield from known(child, where)


def test_the_table_has_every_property_of_the_specification_and_few_others() -> None:
    wanted, found = set(specified(SCHEMA)), set(known(ROOT))
    assert len(wanted) > 400
    assert wanted - found == set()
    beyond = {path for path in found - wanted if path.rpartition(".")[0] in wanted}
    assert beyond == BEYOND


@pytest.mark.parametrize("path", TABLE)
def test_a_row_is_well_formed(path: str) -> None:
    rule = TABLE[path]
    assert rule.kinds and set(rule.kinds) <= set(_WORDS)
    assert rule.verdict in get_args(Verdict)
    assert (rule.verdict == "supported") == (rule.why == "")
    assert not re.search(r"@|  |^\W|\.$", rule.why)
    assert rule.verdict != "supported" or not rule.but
    assert "text" in rule.kinds or not rule.words
    assert set(rule.needs) <= {name.rpartition(".")[2] for name in TABLE if name.rpartition(".")[0] == path}


@pytest.mark.parametrize("path", [path for path in TABLE if "." in path])
def test_a_row_stands_below_one_that_can_hold_it(path: str) -> None:
    above, _, name = path.rpartition(".")
    assert ("list" if name == "[]" else "map") in TABLE[above].kinds


def test_every_form_is_of_a_key_and_every_shape_has_one() -> None:
    assert set(FORMS) <= set(TABLE)
    assert {rule.shape for rule in TABLE.values() if rule.shape} - {"list:text", "set:text"} == set(SHAPES)
    assert set(_MEANINGS) == set(_TAKEN) <= set(_WORDS)


def test_the_page_names_every_key_of_a_service() -> None:
    page = (Path(__file__).parents[3] / "docs/compose.md").read_text()
    words = set(re.findall(r"[a-z_-]+", page))
    assert [name for name in ROOT.children["services"].children["*"].names() if name not in words] == []
