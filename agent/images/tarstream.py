"""A tar reader for hostile streams: one pass, bytes names, bounded memory, no file system. Faster than tarfile by far.

Formats: ustar, old GNU (long names, base-256 numbers), PAX (POSIX.1-2001 pax(1); xattrs as SCHILY.xattr.NAME), sparse
files (sparse.py). Where readers differ it means what Go's archive/tar means, the reader of Docker, containerd and the
builders: global PAX headers say nothing about files, only files have content. Multi-volume archives are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.images import sparse
from agent.images.sparse import Fragments, Sparse
from agent.images.tarfields import (
    BLOCK,
    META_LIMIT,
    BadTar,
    check_sum,
    decimal,
    nanoseconds,
    number,
    records,
    show,
)

_ZEROS = bytes(BLOCK)

FILE, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_KNOWN = frozenset((FILE, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO))
_OLD_FILE, _CONTIGUOUS, _SPARSE = b"\0", b"7", b"S"
_XATTR = b"SCHILY.xattr."

Read = Callable[[int], bytes]  # at most n bytes; b"" at the end


@dataclass(slots=True)
class Entry:
    """`name` and `link` are as written: absolute, with "..", whatever. `mtime_ns`: nanoseconds since 1970. `size`:
    of the file; of a sparse one, whose content belongs at `fragments`, with its holes."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    fragments: Fragments | None = None


class TarStream:
    """Iterate for entries; between two, `data()` yields the current file's pieces (what is left is skipped)."""

    def __init__(self, read: Read) -> None:
        self._source = read
        self._buffer = b""
        self._at = 0
        self._left = 0  # data bytes of the current entry that were not taken
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while True:
            if self._left:
                for _ in self.data():
                    pass
            if self._padding:
                self._take_exactly(self._padding)
                self._padding = 0
            header = self._take(BLOCK)
            if not header or header == _ZEROS:
                self._drain()
                return
            if len(header) < BLOCK:
                raise BadTar("it ends within a header")
            check_sum(header)
            kind, size = header[156:157], number(header[124:136])
            if kind in (b"x", b"g", b"L", b"K"):
                if size > META_LIMIT:
                    raise BadTar(f"a header of {size} bytes")
                meta = self._take_exactly(size)
                self._take_exactly(-size % BLOCK)
                if kind == b"x":
                    pax = records(meta)
                elif kind == b"L":
                    long_name = meta.partition(b"\0")[0]
                elif kind == b"K":
                    long_link = meta.partition(b"\0")[0]
                continue
            entry = _entry(header, kind, size, pax, long_name, long_link)
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            if entry.kind == FILE and (found := self._sparse(header, kind, pax)):
                entry.name = pax.get(b"GNU.sparse.name") or entry.name
                entry.size, entry.fragments = found.size, found.fragments
            if b"\0" in entry.name or b"\0" in entry.link or not entry.name:
                raise BadTar("an entry without a usable name")
            pax, long_name, long_link = {}, b"", b""
            yield entry

    def _sparse(self, header: bytes, kind: bytes, pax: dict[bytes, bytes]) -> Sparse | None:
        def more() -> bytes:
            return self._take_exactly(BLOCK)

        found = sparse.of_header(header, more) if kind == _SPARSE else sparse.of_records(pax, more)
        if found is not None:
            self._left -= found.taken
            sparse.check(found, self._left)
        return found

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
        """What follows the end mark still counts for the digest. Readers differ on what follows half an end mark."""
        if self._take(BLOCK).strip(b"\0"):
            raise BadTar("it goes on after its end")
        while True:
            self._fill()
            if not self._buffer:
                return


def _entry(header: bytes, kind: bytes, size: int, pax: dict[bytes, bytes], long_name: bytes, long_link: bytes) -> Entry:
    written = kind
    if kind in (_OLD_FILE, _CONTIGUOUS, _SPARSE):
        kind = FILE
    if kind not in _KNOWN:
        raise BadTar(f"an entry of type {kind!r}")
    name = header[:100].partition(b"\0")[0]
    magic = header[257:263]
    if magic == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    link = header[157:257].partition(b"\0")[0]
    entry = Entry(
        name=name,
        kind=kind,
        mode=number(header[100:108]) & 0o7777,
        uid=number(header[108:116]),
        gid=number(header[116:124]),
        size=size,
        mtime_ns=number(header[136:148], signed=True) * 1_000_000_000,
        link=link,
    )
    if pax:
        _override(entry, pax)
    entry.name, entry.link = long_name or entry.name, long_link or entry.link
    if written == _OLD_FILE and entry.name.endswith(b"/"):
        entry.kind = DIRECTORY  # as written before there was a type for directories
    if entry.kind != FILE:
        entry.size = 0
    if not (0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1):
        raise BadTar(f"{show(entry.name)} has an owner out of range")
    return entry


def _override(entry: Entry, pax: dict[bytes, bytes]) -> None:
    try:
        entry.name = pax.get(b"path") or entry.name
        entry.link = pax.get(b"linkpath") or entry.link
        if size := pax.get(b"size"):
            entry.size = decimal(size)
        if uid := pax.get(b"uid"):
            entry.uid = decimal(uid)
        if gid := pax.get(b"gid"):
            entry.gid = decimal(gid)
        if mtime := pax.get(b"mtime"):
            entry.mtime_ns = nanoseconds(mtime)
    except ValueError as error:
        raise BadTar(f"{show(entry.name)} has a malformed PAX record") from error
    for key, value in pax.items():
        if key.startswith(_XATTR) and value:  # pax(1): a record without a value counts as none
            entry.xattrs[key[len(_XATTR) :]] = value
