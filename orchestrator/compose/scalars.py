"""What a plain YAML scalar means: the YAML 1.2 core schema, as the reference implementation of Compose reads it.

Differences to YAML 1.1 (PyYAML's own rules) that real files depend on: `yes`, `no`, `on` and `off` are text, and so
are `22:22` and dates. Differences of the reference to the 1.2 core: `0755` is octal, `1_000` a number.
An integer that needs more than 64 bits stays text: it is an identifier, and as a float it would lose digits.
"""

from __future__ import annotations

import re

CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_LONGEST = 66  # sign, 0b and 64 binary digits: no number is longer
_OCTAL = re.compile(r"[-+]?0[0-7]+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?[0-9]+", re.ASCII)
_PREFIXED = re.compile(r"[-+]?0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)


def resolve(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar without a tag."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    if text[0] not in "0123456789+-." or len(text) > _LONGEST:
        return text
    value = parse_number(text.replace("_", ""))
    return text if value is None else value


def parse_number(text: str) -> int | float | None:
    """An integer of 64 bits or a float; None: no number. Also used where a field takes a number written as text."""
    value: int
    if _PREFIXED.fullmatch(text):
        value = int(text, 0)
    elif _OCTAL.fullmatch(text):
        value = int(text, 8)
    elif _DECIMAL.fullmatch(text):
        value = int(text[:40])
    else:
        return float(text) if _FLOAT.fullmatch(text) else None
    return value if -(2**63) <= value < 2**64 else None
