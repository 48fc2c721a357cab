"""The schemas in specs/ are what the models say, and a loaded stack fits its own."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator.compose.load import ComposeError, load
from orchestrator.compose.model import Stack
from orchestrator.compose.schema import schemas

SPECS = Path(__file__).parents[3] / "specs"


@pytest.mark.parametrize("name", schemas())
def test_the_published_schema_is_the_models(name: str) -> None:
    again = "python -m orchestrator.compose.schema specs"
    assert (SPECS / name).read_text() == schemas()[name], f"the model has changed: run {again}"


def test_a_loaded_stack_fits_the_schema_and_comes_back_from_json() -> None:
    stack = load([SPECS / "visits/compose.yaml"], environ={}, cwd=SPECS).stack
    jsonschema.validate(json.loads(stack.model_dump_json()), json.loads(schemas()["stack.schema.json"]))
    assert Stack.model_validate_json(stack.model_dump_json()) == stack


EDITORS = jsonschema.Draft202012Validator(json.loads(schemas()["compose.schema.json"]))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        pytest.param((SPECS / "visits/compose.yaml").read_text(), True, id="the sample stack"),
        pytest.param("services: {a: {image: x, mem_limit: '${LIMIT}', read_only: '${RO}'}}", True, id="variables"),
        pytest.param("services: {a: {image: x, x-mine: 1}}\nx-other: {b: c}", True, id="extensions"),
        pytest.param("services: {a: {image: x, labels: [a=b], expose: [80]}}", True, id="short forms"),
        pytest.param("services: {a: {image: x, deploy: {mode: replicated}}}", True, id="a word that is honoured"),
        pytest.param("services: {a: {image: x, deploy: {mode: some}}}", False, id="a word that is not"),
        pytest.param("services: {a: {image: x, imagee: y}}", False, id="an unknown key"),
        pytest.param("services: {a: {image: x, privileged: true}}", False, id="a refused key"),
        pytest.param("services: {a: {image: x, x-gorae-healtcheck: {}}}", False, id="a key of ours, misspelt"),
        pytest.param("services: {a: {image: 5}}", False, id="a wrong type"),
        pytest.param("services: {a: {image: x, depends_on: {b: {required: true}}}}", False, id="a missing key"),
    ],
)
def test_the_editors_schema_says_what_load_says(tmp_path: Path, text: str, fits: bool) -> None:
    assert EDITORS.is_valid(yaml.safe_load(text)) is fits
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    try:
        load([file], environ={"LIMIT": "64m", "RO": "true"}, cwd=tmp_path)
    except ComposeError:
        assert not fits
    else:
        assert fits
