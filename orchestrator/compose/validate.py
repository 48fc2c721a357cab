"""Walks one file beside the table of keys: every key must be in it, every value of a type it allows; short forms
become long ones on the way (forms.py, longforms.py), and scalars their one spelling (values.py).

An unknown key is reported and left out; a value of a wrong type is reported and becomes BAD, so that later stages
neither trip over it nor report what follows from it. Whether gorae honours a key is no question here (honesty.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from orchestrator.compose.errors import Report
from orchestrator.compose.forms import SHAPES
from orchestrator.compose.keys import ROOT, Branch
from orchestrator.compose.longforms import FORMS
from orchestrator.compose.nodes import BAD, Node, spelled
from orchestrator.compose.values import short, shown, typed, wrong_type

NAME = re.compile(r"[a-zA-Z0-9._-]{1,128}")
_FORGIVING = ("include.[]", "services.*.extends")  # the reference does not look at their other keys
_OPEN = ("services", "networks", "volumes", "configs", "secrets", "models")  # sections whose keys are names


def validate(node: Node, report: Report) -> Node:
    """The file's tree in canonical form. Empty values are kept: `complete` tells where one is needed, after merging."""
    checked = _checked(node, ROOT, "", "", report)
    if checked.value is BAD:
        report.tell(checked)
    return checked


def service(node: Node, name: str, report: Report) -> Node:
    """One service alone, as `extends` takes it from another file."""
    return _checked(node, ROOT.children["services"].children["*"], f"services.{name}", "services.*", report)


def complete(node: Node, report: Report) -> None:
    """Reports what is wrong with values that nothing replaced, and what is empty or missing in the merged tree."""
    _complete(node, ROOT, "", report)


def _complete(node: Node, branch: Branch, path: str, report: Report) -> None:
    rule = branch.rule
    if rule.shape:
        return
    if isinstance(node.value, list) and "[]" in branch.children:
        for index, child in enumerate(node.value):
            _complete(child, branch.children["[]"], f"{path}[{index}]", report)
    if not isinstance(node.value, dict):
        return
    for key in rule.needs:
        if key not in node.value:
            hint = "condition: service_started" if key == "condition" else f"add {key}"
            report.problem(node.key_at, f"cannot use {path}: `{key}` is missing", hint)
    any_name = branch.children.get("*")
    for key, child in node.value.items():
        inner = branch.children.get(key, any_name)
        if inner is None:
            continue
        where = f"{path}.{key}" if path else key
        if child.value is BAD:
            report.tell(child)
        elif child.value is None and "null" not in inner.rule.kinds:
            wrong_type(child, inner.rule, where, report)
        elif inner.children:
            _complete(child, inner, where, report)


def _checked(node: Node, branch: Branch, path: str, pattern: str, report: Report) -> Node:
    if node.tag == "reset" or node.value is None:
        return node
    value = typed(node, branch.rule, path, report)
    if value is BAD:
        if pattern in FORMS:  # the reference reads short forms before it looks at what extends the service
            report.tell(node)
        return node.with_value(BAD)
    if isinstance(value, dict):
        value = _mapping(value, branch, path, pattern, report)
    elif isinstance(value, list):
        value = _list(value, branch, path, pattern, report)
    form = FORMS.get(pattern) or SHAPES.get(branch.rule.shape)
    if form is None:
        return node.with_value(value)
    report.tell(node.with_value(value))
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
            wrong_type(child, inner.rule, f"{path}[{index}]", report)
            continue
        child = _checked(child, inner, f"{path}[{index}]", f"{pattern}.[]", report)
        report.tell(child)
        if child.value is not BAD:
            found.append(child)
    if "set" in branch.rule.kinds:
        _tell_of_twins(found, path, report)
    return found


def _tell_of_twins(found: list[Node], path: str, report: Report) -> None:
    seen: set[str] = set()
    for index, node in enumerate(found):
        if spelled(node.value) in seen:
            report.problem(node, f"cannot use {path}[{index}]: it says {shown(node.value)} twice", "take one out")
        seen.add(spelled(node.value))


def _mapping(value: dict[str, Node], branch: Branch, path: str, pattern: str, report: Report) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    any_name = branch.children.get("*")
    for key, child in value.items():
        inner = branch.children.get(key) if key not in ("*", "[]") else None
        inner = inner or any_name
        where = f"{path}.{key}" if path else key
        if inner is None and (pattern in _FORGIVING or child.tag == "reset"):
            report.warn(child.key_at, f"{where} is ignored: Compose has no such key{guess(near(key, branch.names()))}")
        elif inner is None:
            if not key.startswith("x-") or key.startswith("x-gorae") or branch.rule.closed:
                meant = near(key, branch.names())
                report.problem(child.key_at, f"cannot use {where}: Compose has no such key{guess(meant)}")
                if meant and meant not in value:
                    kept[meant] = child.with_value(BAD)  # it is not missed as well
        elif path in _OPEN and not NAME.fullmatch(key):
            allowed = "letters, digits, '.', '_' and '-', and is not long"
            report.problem(child.key_at, f"cannot use {short(key)} as a name in {path}: a name is made of {allowed}")
        else:
            name = key if inner is not any_name else "*"
            kept[key] = _checked(child, inner, where, f"{pattern}.{name}" if pattern else name, report)
    return kept


def near(name: str, known: Iterable[str]) -> str | None:
    """Which of these is likely meant: of the first hundred, and of names of 32 letters, as difflib's time is cubic."""
    from difflib import get_close_matches  # only a file with a mistake pays for it

    few = [one for one in islice(known, 100) if len(one) <= 32]
    return next(iter(get_close_matches(name[:32], few, n=1, cutoff=0.6)), None)


def guess(found: str | None) -> str:
    """The end of a sentence that says a name is not known; of what near() found."""
    return f"; did you mean {found}?" if found else ""
