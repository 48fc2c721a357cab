"""One value against its rule of the table: is it of a type the key takes, and what does it stand for.

Text becomes a number or boolean where the key takes no text, as a variable can only give text (12-interpolation.md);
scalars with a meaning get their one spelling (durations, sizes, …).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from orchestrator.compose import units
from orchestrator.compose.errors import Report
from orchestrator.compose.keys import Rule
from orchestrator.compose.nodes import BAD, Bad, Node, Value, spelled
from orchestrator.compose.scalars import parse_number

_TRUTHS = {"true": True, "yes": True, "on": True, "y": True, "false": False, "no": False, "off": False, "n": False}
_WORDS = {
    "text": "text",
    "int": "a whole number",
    "count": "a whole number, 0 or more",
    "number": "a number",
    "bool": "true or false",
    "map": "a mapping",
    "list": "a list",
    "duration": "a duration",
    "size": "a size",
    "limit": "a size",
    "cpus": "a number of cores",
    "mode": "permission bits",
    "scalar": "text, a number or true or false",
    "option": "text or a number",
    "set": "a list",
    "null": "empty",
}


def _text_of(value: Value) -> str:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("put it in quotes")
    return spelled(value)


def _count_of(value: str | int | float) -> int:
    number = parse_number(value) if isinstance(value, str) else value
    if number is None or number < 0 or not float(number).is_integer():
        raise ValueError("it must be a whole number, 0 or more")
    return int(number)


_MEANINGS: dict[str, Callable[[Any], Value]] = {
    "duration": lambda value: units.spelled_duration(units.duration(value)),
    "size": lambda value: str(units.size(value)),
    "limit": lambda value: "-1" if str(value) == "-1" else str(units.size(value)),
    "cpus": units.cores,
    "mode": units.octal,
    "count": _count_of,
    "scalar": _text_of,
    "option": _text_of,
}


_CONTAINERS = {"map", "list", "set", "null"}  # no variable stands for one of these


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
            return "text"
        case dict():
            return "map"
        case list():
            return "list"
        case Bad():
            return "bad"


def typed(node: Node, rule: Rule, path: str, report: Report) -> Value:
    value = node.value
    if isinstance(value, Bad):
        return BAD
    kind = kind_of(value)
    if kind not in rule.kinds:
        if kind == "text" and report.keeps(value) and set(rule.kinds) - _CONTAINERS:
            return value
        found = _meant(node, kind, rule, path, report)
        if found is None and kind == "text":
            report.later(node, _not_of_type(node, rule, path))
        elif found is None and kind not in _CONTAINERS:
            report.unless_extended(node, _not_of_type(node, rule, path))
        elif found is None:
            wrong_type(node, rule, path, report)
        return BAD if found is None else found
    if rule.words and kind == "text" and value not in rule.words and not report.keeps(value):
        known = ", ".join(rule.words)
        report.unless_extended(node, f"cannot use {shown(value)} as {path}: Compose knows {known}")
        return BAD
    return value


def _meant(node: Node, kind: str, rule: Rule, path: str, report: Report) -> Value:
    """What a scalar of another type stands for in this key; None: nothing. BAD: reported already."""
    value: Any = node.value
    if kind == "int" and "number" in rule.kinds:
        return node.value
    if kind == "number" and "int" in rule.kinds and value.is_integer():
        return int(value)
    for name, meaning in _MEANINGS.items():
        if name in rule.kinds and kind in _TAKEN[name] and not (kind == "text" and rule.strict):
            try:
                return meaning(value)
            except ValueError as error:
                report.later(node, f"cannot use {shown(value)} as {path}: {error}")
                return BAD
    if kind == "text" and not rule.strict:
        return _cast(node, value, rule, path, report)
    return None


_TAKEN = {
    "duration": ("text",),
    "size": ("text", "int", "number"),
    "limit": ("text", "int", "number"),
    "cpus": ("text", "int", "number"),
    "mode": ("text", "int"),
    "count": ("text", "int", "number"),
    "scalar": ("text", "int", "number", "bool"),
    "option": ("text", "int", "number"),
}


def _cast(node: Node, written: str, rule: Rule, path: str, report: Report) -> Value:
    """Text → the number or truth it spells; None: it spells none that the key takes."""
    word = written.strip().lower()
    if "bool" in rule.kinds and word in _TRUTHS:
        if word not in ("true", "false"):
            report.warn(node, f"{path}: {written} is no boolean of YAML 1.2; write {spelled(_TRUTHS[word])}")
        return _TRUTHS[word]
    number = parse_number(word) if ("int" in rule.kinds or "number" in rule.kinds) and len(word) <= 40 else None
    if isinstance(number, float) and "number" not in rule.kinds:
        return int(number) if number.is_integer() else None
    return number


def wrong_type(node: Node, rule: Rule, path: str, report: Report) -> None:
    report.problem(node.key_at if node.value is None else node.at, _not_of_type(node, rule, path))


def _not_of_type(node: Node, rule: Rule, path: str) -> str:
    kinds = [kind for kind in rule.kinds if kind != "null"]
    wanted = list(dict.fromkeys(_WORDS[kind] for kind in kinds if not (kind == "int" and "number" in kinds)))
    hint = ""
    if not isinstance(node.value, dict | list) and node.value is not None:
        if "duration" in kinds:
            hint = f"write the unit too, as in {spelled(node.value)}s"
        elif "text" in kinds:
            hint = "put it in quotes"
    expected = ", ".join(wanted[:-1]) + (" or " if wanted[:-1] else "") + wanted[-1]
    message = f"cannot use {shown(node.value)} as {path or 'a Compose file'}: it must be {expected}"
    return message + (f"; {hint}" if hint else "")


def shown(value: Value) -> str:
    match value:
        case None:
            return "an empty value"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return short(value)
        case other:
            return spelled(other)


def short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:40] + "…")
