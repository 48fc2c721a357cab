"""Walks one file beside the table of keys: every key must be in it, every value of a type it allows; short forms
become long ones on the way (forms.py), and scalars with a meaning get their one spelling (durations, sizes, …).

An unknown key is reported and left out; a value of a wrong type is reported and becomes BAD, so that later stages
neither trip over it nor report what follows from it. Text becomes a number or boolean where the key takes no text, as a
variable can only give text (12-interpolation.md). Whether gorae honours a key is no question here (honesty.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.compose import units
from orchestrator.compose.errors import Report
from orchestrator.compose.forms import FORMS, SHAPES
from orchestrator.compose.keys import ROOT, Branch, Rule
from orchestrator.compose.nodes import BAD, Bad, Mark, Node, Value, spelled
from orchestrator.compose.scalars import parse_number

NAME = re.compile(r"[a-zA-Z0-9._-]{1,128}")
_TRUTHS = {"true": True, "yes": True, "on": True, "y": True, "false": False, "no": False, "off": False, "n": False}
_WORDS = {
    "text": "text",
    "int": "a whole number",
    "number": "a number",
    "bool": "true or false",
    "map": "a mapping",
    "list": "a list",
    "duration": "a duration",
    "size": "a size",
    "cpus": "a number of cores",
    "mode": "permission bits",
    "scalar": "text",
    "null": "empty",
}
_MEANINGS: dict[str, Callable[[Any], Value]] = {
    "duration": lambda value: units.spelled_duration(units.duration(value)),
    "size": lambda value: str(units.size(value)),
    "cpus": units.cores,
    "mode": units.octal,
    "scalar": spelled,
}
_OPEN = ("services", "networks", "volumes", "configs", "secrets", "models")  # sections whose keys are names


def validate(node: Node, report: Report) -> Node:
    """The file's tree in canonical form. Empty values are kept: where they are none, `leftovers` tells, after merging."""
    return _checked(node, ROOT, "", "", report)


def service(node: Node, name: str, report: Report) -> Node:
    """One service alone, as `extends` takes it from another file."""
    return _checked(node, ROOT.children["services"].children["*"], f"services.{name}", "services.*", report)


def leftovers(node: Node, report: Report) -> None:
    """Reports values that are empty in the merged tree, where a key takes no empty value."""
    _leftovers(node, ROOT, "", report)


def _leftovers(node: Node, branch: Branch, path: str, report: Report) -> None:
    if not isinstance(node.value, dict):
        return
    any_name = branch.children.get("*")
    for key, child in node.value.items():
        inner = branch.children.get(key, any_name)
        if inner is None or branch.rule.shape:
            continue
        where = f"{path}.{key}" if path else key
        if child.value is None and "null" not in inner.rule.kinds:
            _wrong_type(child, inner.rule, where, report)
        elif inner.children:
            _leftovers(child, inner, where, report)


def _checked(node: Node, branch: Branch, path: str, pattern: str, report: Report) -> Node:
    if node.tag == "reset" or node.value is None:
        return node
    value = _typed(node, branch.rule, path, report)
    if value is BAD:
        return node.with_value(BAD)
    if isinstance(value, dict):
        value = _mapping(value, branch, path, pattern, report)
    elif isinstance(value, list):
        value = _list(value, branch, path, pattern, report)
    form = FORMS.get(pattern) or SHAPES.get(branch.rule.shape)
    if form is None:
        return node.with_value(value)
    try:
        return node.with_value(form(node.with_value(value), path, report))
    except ValueError as error:
        report.problem(node, f"cannot use {path}: {error}")
        return node.with_value(BAD)


def _list(value: list[Node], branch: Branch, path: str, pattern: str, report: Report) -> list[Node]:
    inner = branch.children.get("[]")
    if inner is None:
        return value
    found = []
    for index, child in enumerate(value):
        if child.value is None and "null" not in inner.rule.kinds:
            _wrong_type(child, inner.rule, f"{path}[{index}]", report)
            continue
        child = _checked(child, inner, f"{path}[{index}]", f"{pattern}.[]", report)
        if child.value is not BAD:
            found.append(child)
    return found


def _mapping(value: dict[str, Node], branch: Branch, path: str, pattern: str, report: Report) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    any_name = branch.children.get("*")
    for key, child in value.items():
        inner = branch.children.get(key) if key not in ("*", "[]") else None
        inner = inner or any_name
        where = f"{path}.{key}" if path else key
        if inner is None:
            if not key.startswith("x-") or key.startswith("x-gorae"):
                _unknown(key, where, child.key_at, branch, report)
        elif path in _OPEN and not NAME.fullmatch(key):
            allowed = "letters, digits, '.', '_' and '-', and is not long"
            report.problem(child.key_at, f"cannot use {_short(key)} as a name in {path}: a name is made of {allowed}")
        else:
            name = key if inner is not any_name else "*"
            kept[key] = _checked(child, inner, where, f"{pattern}.{name}" if pattern else name, report)
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
            return "text"
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
    if kind not in rule.kinds:
        if kind == "text" and report.keeps(value):
            return value
        found = _meant(node, kind, rule, path, report)
        if found is None:
            _wrong_type(node, rule, path, report)
            return BAD
        return found
    if kind == "map" and rule.needs:
        return _needs(node, rule, path, report)
    if rule.words and kind == "text" and value not in rule.words and not report.keeps(value):
        known = ", ".join(rule.words)
        report.problem(node, f"cannot use {_shown(value)} as {path}: Compose knows {known}")
        return BAD
    return value


def _needs(node: Node, rule: Rule, path: str, report: Report) -> Value:
    entry = node.value
    assert isinstance(entry, dict)
    missing = [key for key in rule.needs if key not in entry]
    if not missing:
        return entry
    for key in missing:
        hint = "condition: service_started" if key == "condition" else f"add {key}"
        report.problem(node.key_at, f"cannot use {path}: `{key}` is missing", hint)
    return BAD


def _meant(node: Node, kind: str, rule: Rule, path: str, report: Report) -> Value:
    """What a scalar of another type stands for in this key; None: nothing. BAD: reported already."""
    value: Any = node.value
    if kind == "int" and "number" in rule.kinds:
        return node.value
    if kind == "number" and "int" in rule.kinds and value.is_integer():
        return int(value)
    for name, meaning in _MEANINGS.items():
        if name in rule.kinds and kind in _TAKEN[name]:
            try:
                return meaning(value)
            except ValueError as error:
                report.problem(node, f"cannot use {_shown(value)} as {path}: {error}")
                return BAD
    if kind == "text" and not rule.strict:
        return _cast(node, value, rule, path, report)
    return None


_TAKEN = {
    "duration": ("text",),
    "size": ("text", "int", "number"),
    "cpus": ("text", "int", "number"),
    "mode": ("text", "int"),
    "scalar": ("text", "int", "number", "bool"),
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


def _wrong_type(node: Node, rule: Rule, path: str, report: Report) -> None:
    kinds = [kind for kind in rule.kinds if kind != "null"]
    wanted = list(dict.fromkeys(_WORDS[kind] for kind in kinds if not (kind == "int" and "number" in kinds)))
    hint = ""
    if not isinstance(node.value, dict | list) and node.value is not None:
        if "duration" in kinds:
            hint = f"write the unit too, as in {spelled(node.value)}s"
        elif "text" in kinds:
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
