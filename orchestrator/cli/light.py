"""JSON by the part of the package json that is written in C (json/scanner.py and encoder.py call it the same way): the
package loads regular expressions, which takes as long as the interpreter's own start."""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any, NoReturn


class _Plain:
    """What json.JSONDecoder is by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


_scan = make_scanner(_Plain)  # type: ignore[arg-type]  # it takes whatever has these names
_encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)


def dumps(value: object) -> str:
    """As json.dumps() has it; a value that holds itself is not looked for."""
    return "".join(_encode(value, 0))


def loads(text: bytes | bytearray) -> Any:
    """Of UTF-8. ValueError."""
    whole = text.decode("utf-8", "surrogatepass").strip(" \t\r\n")
    try:
        value, end = _scan(whole, 0)
    except StopIteration:
        raise ValueError("no JSON") from None
    if end != len(whole):
        raise ValueError("more than one JSON document")
    return value
