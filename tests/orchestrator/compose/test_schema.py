"""specs/stack.schema.json is what the model says, and a loaded stack fits it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from orchestrator.compose.load import load
from orchestrator.compose.model import Stack
from orchestrator.compose.schema import schema

SPECS = Path(__file__).parents[3] / "specs"


def test_the_published_schema_is_the_models() -> None:
    again = "python -m orchestrator.compose.schema specs/stack.schema.json"
    assert (SPECS / "stack.schema.json").read_text() == schema(), f"the model has changed: run {again}"


def test_a_loaded_stack_fits_the_schema_and_comes_back_from_json() -> None:
    stack = load([SPECS / "visits/compose.yaml"], environ={}, cwd=SPECS).stack
    jsonschema.validate(json.loads(stack.model_dump_json()), json.loads(schema()))
    assert Stack.model_validate_json(stack.model_dump_json()) == stack
