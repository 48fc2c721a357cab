"""A project as `gorae config` prints it: the canonical form as JSON or YAML, keys in alphabetical order; in YAML,
the sections in that of the Specification.

What is printed loads again to the same project: `$` is written `$$`, and no text looks like another kind of value to a
reader of YAML 1.1 or 1.2. Values only: a key is never interpolated (12-interpolation.md), so its `$` stays.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from orchestrator.compose.scalars import resolve

_SECTIONS = ("name", "services", "networks", "volumes", "configs", "secrets", "models")
_WIDTH = 2**31 - 1  # a text is on one line: folded ones are hard to read


def escaped(value: Any) -> Any:
    """The same with every `$` of a value doubled."""
    if isinstance(value, dict):
        return {key: escaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [escaped(child) for child in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def as_yaml(document: dict[str, Any]) -> str:
    """Block style."""
    services = {name: _as_written(service) for name, service in document.get("services", {}).items()}
    shown = {**document, "services": services} if "services" in document else document
    shown = {key: shown[key] for key in (*_SECTIONS, *shown) if key in shown}
    return str(yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH))


def _as_written(service: dict[str, Any]) -> dict[str, Any]:
    """Without what stands in JSON alone: a command that is null, and capital letters in blkio_config."""
    found = {key: value for key, value in service.items() if value is not None}
    if isinstance(blkio := found.get("blkio_config"), dict):
        found["blkio_config"] = {key: _lowered(value) for key, value in blkio.items()}
    return found


def _lowered(value: Any) -> Any:
    return [{key.lower(): item[key] for key in item} for item in value] if isinstance(value, list) else value


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    if "\n" in value and not value.startswith(("\n", " ", "\t")):
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, "|")
    # PyYAML quotes what YAML 1.1 would take for something else, but for these; 1.2 has numbers that 1.1 has not.
    quoted = value in ("y", "Y", "n", "N") or not isinstance(resolve(value), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, '"' if quoted else None)


_Dumper.add_representer(str, _text)
