"""The JSON Schemas of specs/, made from the models and the table of keys; a test compares them with the tree.

    python -m orchestrator.compose.schema specs

compose.schema.json: the files gorae accepts, for editors. compose-canonical.schema.json: a whole project, as
`gorae config --format json` prints it. stack.schema.json: the part of a project the runtime takes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.compose import editor_schema
from orchestrator.compose.canonical import Project
from orchestrator.compose.model import Stack


def schemas() -> dict[str, str]:
    """The text of each file, by its name."""
    return {
        "compose.schema.json": _text(editor_schema.schema()),
        "stack.schema.json": _text(Stack.model_json_schema(mode="serialization")),
        "compose-canonical.schema.json": _text(Project.model_json_schema(mode="validation", by_alias=True)),
    }


def _text(document: dict[str, Any]) -> str:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name, text in schemas().items():
        (Path(sys.argv[1]) / name).write_text(text)
