"""A tar reader for hostile streams: one pass, bytes names, bounded memory, no file system. Faster than tarfile by far.

Formats: ustar, old GNU (long names, base-256 numbers), PAX (POSIX.1-2001 pax(1); xattrs as SCHILY.xattr.NAME). Sparse
files and multi-volume archives are refused: image builders write neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 512
META_LIMIT = 1 << 20  # bytes of one PAX header or long name
_ZEROS = bytes(BLOCK)

FILE, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_KNOWN = frozenset((FILE, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO))
_XATTR = b"SCHILY.xattr."

Read = Callable[[int], bytes]  # at most n bytes; b"" at the end


class BadTar(Exception):
    """The stream is not a tar that can be trusted to mean one thing."""


@dataclass(slots=True)
class Entry:
    """`name` and `link` are as written: absolute, with "..", whatever. `mtime_ns`: nanoseconds since 1970."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class TarStream:
    """Iterate for entries; between two, `data()` yields the current file's pieces (what is left is skipped)."""

    def __init__(self, read: Read) -> None:
        self._source = read
        self._buffer = b""
        self._at = 0
        self._left = 0  # data bytes of the current entry that were not taken
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        global_pax: dict[bytes, bytes] = {}
        pax: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while True:
            for _ in self.data():
                pass
            self._take_exactly(self._padding)
            self._padding = 0
            header = self._take(BLOCK)
            if not header or header == _ZEROS:
                self._drain()
                return
            if len(header) < BLOCK:
                raise BadTar("it ends within a header")
            _check_sum(header)
            kind, size = header[156:157], _number(header[124:136])
            if kind in (b"x", b"g", b"L", b"K"):
                if size > META_LIMIT:
                    raise BadTar(f"a header of {size} bytes")
                meta = self._take_exactly(size)
                self._take_exactly(-size % BLOCK)
                if kind == b"x":
                    pax = _records(meta)
                elif kind == b"g":
                    global_pax |= _records(meta)
                elif kind == b"L":
                    long_name = meta.partition(b"\0")[0]
                else:
                    long_link = meta.partition(b"\0")[0]
                continue
            entry = _entry(header, kind, size, {**global_pax, **pax} if global_pax else pax, long_name, long_link)
            pax, long_name, long_link = {}, b"", b""
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            yield entry

    def data(self) -> Iterator[bytes | memoryview]:
        """Pieces of the current entry's content."""
        while self._left:
            if self._at == len(self._buffer):
                self._fill()
            piece = memoryview(self._buffer)[self._at : self._at + self._left]
            if not piece:
                raise BadTar("it ends within a file")
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def _fill(self) -> None:
        self._buffer, self._at = self._source(1 << 20), 0

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._buffer):
            piece = self._buffer[self._at : end]
            self._at = end
            return piece
        pieces = [self._buffer[self._at :]]
        missing = size - len(pieces[0])
        while missing:
            self._fill()
            if not self._buffer:
                break
            piece = self._buffer[:missing]
            self._at = len(piece)
            missing -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _take_exactly(self, size: int) -> bytes:
        piece = self._take(size)
        if len(piece) < size:
            raise BadTar("it ends too early")
        return piece

    def _drain(self) -> None:
        """What follows the end mark still counts for the digest."""
        while True:
            self._fill()
            if not self._buffer:
                return


def _entry(header: bytes, kind: bytes, size: int, pax: dict[bytes, bytes], long_name: bytes, long_link: bytes) -> Entry:
    if kind in (b"\0", b"7"):
        kind = FILE
    if kind not in _KNOWN or any(key.startswith(b"GNU.sparse") for key in pax):
        raise BadTar(f"an entry of type {kind!r}" if kind not in _KNOWN else "a sparse file")
    name = header[:100].partition(b"\0")[0]
    magic = header[257:263]
    if magic == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    link = header[157:257].partition(b"\0")[0]
    entry = Entry(
        name=long_name or name,
        kind=kind,
        mode=_number(header[100:108]) & 0o7777,
        uid=_number(header[108:116]),
        gid=_number(header[116:124]),
        size=size,
        mtime_ns=_number(header[136:148], signed=True) * 1_000_000_000,
        link=long_link or link,
    )
    if pax:
        _override(entry, pax)
    if kind == FILE and entry.name.endswith(b"/"):
        entry.kind = DIRECTORY  # as written before there was a type for directories
    if kind != FILE:
        entry.size = 0 if kind in (HARDLINK, SYMLINK, CHAR, BLOCKDEV, FIFO) else entry.size
    if b"\0" in entry.name or b"\0" in entry.link or not entry.name:
        raise BadTar("an entry without a usable name")
    if not (0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1):
        raise BadTar(f"{_show(entry.name)} has an owner out of range")
    return entry


def _override(entry: Entry, pax: dict[bytes, bytes]) -> None:
    try:
        entry.name = pax.get(b"path") or entry.name
        entry.link = pax.get(b"linkpath") or entry.link
        entry.size = _decimal(pax.get(b"size"), entry.size)
        entry.uid = _decimal(pax.get(b"uid"), entry.uid)
        entry.gid = _decimal(pax.get(b"gid"), entry.gid)
        mtime = pax.get(b"mtime")
        if mtime:
            entry.mtime_ns = _nanoseconds(mtime)
    except ValueError as error:
        raise BadTar(f"{_show(entry.name)} has a malformed PAX record") from error
    for key, value in pax.items():
        if key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value


def _records(meta: bytes) -> dict[bytes, bytes]:
    """PAX records: "LENGTH KEY=VALUE\\n"; LENGTH counts the whole record."""
    records = {}
    at = 0
    while at < len(meta):
        space = meta.find(b" ", at, at + 12)
        digits = meta[at:space]
        if space < 0 or not digits.isdigit():
            raise BadTar("a malformed PAX header")
        end = at + int(digits)
        key, equals, value = meta[space + 1 : end].partition(b"=")
        if end > len(meta) or not equals or not value.endswith(b"\n"):
            raise BadTar("a malformed PAX header")
        records[key] = value[:-1]
        at = end
    return records


def _check_sum(header: bytes) -> None:
    """Of all bytes, the sum's own field read as spaces."""
    said = _number(header[148:156])
    if said != sum(header) - sum(header[148:156]) + 256:
        raise BadTar("a header with a wrong checksum")


def _number(raw: bytes, *, signed: bool = False) -> int:
    """Octal, or GNU's base-256 with the top bit set (0xff: negative)."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw[1:], "big") - (1 << (len(raw) - 1) * 8 if raw[0] == 0xFF else 0)
        if raw[0] not in (0x80, 0xFF) or (value < 0 and not signed) or abs(value) >= 1 << 62:
            raise BadTar("a number out of range")
        return value
    digits = raw.strip(b" \0")
    try:
        value = int(digits, 8) if digits else 0
    except ValueError:
        raise BadTar("a malformed number") from None
    if value < 0 and not signed:
        raise BadTar("a negative number")
    return value


def _decimal(raw: bytes | None, default: int) -> int:
    if not raw:
        return default
    value = int(raw)
    if not 0 <= value < 1 << 62:
        raise ValueError
    return value


def _nanoseconds(raw: bytes) -> int:
    """Of "-12.0345": exact, where a float would not be."""
    whole, _, fraction = raw.partition(b".")
    value = abs(int(whole)) * 1_000_000_000 + int((fraction[:9] or b"0").ljust(9, b"0"))
    if value >= 1 << 62:
        raise ValueError
    return -value if raw.startswith(b"-") else value


def _show(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "backslashreplace"))
