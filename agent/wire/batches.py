"""Logs on their way: the agent sends them as they lie in its files, and whoever shows them takes them apart. So nothing
between a file and its reader looks at each line, and a million lines cost the agent some hundreds of writes.

A batch is {"batch": [[stack, service, slot, task, file, offset, lost, length], …]} as a line, then the bytes of all its
parts. Of two batches, no record of the second is older than one of the first, as far as all were written by then;
inside a batch the reader sorts. `file` is the time of a file's first record, in nanoseconds, by which it is known
whatever it is called by now; `offset` is where in it the part begins.

A cursor says how far a reader has come, exactly: `TASK:FILE:OFFSET:SKIP,…`, numbers in hexadecimal. From that place on,
the first SKIP lines of the task have been seen already: they were complete while an earlier one of its other stream was
not.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from agent.kit.errors import UserError
from agent.wire.records import LINE_CAP, Joiner, Line, Mark, stamp

_PLACE = re.compile(r"([^:]+):([0-7]?[0-9a-f]{1,15}):([0-7]?[0-9a-f]{1,15}):([0-7]?[0-9a-f]{1,15})")  # below 2**63


class Place(NamedTuple):
    file: int = 0
    offset: int = 0
    skip: int = 0


class Part(NamedTuple):
    """Whole records of one task. `lost`: some before them were dropped unread. Without data: where the task stands."""

    stack: str
    service: str
    slot: int
    task: str
    file: int
    offset: int
    lost: bool
    data: bytes

    @property
    def name(self) -> str:
        return f"{self.service}.{self.slot}"


class Gap(NamedTuple):
    at: int


Item = Line | Mark | Gap


def encode(parts: Sequence[Part]) -> bytes:
    head = [[*part[:6], int(part.lost), len(part.data)] for part in parts]
    return b"".join([json.dumps({"batch": head}).encode(), b"\n", *(part.data for part in parts)])


def length(head: Sequence[Sequence[int]]) -> int:
    """Bytes that follow this head."""
    return sum(entry[7] for entry in head)


def decode(head: Sequence[Sequence[int]], data: bytes) -> list[Part]:
    if len(head) == 1:
        return [_part(head[0], data)]
    parts, place = [], 0
    for entry in head:
        parts.append(_part(entry, data[place : place + entry[7]]))
        place += entry[7]
    return parts


def _part(entry: Sequence[int], data: bytes) -> Part:
    stack, service, slot, task, file, offset, lost, _ = entry
    return Part(str(stack), str(service), slot, str(task), file, offset, bool(lost), data)


def cursor(places: Mapping[str, Place]) -> str:
    return ",".join(f"{task}:{at.file:x}:{at.offset:x}:{at.skip:x}" for task, at in places.items())


def places(text: str) -> dict[str, Place]:
    """UserError bad-cursor."""
    found = {}
    for entry in filter(None, text.split(",")):
        match = _PLACE.fullmatch(entry)
        if match is None:
            raise UserError(
                f"cannot go on after {entry[:80]!r}: that is no place in a log",
                code="bad-cursor",
                hint="take the id of the last event, as it came",
            )
        task, *numbers = match.groups()
        found[task] = Place(*(int(number, 16) for number in numbers))
    return found


def told(part: Part, item: Item) -> dict[str, object]:
    """As a JSON document (docs/api.md). A text that is no UTF-8 comes in base64 as well."""
    whose = {"stack": part.stack, "service": part.service, "slot": part.slot, "task": part.task, "at": item.at / 1e9}
    if isinstance(item, Gap):
        return {"kind": "gap", **whose}
    if isinstance(item, Mark):
        return {"kind": "attempt", **whose, "attempt": item.attempt}
    document = {"kind": "line", **whose, "stream": item.stream, "text": item.text.decode(errors="replace")}
    if item.partial:
        document["partial"] = True
    try:
        item.text.decode()
    except ValueError:
        document["base64"] = binascii.b2a_base64(item.text, newline=False).decode()
    return document


class Decoder:
    """Batches in, lines out. It knows how far it has come: `places`, which a cursor is made of."""

    def __init__(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        after: Mapping[str, Place] | None = None,
        cap: int = LINE_CAP,
    ) -> None:
        """`since`, `until`: Unix seconds; the agent has left out files and blocks, this looks at each line."""
        self._since, self._until = since, until
        self._cap = cap
        self._skip = {task: place.skip for task, place in (after or {}).items()}
        self._joiners: dict[str, Joiner] = {}
        self._last: dict[str, Part] = {}
        self.places: dict[str, Place] = dict(after or {})

    def bare(self, part: Part) -> bool:
        """Its records can be taken as they are: no line is open, none is left out."""
        joiner = self._joiners.get(part.task)
        return (
            not part.lost
            and (joiner is None or joiner.between)
            and not self._skip.get(part.task)
            and self._until is None
            and (self._since is None or _begin(part) / 1e9 >= self._since)
        )

    def pass_by(self, part: Part) -> None:
        """The part was shown by its `bare` records."""
        self._last[part.task] = part
        self.places[part.task] = Place(part.file, part.offset + len(part.data))

    def feed(self, parts: Iterable[Part]) -> list[tuple[Part, Item]]:
        """In time order."""
        found = [(part, item) for part in parts for item in self._one(part)]
        if len({part.task for part, _ in found}) > 1:
            found.sort(key=lambda each: each[1].at)
        return found

    def _one(self, part: Part) -> Iterator[Item]:
        joiner = self._joiners.setdefault(part.task, Joiner(self._cap))
        self._last[part.task] = part
        skip, position = self._skip.get(part.task, 0), part.offset
        if part.lost:
            skip = 0
            yield from joiner.rest()
            yield Gap(_begin(part))
        place = self.places.get(part.task, Place())
        if joiner.between:
            place = Place(part.file, part.offset, skip)
        for raw in part.data.split(b"\n")[:-1]:
            item = joiner.feed(raw)
            position += len(raw) + 1
            if joiner.between:
                skip = 0  # what was seen already was complete while another line was not; else the cursor is forged
            if item is not None and skip:
                skip -= 1
            elif item is not None:
                place = place._replace(skip=place.skip + 1)
                if self._wanted(item.at):
                    yield item
            if joiner.between:
                place = Place(part.file, position, skip)
        self._skip[part.task] = skip
        self.places[part.task] = place

    def rest(self) -> list[tuple[Part, Item]]:
        """Lines that never ended; call it when nothing more is to come."""
        found: list[tuple[Part, Item]] = []
        for task, joiner in self._joiners.items():
            found += [(self._last[task], item) for item in joiner.rest() if self._wanted(item.at)]
        return sorted(found, key=lambda each: each[1].at)

    def _wanted(self, at: int) -> bool:
        return (self._since is None or at / 1e9 >= self._since) and (self._until is None or at / 1e9 <= self._until)


def _begin(part: Part) -> int:
    """Of its first record; 0 when that is none."""
    try:
        return stamp(part.data)
    except ValueError:
        return 0
