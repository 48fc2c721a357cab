"""YAML → nodes: positions, anchors, merge keys, duplicate keys, tags."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose.errors import ComposeError, Report
from orchestrator.compose.nodes import Node, fields, items
from orchestrator.compose.read import read


def plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def one(text: str) -> Node:
    report = Report()
    documents = read(text.encode(), "f", report)
    report.finish()
    return documents[0]


def refusal(text: str) -> str:
    report = Report()
    with pytest.raises(ComposeError) as caught:
        read(text.encode(), "f", report)
        report.finish()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("a: {b: [1, x, null]}", {"a": {"b": [1, "x", None]}}, id="flow"),
        pytest.param("on: 1\nyes: 2", {"on": 1, "yes": 2}, id="keys that YAML 1.1 takes for booleans"),
        pytest.param("a: \"1\"\nb: 'true'", {"a": "1", "b": "true"}, id="quoted scalars are text"),
        pytest.param("a: |\n  12\n", {"a": "12\n"}, id="a block scalar is text"),
        pytest.param(
            "a: !!str 12\nb: !!int '12'\nc: !!float 1\nd: ! 5", {"a": "12", "b": 12, "c": 1.0, "d": 5}, id="tags"
        ),
        pytest.param("a: &x [1]\nb: *x", {"a": [1], "b": [1]}, id="alias"),
        pytest.param("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}, id="an anchor set again"),
        pytest.param(
            "a: &x {k: 1, l: 1}\nb: {<<: *x, l: 2}", {"a": {"k": 1, "l": 1}, "b": {"k": 1, "l": 2}}, id="merge"
        ),
        pytest.param("a: {l: 2, <<: {l: 1}}", {"a": {"l": 2}}, id="a merge after the own key"),
        pytest.param("b: {<<: [{k: 1}, {k: 2, m: 2}]}", {"b": {"k": 1, "m": 2}}, id="the first of several merges wins"),
        pytest.param('"<<": 1', {"<<": 1}, id="a quoted << is a key"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_read(text: str, value: object) -> None:
    documents = read(text.encode(), "f", Report())
    assert (plain(documents[0]) if documents else None) == value


def test_several_documents() -> None:
    assert [plain(node) for node in read(b"a: 1\n---\nb: 2\n", "f", Report())] == [{"a": 1}, {"b": 2}]


def test_keys_and_values_keep_line_and_column() -> None:
    root = one("a:\n  - x\n  - key:  value\n")
    second = items(fields(root)["a"])[1]
    assert str(fields(root)["a"].key_at) == "f:1:1"
    assert str(fields(root)["a"].at) == "f:2:3"
    assert str(items(fields(root)["a"])[0].at) == "f:2:5"
    assert str(fields(second)["key"].key_at) == "f:3:5"
    assert str(fields(second)["key"].at) == "f:3:11"


def test_an_alias_keeps_the_place_of_the_value_and_of_its_own_key() -> None:
    root = one("a: &x 1\nb: *x\n")
    assert (str(fields(root)["b"].key_at), str(fields(root)["b"].at)) == ("f:2:1", "f:1:4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "f:2:1: cannot set a twice: it is set in line 1 already"),
        ("1: a", "f:1:1: cannot use the key 1: it must be text"),
        ("true: a", "f:1:1: cannot use the key true: it must be text"),
        ("? [a]\n: b", "f:1:3: cannot use the key that is a list or a mapping: it must be text"),
        ("a: *x", "f:1:4: cannot use *x: no &x is complete above it"),
        ("a: &x [*x]", "f:1:8: cannot use *x: no &x is complete above it"),
        ("a: {<<: 1}", "f:1:5: cannot merge with <<: it takes a mapping, or a list of mappings"),
        ("a: {<<: {b: 1}, <<: {c: 1}}", "f:1:17: cannot use << twice in one mapping"),
        ("a: !!set {b}", "f:1:4: cannot use the tag !!set here"),
        ("a: !!map []", "f:1:4: cannot use the tag !!map here"),
        ("a: !!seq x", "f:1:4: cannot use the tag !!seq here"),
        ("a: !!int x", "f:1:4: cannot read 'x' as !!int"),
        ('a: "\\0"', "f:1:4: cannot use a text that holds a NUL character"),
        ("a: [1", "f:1:4: cannot read the YAML: while parsing a flow sequence: did not find expected ',' or ']'"),
        ("a: b: c", "f:1:5: cannot read the YAML: mapping values are not allowed in this context"),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_tab_gets_a_hint() -> None:
    with pytest.raises(ComposeError) as caught:
        read(b"a:\n\tb: 1\n", "f", Report())
    assert caught.value.hint == "indent with spaces; YAML takes no tabs"


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ComposeError, match="cannot read the file: it is not text in UTF-8"):
        read(b"a: \xff\xfe\x80", "f", Report())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read(data, "f", Report())
    except ComposeError as error:
        assert all(problem.message.startswith("cannot ") for problem in error.problems)


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%#~< \n\t0x", max_size=80))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    try:
        read(text.encode(), "f", Report())
    except ComposeError as error:
        assert all(problem.mark and problem.mark.line >= 1 for problem in error.problems)
