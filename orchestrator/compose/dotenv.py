"""Files of variables: `.env`, `--env-file` and `env_file` (05-services.md, env_file format).

    # comment      export A=x      A: x      A=plain # comment      A='as it is'      A="\\t, \\n, $B, over lines"
    A              without a value: taken from the environment of the stack, else left out

Values (but not '…') are interpolated: what `lookup` knows first, then the lines above. `raw` files (format: raw) are
taken letter by letter, one variable a line.
"""

from __future__ import annotations

import re

from orchestrator.compose.errors import Report
from orchestrator.compose.interpolate import BadText, Lookup, substitute
from orchestrator.compose.nodes import Mark

_BLANK = re.compile(r"(?:\s|#[^\n]*+)*+")
_EXPORT = re.compile(r"export[^\S\n]+")
_KEY = re.compile(r"(?P<key>[\w.\[\]-]+)[^\S\n]*(?P<sign>[=:]|\n|\Z)[^\S\n]*")
_QUOTED = {quote: re.compile(rf"{quote}((?:[^{quote}\\]++|\\.)*+){quote}([^\n]*)", re.DOTALL) for quote in "'\""}
_ESCAPE = re.compile(r"\\(?:([abfnrtv\"\\$])|0([0-7]{1,3}))")
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}


def parse(source: str, file: str, lookup: Lookup, report: Report) -> dict[str, str]:
    """The variables of the file; what is wrong with it goes to the report, and ends the reading of this file."""
    return _Lines(source.removeprefix("\ufeff").replace("\r\n", "\n"), file, lookup, report).parse()


def parse_raw(source: str, file: str, lookup: Lookup, report: Report) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in enumerate(source.removeprefix("\ufeff").splitlines(), 1):
        line = row.lstrip()
        if not line or line.startswith("#"):
            continue
        key, sign, value = line.partition("=")
        if not key or key != "".join(key.split()):
            report.problem(Mark(file, number, 1), "cannot read this line: a name without spaces must come first")
            continue
        taken = value if sign else lookup(key)
        if taken is not None:
            found[key] = taken
    return found


class _Lines:
    def __init__(self, source: str, file: str, lookup: Lookup, report: Report) -> None:
        self._source = source
        self._file = file
        self._lookup = lookup
        self._report = report
        self._found: dict[str, str] = {}
        self._line = 1
        self._counted = 0  # lines are counted up to this offset

    def parse(self) -> dict[str, str]:
        position = self._skip(0)
        while position < len(self._source):
            next_position = self._statement(position)
            if next_position is None:
                break
            position = self._skip(next_position)
        return self._found

    def _skip(self, position: int) -> int:
        found = _BLANK.match(self._source, position)
        return found.end() if found else position

    def _mark(self, position: int) -> Mark:
        self._line += self._source.count("\n", self._counted, position)
        self._counted = position
        return Mark(self._file, self._line, position - self._source.rfind("\n", 0, position))

    def _statement(self, position: int) -> int | None:
        """Take one variable; where the next may begin, or None after an error."""
        start = position
        if export := _EXPORT.match(self._source, position):
            position = export.end()
        found = _KEY.match(self._source, position)
        if not found:
            self._report.problem(self._mark(start), "cannot read this line: NAME=value is expected")
            return None
        key = found["key"]
        if found["sign"] not in ("=", ":"):
            inherited = self._lookup(key)
            if inherited is not None:
                self._found[key] = inherited
            return found.end()
        position = found.end()
        quote = self._source[position : position + 1]
        try:
            if quote in _QUOTED and quote:
                return self._quoted(key, quote, position)
            return self._unquoted(key, position)
        except BadText as error:
            self._report.problem(self._mark(start), f"cannot set {key}: {error}")
            return None

    def _unquoted(self, key: str, position: int) -> int:
        end = self._source.find("\n", position)
        end = len(self._source) if end < 0 else end
        value = self._source[position:end]
        self._found[key] = self._expand(value.partition(" #")[0].rstrip(), position)
        return end

    def _quoted(self, key: str, quote: str, position: int) -> int:
        found = _QUOTED[quote].match(self._source, position)
        if not found:
            raise BadText(f"the text after {quote} must end with {quote}")
        if (rest := found[2].strip()) and not rest.startswith("#"):
            self._report.warn(self._mark(position), f"what follows {quote} in {key} has no effect: {rest[:40]!r}")
        if quote == "'":
            self._found[key] = found[1].replace("\\'", "'")
        else:
            self._found[key] = self._expand(_ESCAPE.sub(_unescape, found[1]), position)
        return found.end()

    def _expand(self, value: str, position: int) -> str:
        if "$" not in value:
            return value

        def lookup(name: str) -> str | None:
            known = self._lookup(name)
            known = self._found.get(name) if known is None else known
            self._report.spend(len(known or "") + 16, None)
            return known

        def unset(name: str) -> None:
            if name not in self._report.unset:
                self._report.unset.add(name)
                self._report.warn(self._mark(position), f"the variable {name} is not set: an empty text stands for it")

        self._report.spend(4 * len(value), None)
        return substitute(value, lookup, unset)


def _unescape(found: re.Match[str]) -> str:
    return _ESCAPES[found[1]] if found[1] else chr(int(found[2], 8))
