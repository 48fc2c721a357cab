"""What differs between two models, field by field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.compose.model import Stack


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of two stored models: {key, before, after} of each field that is not the same, None where there is none. What an
    older version left out counts as what it means."""
    return list(_below("", *(Stack.model_validate(model).model_dump(mode="json") for model in (before, after))))


def _below(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from _below(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif before != after:
        yield {"key": path, "before": before, "after": after}
