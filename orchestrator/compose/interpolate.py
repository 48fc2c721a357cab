"""Variables in values (12-interpolation.md): $A ${A} ${A:-x} ${A-x} ${A:?e} ${A?e} ${A:+x} ${A+x} $$, nested.

Values only, never keys. What a form does not use is not looked at: `${A:-${B:?e}}` asks for B only if A is empty.
`$5`, `$ ` and a `$` at the end stay as they are, as in the reference. Also used for .env files, which speak the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Mark, Node, Value

MAX_NESTING = 10  # each level is looked through once more
_NAME = r"[_a-zA-Z][_a-zA-Z0-9]*"
_DOLLAR = re.compile(rf"\$(?:(?P<escaped>\$)|(?P<name>{_NAME})|(?P<brace>\{{))", re.ASCII)
_BRACED = re.compile(rf"(?P<name>{_NAME})(?:(?P<operator>:?[-?+])(?P<word>.*))?", re.ASCII | re.DOTALL)

Lookup = Callable[[str], str | None]


class BadText(Exception):
    """`substitute` cannot go on; the message says why, without the place."""


def substitute(text: str, lookup: Lookup, unset: Callable[[str], None], depth: int = 0) -> str:
    """`unset` hears of every variable that has no value and no default. Raises BadText."""
    if "$" not in text:
        return text
    if depth > MAX_NESTING:
        raise BadText(f"variables are nested deeper than {MAX_NESTING} levels")
    parts = []
    position = 0
    while found := _DOLLAR.search(text, position):
        parts.append(text[position : found.start()])
        position = found.end()
        if found["escaped"]:
            parts.append("$")
        elif found["name"]:
            parts.append(_plain(found["name"], lookup, unset))
        else:
            end = _closing(text, position)
            parts.append(_braced(text[position:end], lookup, unset, depth))
            position = end + 1
    parts.append(text[position:])
    return "".join(parts)


def _plain(name: str, lookup: Lookup, unset: Callable[[str], None]) -> str:
    value = lookup(name)
    if value is None:
        unset(name)
    return value or ""


def _closing(text: str, start: int) -> int:
    """Where the brace opened before `start` closes; braces inside count, whatever they belong to."""
    depth = 1
    for found in re.compile("[{}]").finditer(text, start):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    raise BadText("a ${ is not closed; for a plain dollar sign write $$")


def _braced(inside: str, lookup: Lookup, unset: Callable[[str], None], depth: int) -> str:
    found = _BRACED.fullmatch(inside)
    if not found:
        shown = inside if len(inside) <= 40 else inside[:40] + "…"
        raise BadText(f"${{{shown}}} is no form that Compose knows; for a plain dollar sign write $$")
    name, operator, word = found["name"], found["operator"], found["word"]
    if not operator:
        return _plain(name, lookup, unset)
    value = lookup(name)
    present = value is not None and (value != "" or ":" not in operator)
    if operator.endswith("+"):
        return substitute(word, lookup, unset, depth + 1) if present else ""
    if present:
        return value or ""
    if operator.endswith("-"):
        return substitute(word, lookup, unset, depth + 1)
    message = substitute(word, lookup, unset, depth + 1)
    state = "not set" if value is None else "empty"
    raise BadText(f"the variable {name} is {state}" + (f" ({message})" if message else ""))


def forms(text: str, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """(name, operator, word) of every variable in a text, those inside of words included; what is no form is passed
    over."""
    position = 0
    while found := _DOLLAR.search(text, position):
        position = found.end()
        if found["name"]:
            yield found["name"], "", ""
        elif found["brace"] and depth <= MAX_NESTING:
            try:
                end = _closing(text, position)
            except BadText:
                return
            if inside := _BRACED.fullmatch(text[position:end]):
                name, operator, word = inside.groups("")
                yield name, operator, word
                if operator.endswith(("-", "+")):
                    yield from forms(word, depth + 1)
            position = end + 1


def interpolate(node: Node, lookup: Lookup, report: Report) -> Node:
    """The tree with every variable replaced. A value that cannot be is reported and becomes BAD."""
    return node.with_value(_value(node, lookup, report))


def _value(node: Node, lookup: Lookup, report: Report) -> Value:
    value = node.value
    if isinstance(value, dict):
        return {key: child.with_value(_value(child, lookup, report)) for key, child in value.items()}
    if isinstance(value, list):
        return [child.with_value(_value(child, lookup, report)) for child in value]
    if isinstance(value, str) and "$" in value:
        return _text(value, node.at, lookup, report)
    return value


def _text(value: str, at: Mark, lookup: Lookup, report: Report) -> Value:
    def unset(name: str) -> None:
        if name not in report.unset:
            report.unset.add(name)
            report.warn(at, f"the variable {name} is not set: an empty text stands for it")

    def paid(name: str) -> str | None:
        found = lookup(name)
        report.spend(len(found or "") + 16, at)
        return found

    report.spend(4 * len(value), at)
    try:
        return substitute(value, paid, unset)
    except BadText as error:
        report.problem(at, f"cannot replace the variables of this value: {error}")
        return BAD
