"""Logs on the screen, or in a file. Blocks of whole lines are written as such, without a look at each of them, wherever
what is shown allows it."""

from __future__ import annotations

import fcntl
import json
import sys
import time
from contextlib import suppress
from operator import itemgetter

from agent.wire.batches import Decoder, Gap, Part, told
from agent.wire.records import HEADER, Mark, rows
from orchestrator.cli.render import Screen, safe

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.wire.batches import Item
    from agent.wire.records import Line

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # SGR; one after the other, a service keeps its own
_WHEN = itemgetter(slice(0, 35))
_AFTER_WHEN = itemgetter(slice(35, None))
_TEXT = itemgetter(slice(HEADER, None))
_TAME = bytes(range(0x20, 0x7F)) + b"\t\n"  # a terminal shows them as they are
ROOM = 1 << 20  # bytes that a reader of our output may be behind, so that neither waits for the other
CAP = 16 << 20  # bytes of one line that are waited for


class Printer:
    """`show` each batch. `prefix`: whose line it is; without it lines come out byte for byte, and nothing else."""

    def __init__(self, decoder: Decoder, *, json: bool, times: bool, prefix: bool, stacks: bool) -> None:
        self._decoder = decoder
        self._json, self._times, self._prefix, self._stacks = json, times, prefix, stacks
        self._screen = Screen()
        self._out = sys.stdout.buffer
        with suppress(OSError, ValueError):  # no pipe, or none that may be larger
            fcntl.fcntl(self._out.fileno(), fcntl.F_SETPIPE_SZ, ROOM)
        self._width = 0
        self._colours: dict[tuple[str, str], int] = {}
        self._prefixes: dict[str, bytes] = {}
        self._shown: set[tuple[str, str, int]] = set()  # slots of which there was a line
        self._open: tuple[str, str] | None = None  # the line that is not ended yet: task, stream

    def show(self, parts: Sequence[Part]) -> None:
        self._align(parts)
        parts = [part for part in parts if part.data]
        if not parts:
            return
        if not self._json and not self._times and all(map(self._decoder.bare, parts)):
            tame = not self._screen.live or not any(part.data.translate(None, _TAME) for part in parts)
            text = self._quick(parts) if tame else None
            if text is not None:
                self._end_line()
                self._out.write(text)
                for part in parts:
                    self._decoder.pass_by(part)
                    self._shown.add((part.stack, part.service, part.slot))
                return
        self.items(self._decoder.feed(parts))

    def items(self, found: Sequence[tuple[Part, Item]]) -> None:
        for part, item in found:
            if self._json:
                self._out.write(json.dumps(told(part, item), ensure_ascii=False).encode() + b"\n")
            elif isinstance(item, Gap):
                self._remark(part, "lines are missing here: they were dropped before they could be read")
            elif isinstance(item, Mark):
                if item.attempt > 1 or (part.stack, part.service, part.slot) in self._shown:
                    self._remark(part, f"attempt {item.attempt}")
            else:
                self._line(part, item)

    def flush(self) -> None:
        self._out.flush()

    def end(self) -> None:
        """What is open is ended."""
        self._end_line()
        self._out.flush()

    def _quick(self, parts: Sequence[Part]) -> bytes | None:
        """In time order: one sort, by the time that each line still has in front. None: look at each line."""
        found: list[bytes] = []
        for part in parts:
            lines = rows(part.data)
            if lines is None:
                return None
            before = self._before(part)
            if len(parts) == 1:
                return before + before.join(map(_TEXT, lines))
            found += [line[:35] + before + line[HEADER:] for line in lines]
        found.sort(key=_WHEN)
        return b"".join(map(_AFTER_WHEN, found))

    def _line(self, part: Part, line: Line) -> None:
        self._shown.add((part.stack, part.service, part.slot))
        whose = (part.task, line.stream)
        if self._open != whose:
            self._end_line()
            when = time.strftime("%H:%M:%S ", time.localtime(line.at // 10**9)) if self._times else ""
            self._out.write(when.encode() + self._before(part))
        self._out.write(safe(line.text.decode(errors="replace")).encode() if self._screen.live else line.text)
        if line.partial:
            self._open = whose
        else:
            self._out.write(b"\n")
            self._open = None

    def _remark(self, part: Part, text: str) -> None:
        if self._prefix:
            self._end_line()
            self._out.write(self._screen.paint("dim", f"--- {self._name(part)} {text} ---").encode() + b"\n")

    def _end_line(self) -> None:
        if self._open is not None:
            self._out.write(b"\n")
            self._open = None

    def _align(self, parts: Sequence[Part]) -> None:
        width = max((len(self._name(part)) for part in parts), default=0)
        if width > self._width:
            self._width = width
            self._prefixes.clear()

    def _name(self, part: Part) -> str:
        return f"{part.stack}/{part.name}" if self._stacks else part.name

    def _before(self, part: Part) -> bytes:
        if not self._prefix:
            return b""
        made = self._prefixes.get(part.task)
        if made is None:
            name = self._name(part).ljust(self._width)
            if self._screen.colours:
                service = (part.stack, part.service)
                colour = self._colours.setdefault(service, _COLOURS[len(self._colours) % len(_COLOURS)])
                name = f"\x1b[{colour}m{name}\x1b[0m"
            made = self._prefixes[part.task] = f"{name} │ ".encode()
        return made
