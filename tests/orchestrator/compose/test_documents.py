"""Documents made from the Specification's own schema, mostly as it says and now and then not: whatever they are, they
end as a project or as problems that say "cannot …"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .anything import NAMES, TEXTS, survives
from .support import write

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "corpus/compose-spec.json").read_text())
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 80, 65535, 65536, 1000, 2**31, 2**63, 2**64, -(2**63), 0.5, 1e300, float("inf"), float("nan")]
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from(TEXTS) | st.text(max_size=8)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3), max_leaves=5
)  # fmt: skip
RARELY = 12


def typed(kind: str, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    match kind:
        case "object":
            return _mapping(schema, depth)
        case "array":
            return st.lists(values(schema.get("items", {}), depth + 1), max_size=3)
        case "string":
            return st.sampled_from(TEXTS)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return NUMBERS


def values(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Of a part of the schema; once in RARELY times of anything."""
    return st.integers(0, RARELY).flatmap(lambda dice: ANYTHING if dice == RARELY else _meant(schema, depth))


def _meant(schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _meant(SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]], depth)
    choices = schema.get("oneOf") or schema.get("anyOf")
    if choices:
        return st.sampled_from(choices).flatmap(lambda choice: _meant({**choice}, depth))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "string")
    return st.sampled_from(kinds if isinstance(kinds, list) else [kinds]).flatmap(
        lambda kind: typed(kind, schema, depth)
    )


@st.composite  # once: it reads its function's source each time
def _mapping(draw: st.DrawFn, schema: dict[str, Any], depth: int) -> dict[str, Any]:
    known: dict[str, Any] = schema.get("properties", {})
    named = [child for pattern, child in schema.get("patternProperties", {}).items() if pattern != "^x-"]
    named += [schema["additionalProperties"]] if isinstance(schema.get("additionalProperties"), dict) else []
    found = {}
    for key in (
        draw(st.lists(st.sampled_from(sorted(known)), max_size=8 if depth < 3 else 2, unique=True)) if known else []
    ):
        near_miss = draw(st.integers(0, 40)) == 0
        found[key[:-1] + "x" if near_miss else key] = draw(values(known[key], depth + 1))
    for child in named:
        found |= draw(st.dictionaries(st.sampled_from(NAMES), values(child, depth + 1), max_size=2))
    return found


@st.composite
def _service(draw: st.DrawFn) -> dict[str, Any]:
    return {"image": "x"} | draw(_meant(SCHEMA["definitions"]["service"], 1))


DOCUMENTS = st.tuples(_meant(SCHEMA, 0), st.dictionaries(st.sampled_from(["a", "b"]), _service(), min_size=1)).map(
    lambda parts: parts[0] | {"services": parts[1]}
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(first=DOCUMENTS, second=st.none() | DOCUMENTS)
def test_any_document(tmp_path: Path, first: dict[str, Any], second: dict[str, Any] | None) -> None:
    texts = [json.dumps(document) for document in (first, second) if document is not None]
    write(
        tmp_path, {"compose.yaml": "\n---\n".join(texts), "b.yaml": "services: {b: {image: y}}\n", "e.env": "A=$A\nB\n"}
    )
    survives(tmp_path)
