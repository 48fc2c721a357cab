"""The JSON Schema of the Compose files that gorae accepts, for editors: the table of keys without what it refuses.

A number or truth may also be text, as a variable gives it. What no single value shows is not in it: `gorae check` is.
"""

from __future__ import annotations

from typing import Any

from orchestrator.compose.keys import ROOT, Branch, Rule

_TYPES: dict[str, tuple[str, ...]] = {
    "text": ("string",),
    "int": ("integer", "string"),
    "count": ("integer", "string"),
    "number": ("number", "string"),
    "bool": ("boolean", "string"),
    "null": ("null",),
    "map": ("object",),
    "list": ("array",),
    "set": ("array",),
    "duration": ("string",),
    "size": ("string", "integer"),
    "limit": ("string", "integer"),
    "cpus": ("number", "string"),
    "mode": ("integer", "string"),
    "scalar": ("string", "number", "boolean"),
    "option": ("string", "number"),
}


def schema() -> dict[str, Any]:
    return {"title": "Compose files that gorae accepts", **_of(ROOT)}


def _of(branch: Branch) -> dict[str, Any]:
    rule = branch.rule
    types = list(dict.fromkeys(name for kind in rule.kinds for name in _TYPES[kind]))
    if rule.strict:
        types = [name for name in types if name != "string"]
    found: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    if rule.why:
        found["description"] = f"{rule.verdict}: {rule.why}"
    if texts := _texts(rule):
        found["anyOf"] = [{"enum": texts}, {"pattern": r"\$"}, *({"type": name} for name in types if name != "string")]
    if "object" in types:
        found |= _object(branch)
    if "array" in types:
        found |= _array(branch)
    return found


def _texts(rule: Rule) -> list[str]:
    """The texts that are taken, when not all are."""
    if rule.verdict == "refused":
        return [word for word in rule.but if not rule.words or word in rule.words] if "text" in rule.kinds else []
    return list(rule.words)


def _object(branch: Branch) -> dict[str, Any]:
    named = {name: _of(branch.children[name]) for name in branch.names() if _taken(branch.children[name].rule)}
    found: dict[str, Any] = {"properties": named} if named else {}
    any_name = branch.children.get("*")
    found["additionalProperties"] = _of(any_name) if any_name else False
    if not any_name and not branch.rule.closed:
        found["patternProperties"] = {"^x-(?!gorae)": True}
    if branch.rule.needs:
        found["required"] = [name for name in branch.rule.needs if name in named]
    return found


def _array(branch: Branch) -> dict[str, Any]:
    entry = branch.children.get("[]")
    found: dict[str, Any] = {"items": _of(entry)} if entry else {}
    return found | ({"uniqueItems": True} if "set" in branch.rule.kinds else {})


def _taken(rule: Rule) -> bool:
    return rule.verdict != "refused" or bool(rule.but)
