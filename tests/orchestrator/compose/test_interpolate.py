"""12-interpolation.md, form by form."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose.interpolate import MAX_NESTING, BadText, substitute

from .support import loaded, problems, service

VARIABLES = {"S": "set", "E": ""}


def substituted(text: str) -> str:
    return substitute(text, VARIABLES.get, lambda name: None)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$S", "set"),
        ("${S}", "set"),
        ("$U", ""),
        ("${U}", ""),
        ("${U:-d}", "d"),
        ("${U-d}", "d"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${S:-d}", "set"),
        ("${S:+alt}", "alt"),
        ("${U:+alt}", ""),
        ("${E:+alt}", ""),
        ("${E+alt}", "alt"),
        ("${U+alt}", ""),
        ("${S:?e}", "set"),
        ("${E?e}", ""),
        ("${U:-}", ""),
        ("${U:-${E:-${S}}}", "set"),
        ("${U:-a:b-c?d}", "a:b-c?d"),
        ('${U:-"quoted"}', '"quoted"'),
        ("${U:-{}}", "{}"),
        ("${S:-{}}", "set"),
        ("${U:-$$S}", "$S"),
        ("$$S", "$S"),
        ("$${S}", "${S}"),
        ("$$$S", "$set"),
        ("100% $ 5$ $1 a$", "100% $ 5$ $1 a$"),
        ("x${S}y$S-$S_1", "xsetyset-"),
        ("${S:-${U:?never asked}}", "set"),
        ("${U:-over\nlines}", "over\nlines"),
    ],
)
def test_forms(text: str, result: str) -> None:
    assert substituted(text) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${S", "a ${ is not closed"),
        ("${U:-${S}", "a ${ is not closed"),
        ("${}", "${} is no form that Compose knows"),
        ("${1}", "${1} is no form"),
        ("${S/a/b}", "${S/a/b} is no form"),
        ("${S:}", "${S:} is no form"),
        ("${S:=x}", "${S:=x} is no form"),
        ("${ S}", "${ S} is no form"),
        ("${U:?}", "the variable U is not set"),
        ("${U?give $S}", "the variable U is not set (give set)"),
        ("${E:?e}", "the variable E is empty (e)"),
        ("${U:-" * (MAX_NESTING + 2) + "}" * (MAX_NESTING + 2), "nested deeper"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(BadText) as caught:
        substituted(text)
    assert message in str(caught.value)


@given(st.text(alphabet="$${}SEU:-?+1_ a", max_size=60))
def test_any_text_is_replaced_or_refused(text: str) -> None:
    try:
        result = substituted(text)
    except BadText:
        return
    assert "$" in text or result == text


@given(st.text())
def test_doubled_dollars_are_the_text_itself(text: str) -> None:
    assert substituted(text.replace("$", "$$")) == text


def test_keys_are_not_replaced_but_entries_of_a_list_are(tmp_path: Path) -> None:
    found = service(tmp_path, 'labels: {"$S": "$S"}\nenvironment: ["$S=$S"]', VARIABLES)
    assert found.labels == {"$S": "set"}
    assert found.environment == {"set": "set"}


def test_anchors_are_resolved_before(tmp_path: Path) -> None:
    text = "x-a: &a\n  K: ${S}\nservices:\n  a:\n    image: x\n    environment: {<<: *a, Z: 1}\n"
    assert loaded(tmp_path, text, VARIABLES).stack.services["a"].environment == {"K": "set", "Z": "1"}


def test_a_variable_that_is_not_set_is_warned_of_once(tmp_path: Path) -> None:
    found = loaded(tmp_path, "services: {a: {image: x, command: [$U, $U]}}\n")
    assert found.warnings == ("compose.yaml:1:36: the variable U is not set: an empty text stands for it",)


def test_numbers_and_booleans_are_cast_afterwards(tmp_path: Path) -> None:
    keys = 'scale: "${N:-2}"\nread_only: ${B:-true}\ncpus: ${X:-0.5}\nhealthcheck: {retries: "${R:-4}"}\nports: [{target: "${T:-80}"}]'
    found = service(tmp_path, keys)
    assert (found.replicas, found.read_only, found.resources.cpus) == (2, True, 0.5)
    assert found.healthcheck and found.healthcheck.retries == 4
    assert found.ports[0].target == 80


def test_a_required_variable_names_its_place_and_nothing_else_follows(tmp_path: Path) -> None:
    assert problems(tmp_path, "services:\n  a:\n    image: ${TAG:?choose a tag}\n") == [
        "compose.yaml:3:12: cannot replace the variables of this value: the variable TAG is not set (choose a tag)"
    ]
