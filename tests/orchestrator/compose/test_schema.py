"""The schemas in specs/ are what the models say, and a loaded stack fits its own."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from orchestrator.compose.load import load
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
