"""Text for people: tables that fit the terminal, spans of time, colours only where they are wanted. No input or output
but the questions a terminal answers; no rich, which would cost more start-up than all the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from orchestrator.cli.width import columns

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any, TextIO

GAP = 2
_LEAST = 10  # columns that a table leaves to each of its cells
_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_STATE_COLOURS = {"running": "green", "completed": "green", "failed": "red", "backoff": "red", "unknown": "yellow"}


class Screen:
    """Where output goes. `live`: a terminal whose lines can be drawn again."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.live = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.colours = self.live and not os.environ.get("NO_COLOR")
        self.width = self._columns()
        self._drawn = 0

    def _columns(self) -> int:
        try:
            return columns(self.stream.fileno())
        except (OSError, ValueError):  # a stream without a descriptor
            return columns()

    def paint(self, colour: str | None, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.colours and colour and text else text

    def line(self, text: str = "") -> None:
        self.stream.write(text + "\n")

    def paragraph(self, text: str) -> None:
        """A sentence: on a terminal broken between words, elsewhere one line."""
        for line in wrap(text, self.width) if self.live else [text]:
            self.line(line)

    def draw(self, lines: Sequence[str]) -> None:
        """Replace what the last draw() wrote. Only when `live`; long lists keep to the height of the terminal."""
        try:
            height = os.get_terminal_size(self.stream.fileno()).lines or 24  # 0: a terminal that does not know
        except (OSError, ValueError):
            height = 24
        shown = list(lines)
        if len(shown) > height - 1:
            shown = [*shown[: height - 2], f"… {len(shown) - height + 2} more"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self.stream.write(up + "\r" + "".join(f"\x1b[2K{cut(line, self.width)}\n" for line in shown) + "\x1b[J")
        self.stream.flush()
        self._drawn = len(shown)

    def erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self.stream.flush()
            self._drawn = 0

    def keep(self) -> None:
        """What is drawn stays; the next draw() begins below it."""
        self._drawn = 0


def cells(text: str) -> int:
    """Columns that `text` takes on a terminal; escape sequences take none."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    return sum(_width(char) for char in strip(text))


def strip(text: str) -> str:
    if "\x1b" not in text:
        return text
    import re

    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def _width(char: str) -> int:
    if char < "\u0300":
        return 1
    from unicodedata import combining, east_asian_width

    if combining(char) or char in "\u200b\u200d\ufe0f":
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def take(text: str, width: int) -> str:
    """The longest beginning of at most `width` columns."""
    used = 0
    for number, char in enumerate(text):
        used += _width(char)
        if used > width:
            return text[:number]
    return text


def cut(text: str, width: int) -> str:
    """At most `width` columns, the end replaced by …"""
    if cells(text) <= width:
        return text
    return take(strip(text), width - 1).rstrip() + "…"


def shorten(name: str, width: int) -> str:
    """At most `width` columns; a name is cut in its middle, as its ends tell more."""
    if cells(name) <= width:
        return name
    tail = take(name[::-1], (width - 1) // 3)[::-1]
    return take(name, width - 1 - cells(tail)) + "…" + tail


def safe(text: str) -> str:
    """What a container, an image or a registry says, without control characters that would steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char == "\t" else "·" for char in text)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces, or inside a word that is too long."""
    lines, line = [], ""
    for word in text.split():
        while cells(word) > width:
            room = width - (cells(line) + 1 if line else 0)
            if room < 8:
                lines.append(line)
                line, room = "", width
            head = take(word, room) or word[0]
            lines.append(f"{line} {head}" if line else head)
            line, word = "", word[len(head) :]
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line or not lines else lines


class Column:
    """`most`: where a longer cell is shortened. `flexible` (one of them): wraps within whatever is left."""

    def __init__(self, title: str, *, most: int = 40, flexible: bool = False) -> None:
        self.title = title
        self.most = most
        self.flexible = flexible


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | list[str]]], width: int, colours: Sequence[Any] = ()
) -> list[list[str]]:
    """Lines for the heading, then for each row. A cell that is a list has one line each. `colours`: for each row, a
    function (column number, text) → text, or nothing."""
    shaped = [[[safe(line) for line in ([cell] if isinstance(cell, str) else cell)] for cell in row] for row in rows]
    widths = []
    for number, column in enumerate(columns):
        longest = max((cells(line) for row in shaped for line in row[number]), default=0)
        widths.append(max(len(column.title), min(longest, column.most)))
    flexible = next((number for number, column in enumerate(columns) if column.flexible), None)
    if flexible is not None:
        others = sum(widths) - widths[flexible] + GAP * (len(columns) - 1)
        longest = max((cells(line) for row in shaped for line in row[flexible]), default=0)
        room = max(16, width - others)
        widths[flexible] = max(len(columns[flexible].title), min(longest, room))
    while sum(widths) + GAP * (len(columns) - 1) > width and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    out = [["".join(pad(c.title, w + GAP) for c, w in zip(columns, widths, strict=True)).rstrip()]]
    for index, row in enumerate(shaped):
        paint = colours[index] if index < len(colours) else None
        blocks = []
        for number, lines in enumerate(row):
            if number == flexible:
                blocks.append([part for line in lines for part in wrap(line, widths[number])])
            else:
                blocks.append([shorten(line, widths[number]) for line in lines])
        text = []
        for height in range(max(len(block) for block in blocks)):
            parts = []
            for number, block in enumerate(blocks):
                cell = block[height] if height < len(block) else ""
                filled = cell if number == len(blocks) - 1 else pad(cell, widths[number] + GAP)
                parts.append(filled if paint is None else paint(number, filled))
            text.append("".join(parts).rstrip())
        out.append(text)
    return out


def pad(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def span(seconds: float) -> str:
    """41s, 2m, 3h, 5d: one unit, rounded down."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def size(count: float) -> str:
    """Bytes with a decimal unit, as registries and disks say it."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def state_colour(state: str, health: str = "none") -> str | None:
    if state == "running" and health in ("starting", "unhealthy"):
        return "yellow"
    return _STATE_COLOURS.get(state, None if state == "stopped" else "yellow")
