"""A tree as tar entries, read by descriptor while others may be at work in it: no symlink is followed below its top,
and what changes meanwhile is counted, not hidden. Sockets and device nodes are left out. Names of users are looked up
nowhere: that would load libraries of whatever root we are in.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from agent.kit.errors import Permanent

OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DEPTH = 256  # of directories
# It went away, or is another thing by now; EINVAL: no link any more.
_MOVED = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EINVAL)


@dataclass(slots=True)
class Packed:
    """`bytes`: of content. `changed`: files that grew, shrank or went away under our eyes. `skipped`: entries of kinds
    that no archive holds, and what `enter` refused."""

    entries: int = 0
    bytes: int = 0
    changed: int = 0
    skipped: int = 0


class TreePacker:
    """`go_on`: called before each piece, raises when nobody waits any more. `enter`: whether to take a file or
    directory (its descriptor, its status). `xattrs`: those that name no trust of the host's."""

    def __init__(
        self,
        tar: tarfile.TarFile,
        go_on: Callable[[], None],
        enter: Callable[[int, os.stat_result], bool],
        *,
        xattrs: bool,
    ) -> None:
        self.counts = Packed()
        self._tar, self._go_on, self._enter, self._xattrs = tar, go_on, enter, xattrs
        self._links: dict[tuple[int, int], str] = {}  # (device, inode) → its first name

    def top(self, fd: int, path: str) -> None:
        """What an open descriptor is of, under this name, with all that is below it."""
        self._opened(fd, path, -1)

    def entry(self, name: str, directory: int, path: str, depth: int = 0) -> None:
        """`name` in an open directory. FileNotFoundError: it went away."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            fd = os.open(name, OPEN, dir_fd=directory)
            try:
                self._opened(fd, path, depth)
            finally:
                os.close(fd)
        elif kind in (stat.S_IFLNK, stat.S_IFIFO):
            entry = described(path, found)
            entry.type = tarfile.FIFOTYPE
            if kind == stat.S_IFLNK:
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
            self.add(entry)
        else:
            self.counts.skipped += 1

    def add(self, entry: tarfile.TarInfo, content: Any = None) -> None:
        self.counts.entries += 1
        self._tar.addfile(entry, content)
        self._tar.members = []  # type: ignore[attr-defined]  # or every entry would be kept until the end

    def _opened(self, fd: int, path: str, depth: int) -> None:
        found = os.fstat(fd)
        if not self._enter(fd, found):
            self.counts.skipped += 1
        elif stat.S_ISDIR(found.st_mode):
            entry = self._with_xattrs(described(path, found), fd)
            entry.type = tarfile.DIRTYPE
            self.add(entry)
            self._level(fd, path, depth + 1)
        elif not stat.S_ISREG(found.st_mode):
            self.counts.skipped += 1
        elif found.st_nlink > 1 and (first := self._links.setdefault((found.st_dev, found.st_ino), path)) != path:
            entry = described(path, found)
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            self.add(entry)
        else:
            self._file(fd, self._with_xattrs(described(path, found), fd), found.st_size)

    def _level(self, directory: int, path: str, depth: int) -> None:
        if depth > _DEPTH:
            raise Permanent(f"cannot read {path[:60]}…: it is more than {_DEPTH} levels deep", code="too-deep")
        for name in sorted(os.listdir(directory)):
            self._go_on()
            try:
                self.entry(name, directory, f"{path}/{name}", depth)
            except OSError as error:
                if error.errno not in _MOVED:
                    raise
                self.counts.changed += 1

    def _file(self, fd: int, entry: tarfile.TarInfo, size: int) -> None:
        entry.size = size
        with open(fd, "rb", buffering=0, closefd=False) as file:
            exact = _Exact(file, size, self._go_on)
            self.add(entry, exact)
            self.counts.changed += exact.changed()
            self.counts.bytes += size

    def _with_xattrs(self, entry: tarfile.TarInfo, fd: int) -> tarfile.TarInfo:
        headers = dict(entry.pax_headers)
        for name in os.listxattr(fd) if self._xattrs else ():
            if name.startswith(("user.", "system.posix_acl_")) or name == "security.capability":
                headers[f"SCHILY.xattr.{name}"] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
        entry.pax_headers = headers
        return entry


def described(path: str, found: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    entry.pax_headers = {"mtime": f"{found.st_mtime_ns // 10**9}.{found.st_mtime_ns % 10**9:09}"}
    return entry


class _Exact(io.RawIOBase):
    """Exactly `size` bytes, as the header has promised: what a file lost meanwhile reads as zeros. `go_on` is called
    before each piece, and raises when nobody waits: a container can make a hole of exabytes."""

    def __init__(self, file: IO[bytes], size: int, go_on: Callable[[], None]) -> None:
        self._file, self._size, self._left, self._short, self._go_on = file, size, size, False, go_on

    def read(self, size: int = -1) -> bytes:
        self._go_on()
        size = min(size, self._left) if size >= 0 else self._left
        pieces, missing = [], size
        while missing and (piece := self._file.read(missing)):  # tarfile takes a short read for the end
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            self._short = True
            pieces.append(bytes(missing))
        self._left -= size
        return b"".join(pieces)

    def changed(self) -> bool:
        return self._short or os.fstat(self._file.fileno()).st_size != self._size
