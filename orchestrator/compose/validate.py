"""Walks one file beside the table of keys: every key must be in it, every value of a type it allows.

An unknown key is reported and left out. The value of a refused key or of a wrong type is reported and becomes BAD, so
that later stages neither trip over it nor report what follows from it. Text becomes a number or boolean where the key
takes no text, as a variable can only give text (12-interpolation.md). No value is understood here beyond its type.
"""

from __future__ import annotations

import re

from orchestrator.compose.errors import Report
from orchestrator.compose.keys import ROOT, Branch, Rule
from orchestrator.compose.nodes import BAD, Bad, Mark, Node, Value, spelled
from orchestrator.compose.scalars import parse_number

NAMES = {
    "services": re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}"),
    "volumes": re.compile(r"[a-zA-Z0-9._-]{1,128}"),
}
_TRUTHS = {"true": True, "yes": True, "on": True, "y": True, "false": False, "no": False, "off": False, "n": False}
_WORDS = {
    "str": "text",
    "int": "a whole number",
    "number": "a number",
    "bool": "true or false",
    "map": "a mapping",
    "list": "a list",
    "duration": "a duration",
    "null": "empty",
}


def validate(node: Node, report: Report) -> Node:
    """The file's tree, reduced to supported keys, with scalars of the types the table asks for."""
    return _checked(node, ROOT, "", report)


def _checked(node: Node, branch: Branch, path: str, report: Report) -> Node:
    value = _typed(node, branch.rule, path, report) if branch.rule else node.value
    if isinstance(value, dict):
        return node.with_value(_mapping(value, branch, path, report))
    if isinstance(value, list):
        return node.with_value(_list(value, branch, path, report))
    return node.with_value(value)


def _list(value: list[Node], branch: Branch, path: str, report: Report) -> list[Node]:
    inner = branch.children.get("[]")
    if inner is None:
        return value
    checked = (_checked(child, inner, f"{path}[{index}]", report) for index, child in enumerate(value))
    return [child for child in checked if child.value is not BAD]


def _mapping(value: dict[str, Node], branch: Branch, path: str, report: Report) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    any_name = branch.children.get("*")
    for key, child in value.items():
        inner = branch.children.get(key) if key not in ("*", "[]") else None
        inner = inner or any_name
        where = f"{path}.{key}" if path else key
        if inner is None or inner.rule is None:
            if not key.startswith("x-") or key.startswith("x-gorae"):
                _unknown(key, where, child.key_at, branch, report)
        elif inner.rule.verdict == "refused":
            report.problem(child.key_at, f"cannot use {where}: {inner.rule.why}")
            kept[key] = child.with_value(BAD)
        elif inner.rule.verdict == "warned":
            report.warn(child.key_at, f"{where} is ignored: {inner.rule.why}")
        elif path in NAMES and not NAMES[path].fullmatch(key):
            allowed = "letters, digits, '.', '_' and '-', and is not long"
            report.problem(child.key_at, f"cannot use {_short(key)} as a name in {path}: a name is made of {allowed}")
        elif inner.rule.verdict == "supported":
            kept[key] = _checked(child, inner, where, report)
    return kept


def _unknown(key: str, where: str, at: Mark, branch: Branch, report: Report) -> None:
    from difflib import get_close_matches  # only a file with a mistake pays for it

    near = get_close_matches(key[:80], list(branch.names()), n=1, cutoff=0.6)
    guess = f"; did you mean {near[0]}?" if near else ""
    report.problem(at, f"cannot use {where}: Compose has no such key{guess}")


def kind_of(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "number"
        case str():
            return "str"
        case dict():
            return "map"
        case list():
            return "list"
        case Bad():
            return "bad"


def _typed(node: Node, rule: Rule, path: str, report: Report) -> Value:
    value = node.value
    if isinstance(value, Bad):
        return BAD
    kind = kind_of(value)
    if kind == "str" and "duration" in rule.kinds:
        return value
    if kind == "str" and "str" not in rule.kinds:
        value = _cast(node, value, rule, path, report)
        kind = kind_of(value)
    if kind not in rule.kinds and not (kind == "int" and "number" in rule.kinds):
        _wrong_type(node, rule, path, report)
        return BAD
    if rule.only and value not in rule.only and not isinstance(value, dict | list):
        known = ", ".join(spelled(item) for item in rule.only if isinstance(item, str | bool))
        report.problem(node, f"cannot use {path}: {_shown(node.value)}: {rule.why}", f"gorae knows: {known}")
        return BAD
    return value


def _cast(node: Node, value: Value, rule: Rule, path: str, report: Report) -> Value:
    """Text → what the key takes, if it reads so; the text itself if not."""
    written = str(value).strip()
    if "bool" in rule.kinds and written.lower() in _TRUTHS:
        truth = _TRUTHS[written.lower()]
        if written.lower() not in ("true", "false"):
            report.warn(node, f"{path}: {written} is no boolean of YAML 1.2; write {spelled(truth)}")
        return truth
    if "int" in rule.kinds or "number" in rule.kinds:
        number = parse_number(written) if len(written) <= 40 else None
        if number is not None:
            return number
    return value


def _wrong_type(node: Node, rule: Rule, path: str, report: Report) -> None:
    wanted = [_WORDS[kind] for kind in rule.kinds if kind != "null" and not (kind == "int" and "number" in rule.kinds)]
    hint = ""
    if not isinstance(node.value, dict | list) and node.value is not None:
        if "duration" in rule.kinds:
            hint = f"write the unit too, as in {spelled(node.value)}s"
        elif "str" in rule.kinds:
            hint = "put it in quotes"
    expected = ", ".join(wanted[:-1]) + (" or " if wanted[:-1] else "") + wanted[-1]
    message = f"cannot use {_shown(node.value)} as {path or 'a Compose file'}: it must be {expected}"
    report.problem(node.key_at if node.value is None else node.at, message + (f"; {hint}" if hint else ""))


def _shown(value: Value) -> str:
    match value:
        case None:
            return "an empty value"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return _short(value)
        case other:
            return spelled(other)


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:40] + "…")
