"""The JSON Schema of the canonical model, as published in specs/stack.schema.json.

python -m orchestrator.compose.schema FILE writes it; a test compares the file in the tree with the model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from orchestrator.compose.model import Stack


def schema() -> str:
    document = Stack.model_json_schema(mode="serialization")
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema())
