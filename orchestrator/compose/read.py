"""YAML text → Nodes. Built from libyaml's events, so that every value keeps its line and column, and so that a
hostile file is stopped while it is read: PyYAML's composer recurses in C, and its constructor expands aliases unasked.

Anchors, aliases and merge keys are resolved here, before interpolation (10-fragments.md). An anchor may be set again;
the nearest one above counts. No rule of Compose is here, except that keys are text and that `<<` merges.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import Mark, Node, Value
from orchestrator.compose.scalars import resolve

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
NODE_COST = 192  # of the budget, which is enough for 70,000 values; the largest of 900 public files has 9,000
_DIRECTIVE = re.compile(rb"(?:[\r\n\x85\xa8\xa9]\0?)%")  # a line that begins with %, in UTF-8 or UTF-16
_MAX_DIRECTIVES = 100  # libyaml compares each %TAG with all before it

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {"null", "bool", "int", "float"}


def read(data: bytes, file: str, report: Report) -> list[Node]:
    """The documents of one file. Raises ComposeError when the text is no YAML or is beyond the limits."""
    if len(data) > MAX_BYTES:
        report.stop(Mark(file, 1, 1), f"cannot read the file: it is larger than {MAX_BYTES // 1024} KiB")
    if len(_DIRECTIVE.findall(data)) > _MAX_DIRECTIVES:
        report.stop(Mark(file, 1, 1), f"cannot read the file: more than {_MAX_DIRECTIVES} lines begin with %")
    try:
        return _Reader(data, file, report).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context_mark and mark and mark.line >= len(data.splitlines()):
            mark = error.context_mark  # what was opened there is still open at the end
        place = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file, 1, 1)
        what = f"{error.context}: {error.problem}" if error.context else f"{error.problem}"
        report.stop(place, f"cannot read the YAML: {what}", _hint(data, place.line))
    except (yaml.YAMLError, UnicodeError) as error:
        report.stop(Mark(file, 1, 1), f"cannot read the file: it is not text in UTF-8 ({_brief(error)})")


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _hint(data: bytes, line: int) -> str:
    around = data.splitlines()[max(line - 2, 0) : line]
    if any(row.lstrip(b" ").startswith(b"\t") or row.startswith(b"\t") for row in around):
        return "indent with spaces; YAML takes no tabs"
    return ""


class _Reader:
    def __init__(self, data: bytes, file: str, report: Report) -> None:
        self._events = yaml.CSafeLoader(data)
        self._file = file
        self._report = report
        self._anchors: dict[str, tuple[Node, int]] = {}  # node, and what it costs of the budget

    def documents(self) -> list[Node]:
        found = []
        while not self._events.check_event(yaml.StreamEndEvent):
            event: Any = self._events.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                found.append(self._node(self._events.get_event(), 0))
        self._events.dispose()
        return found

    def _mark(self, event: Any) -> Mark:
        return Mark(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        at = self._mark(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._report.stop(at, f"cannot use *{event.anchor}: no &{event.anchor} is complete above it")
            node, cost = self._anchors[event.anchor]
            self._report.spend(cost, at)
            return Node(node.value, node.at, at, node.tag)
        if depth > MAX_DEPTH:
            self._report.stop(at, f"cannot read the file: it is nested deeper than {MAX_DEPTH} levels")
        before = self._report.left
        self._report.spend(NODE_COST + (len(event.value) if isinstance(event, yaml.ScalarEvent) else 0), at)
        merging = event.tag[1:] if event.tag in ("!reset", "!override") else ""
        if merging:
            event.tag = None
            event.implicit = (True, False) if isinstance(event, yaml.ScalarEvent) else True
        value = self._value(event, at, depth)
        node = Node(None if merging == "reset" else value, at, at, merging)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, before - self._report.left)
        return node

    def _value(self, event: Any, at: Mark, depth: int) -> Value:
        tag = event.tag.removeprefix(_TAG) if event.tag and event.tag != "!" else None
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, tag, at)
        expected = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        if tag not in (None, expected):
            self._foreign_tag(event.tag, at)
        return self._mapping(depth) if expected == "map" else self._sequence(depth)

    def _scalar(self, event: Any, tag: str | None, at: Mark) -> Value:
        text: str = event.value
        if "\0" in text:
            self._report.stop(at, "cannot use a text that holds a NUL character")
        if tag is None:
            return resolve(text) if event.implicit[0] else text
        if tag == "str":
            return text
        if tag not in _SCALAR_TAGS:
            self._foreign_tag(event.tag, at)
            return text
        value = resolve(text)
        if tag == "float" and type(value) is int:
            value = float(value)
        if type(value).__name__.replace("NoneType", "null") != tag:
            self._report.stop(at, f"cannot read {text!r} as !!{tag}")
        return value

    def _foreign_tag(self, tag: str, at: Mark) -> None:
        """One of YAML's own on a value it does not fit is an error, any other has no effect, as in the reference."""
        shown = tag.replace(_TAG, "!!")
        if tag.startswith(_TAG):
            self._report.stop(at, f"cannot use the tag {shown} here")
        self._report.warn(at, f"the tag {shown} is ignored: Compose has no such tag")

    def _sequence(self, depth: int) -> list[Node]:
        found = []
        while not isinstance(event := self._events.get_event(), yaml.SequenceEndEvent):
            found.append(self._node(event, depth + 1))
        return found

    def _mapping(self, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        merges = 0
        while not isinstance(event := self._events.get_event(), yaml.MappingEndEvent):
            merging = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self._node(event, depth + 1)
            node = self._node(self._events.get_event(), depth + 1)
            node = Node(node.value, node.at, key.key_at, node.tag)
            if merging:
                merges += 1
                self._merge(merged, node)
            elif not isinstance(key.value, str):
                self._report.problem(
                    key.key_at, f"cannot use the key {_shown(key)}: it must be text", "put it in quotes"
                )
                continue
            elif key.value in own:
                first = own[key.value].key_at
                self._report.problem(
                    key.key_at, f"cannot set {key.value} twice: it is set in line {first.line} already"
                )
            else:
                own[key.value] = node
            if merges > 1:
                self._report.problem(key.key_at, "cannot use << twice in one mapping", "write <<: [*first, *second]")
                merges = 1
        return merged | own if merged else own

    def _merge(self, merged: dict[str, Node], node: Node) -> None:
        """Earlier sources win over later ones; the mapping's own keys over all (by the caller)."""
        sources = node.value if isinstance(node.value, list) else [node]
        for source in sources:
            if not isinstance(source.value, dict):
                self._report.problem(source.key_at, "cannot merge with <<: it takes a mapping, or a list of mappings")
                continue
            for key, child in source.value.items():
                merged.setdefault(key, child)


def _shown(key: Node) -> str:
    match key.value:
        case None:
            return "null"
        case dict() | list():
            return "that is a list or a mapping"
        case value:
            return str(value).lower()
