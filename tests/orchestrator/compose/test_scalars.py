"""Plain scalars: the YAML 1.2 core as Compose reads it, and what numbers look like as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose.nodes import spelled
from orchestrator.compose.scalars import parse_number, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("Null", None),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("no", "no"),
        ("off", "off"),
        ("22:22", "22:22"),
        ("2020-01-01", "2020-01-01"),
        ("12", 12),
        ("+5", 5),
        ("-5", -5),
        ("0755", 493),
        ("0o755", 493),
        ("08", 8),
        ("0x1F", 31),
        ("-0x10", -16),
        ("0b11", 3),
        ("1_000", 1000),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("0x", "0x"),
        ("-", "-"),
        (".", "."),
        ("_1", "_1"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", "18446744073709551616"),
        ("123456789012345678901234", "123456789012345678901234"),
        ("٣", "٣"),
    ],
)
def test_resolve(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        (1.0, "1"),
        (1000.0, "1000"),
        (999999.0, "999999"),
        (1e6, "1e+06"),
        (123456789.5, "1.234567895e+08"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (1e21, "1e+21"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (0.0, "0"),
        (-0.0, "-0"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
        ("as it is", "as it is"),
        (None, ""),
    ],
)
def test_spelled(value: None | bool | int | float | str, text: str) -> None:  # noqa: RUF036
    assert spelled(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_spelled_float_reads_back(value: float) -> None:
    assert float(spelled(value)) == value


@given(st.text())
def test_resolve_takes_any_text(text: str) -> None:
    found = resolve(text)
    assert found is None or isinstance(found, bool | int | float | str)


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_are_read_in_every_base(value: int) -> None:
    assert parse_number(str(value)) == value
    assert parse_number(hex(value)) == value
    assert parse_number(oct(value)) == value
