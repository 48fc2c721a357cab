"""Sparse files in tars: where the stored bytes belong. Pure.

GNU tar manual, "Storing Sparse Files": old GNU (type S, the map in the header and in blocks after it), PAX 0.0 and 0.1
(the map in the PAX header), PAX 1.0 (the map in the first blocks of the content).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.images.tarfields import BLOCK, META_LIMIT, BadTar, decimal, number

Fragments = tuple[tuple[int, int], ...]  # (offset, length) of stored bytes, in their order
More = Callable[[], bytes]  # the next block of the stream
_BAD = "a malformed map of a sparse file"


@dataclass(frozen=True, slots=True)
class Sparse:
    """`size`: of the file, holes counted. `taken`: bytes of the entry's content that were the map."""

    size: int
    fragments: Fragments
    taken: int = 0


def of_header(header: bytes, more: More) -> Sparse:
    """Old GNU: four fragments in the header, 21 in each block that follows while the one before says so."""
    if header[257:263] != b"ustar ":
        raise BadTar("a sparse file that is not GNU tar's")
    size = number(header[483:495])
    numbers = _numbers(header[386:482])
    extended, blocks = header[482], 0
    while extended:
        block = more()
        blocks += 1
        if blocks * BLOCK > META_LIMIT:
            raise BadTar("a sparse file of too many fragments")
        numbers += _numbers(block[:504])
        extended = block[504]
    return Sparse(size, _pairs(numbers))


def _numbers(raw: bytes) -> list[int]:
    """Up to the first empty field."""
    found = []
    for at in range(0, len(raw) - 23, 24):
        if not raw[at]:
            break
        found += [number(raw[at : at + 12]), number(raw[at + 12 : at + 24])]
    return found


def of_records(records: Mapping[bytes, bytes], more: More) -> Sparse | None:
    """PAX; None for a file that is not sparse. `more` reads the entry's own content."""
    if not any(key.startswith(b"GNU.sparse.") for key in records):
        return None
    try:
        size = decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"")
        if b"GNU.sparse.map" in records and records.get(b"GNU.sparse.major", b"0") == b"0":
            text = records[b"GNU.sparse.map"]
            return Sparse(size, _pairs([decimal(word) for word in text.split(b",")] if text else []))
        if (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
            raise BadTar("a sparse file of an unknown version")
        numbers, taken = _leading(more)
        return Sparse(size, _pairs(numbers), taken)
    except ValueError as error:
        raise BadTar(_BAD) from error


def _leading(more: More) -> tuple[list[int], int]:
    """PAX 1.0: the number of fragments, then two numbers for each, a line each, padded to whole blocks."""
    text = bytearray()
    lines, wanted = 0, 1
    while lines < wanted:
        block = more()
        text += block
        if len(text) > META_LIMIT:
            raise BadTar("a sparse file of too many fragments")
        lines += block.count(b"\n")
        if wanted == 1 and lines:
            wanted = 1 + 2 * decimal(bytes(text.partition(b"\n")[0]))
    return [decimal(word) for word in bytes(text).split(b"\n", wanted)[1:wanted]], len(text)


def _pairs(numbers: list[int]) -> Fragments:
    if len(numbers) % 2:
        raise BadTar(_BAD)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def check(sparse: Sparse, stored: int) -> None:
    """That the fragments follow one another within the file and are all that is stored."""
    end = 0
    for offset, length in sparse.fragments:
        if offset < end:
            raise BadTar(_BAD)
        end = offset + length
    if end > sparse.size or sum(length for _, length in sparse.fragments) != stored:
        raise BadTar(_BAD)


def placed(pieces: Iterable[bytes | memoryview], fragments: Fragments) -> Iterator[tuple[int, memoryview]]:
    """Stored bytes with the offsets they belong at."""
    places = iter(fragments)
    offset = room = 0
    for piece in pieces:
        left = memoryview(piece)
        while left:
            while not room:
                offset, room = next(places)
            yield offset, left[:room]
            taken = min(room, len(left))
            offset, room, left = offset + taken, room - taken, left[taken:]
