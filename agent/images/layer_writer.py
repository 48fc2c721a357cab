"""Turns a layer's tar entries into a directory in overlayfs form. Runs only inside unpack_child, whose root it fills.

Names are relative to the root, which nothing can leave; so symlinks made by earlier entries may be followed, as tar
and Docker do. OCI image-spec layer.md (whiteouts); Linux Documentation/filesystems/overlayfs.rst (their overlay form: a
character device 0/0, and trusted.overlay.opaque="y" on a directory).
Device nodes become empty files nobody may open: a container gets its devices from the runtime, never from an image.
"""

# Names in a layer are bytes that need not be text; pathlib takes only text, and costs more.
# ruff: noqa: PTH101, PTH102, PTH108, PTH112, PTH211

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.images.sparse import placed
from agent.images.tarfields import BadTar, show
from agent.images.tarstream import BLOCKDEV, CHAR, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from agent.kit import trees

OPAQUE = "trusted.overlay.opaque"
IMPLIED = "trusted.gorae.implied"  # on directories that no entry lists (mending.py)
IMPLIES = "trusted.gorae.implies"  # on the root of a layer that has such directories below it
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHECK_SPACE_EVERY = 64 << 20  # bytes written
_AN_ENTRY = 16 << 10  # bytes that one counts for in that: blocks of its own, a place in a directory, an inode of few
_WHITEOUT = b".wh."
_OPAQUE_MARK = b".wh..wh..opq"


class LayerTooBig(Exception):
    """Over one of the Limits."""


class NoSpace(Exception):
    """`needed`: bytes of what did not fit; `free`: bytes left on the file system."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(needed, free)
        self.needed, self.free = needed, free


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one layer; what is far beyond any real image is an attack or a mistake."""

    unpacked: int = 64 << 30  # bytes of the decompressed stream, and of its files with their holes
    entries: int = 2_000_000  # and directories that no entry names, only leads through
    reserve: int = 64 << 20  # bytes of the file system that stay free
    inodes: int = 1000  # of the file system that stay free
    memory: int = 1 << 30  # bytes the unpacking process may take: names and headers pack a thousand to one


class LayerWriter:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: set[bytes] = {b""}  # directories that are there
        self._times: list[tuple[bytes, int]] = []  # of directories: set last, or writing into them would change them
        self._listed = self._implies = False  # an entry lists the root; some directory below has none
        self._inherit = False  # there is a setgid directory of another group: what is made in it gets that group
        self._unchecked = 0
        self.size = 0  # bytes of file content
        self.entries = 0

    def add(self, entry: Entry, data: Iterable[bytes | memoryview]) -> None:
        """BadTar, LayerTooBig, NoSpace; OSError only when the disk itself fails."""
        self._count()
        path = _clean(entry.name)
        try:
            self._add(path, entry, data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(entry.size, _free()) from error
            if error.errno in (errno.EIO, errno.EROFS):
                raise
            raise BadTar(f"{show(path)}: {error.strerror}") from error

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise LayerTooBig(f"it has more than {self._limits.entries} files and directories")
        self._reserve(_AN_ENTRY)

    def _add(self, path: bytes, entry: Entry, data: Iterable[bytes | memoryview]) -> None:
        if not path:
            if entry.kind != DIRECTORY:
                raise BadTar("its root is not a directory")
            self._listed = True
            self._directory(b".", entry)
            return
        parent, _, base = path.rpartition(b"/")
        if base.startswith(_WHITEOUT) or b"/.wh..wh." in b"/" + path:
            self._whiteout(parent, base, entry.mtime_ns)
            return
        if parent not in self._known:
            self._ensure(parent, entry.mtime_ns)
        self._put(path, entry, data)

    def finish(self) -> None:
        for path, mtime in self._times:  # of one that is named again, the last counts
            try:
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
            except OSError:
                pass  # a later entry replaced it
        if not self._listed:
            os.setxattr(".", IMPLIED, b"y")
        if self._implies:
            os.setxattr(".", IMPLIES, b"y")

    # one kind each -----------------------------------------------------------------------------------------------

    def _put(self, path: bytes, entry: Entry, data: Iterable[bytes | memoryview]) -> None:
        kind = entry.kind
        if kind == FILE:
            self._file(path, entry, data)
        elif kind == DIRECTORY:
            self._directory(path, entry)
        elif kind == SYMLINK:
            self._afresh(path, lambda: os.symlink(entry.link, path))
            self._describe(path, entry)
        elif kind == HARDLINK:
            target = _clean(entry.link)
            if target != path:
                if stat.S_ISCHR(os.lstat(target).st_mode):
                    raise BadTar(f"{show(path)} is a link to {show(target)}, which this layer deletes")
                self._afresh(path, lambda: os.link(target, path, follow_symlinks=False))
        elif kind == FIFO:
            self._afresh(path, lambda: os.mkfifo(path, entry.mode))
            self._describe(path, entry)
        elif kind in (CHAR, BLOCKDEV):
            self._afresh(path, lambda: os.close(os.open(path, _CREATE, 0)))

    def _file(self, path: bytes, entry: Entry, data: Iterable[bytes | memoryview]) -> None:
        self.size += entry.size
        if self.size > self._limits.unpacked:
            raise LayerTooBig(f"its files are more than {self._limits.unpacked >> 20} MiB")
        try:
            fd = os.open(path, _CREATE, entry.mode)
        except FileExistsError:
            self._clear(path)
            fd = os.open(path, _CREATE, entry.mode)
        try:
            if entry.fragments is None:
                for piece in data:
                    self._write(fd, piece)
            else:
                for offset, piece in placed(data, entry.fragments):
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._write(fd, piece)
                os.ftruncate(fd, entry.size)
            if entry.uid or entry.gid or self._inherit:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & 0o7000:
                os.fchmod(fd, entry.mode)  # chown took these bits away
            _set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _write(self, fd: int, piece: bytes | memoryview) -> None:
        self._reserve(len(piece))
        done = os.write(fd, piece)
        while done < len(piece):
            done += os.write(fd, piece[done:])

    def _directory(self, path: bytes, entry: Entry) -> None:
        try:
            os.mkdir(path, entry.mode)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                hidden = self._clear(path)
                os.mkdir(path, entry.mode)
                if hidden:
                    os.setxattr(path, OPAQUE, b"y")
            else:
                os.chown(path, 0, 0)  # an earlier entry may have said otherwise
                if self._implies and IMPLIED in os.listxattr(path):
                    os.removexattr(path, IMPLIED)
        self._describe(path, entry)
        self._inherit = self._inherit or bool(entry.gid and entry.mode & stat.S_ISGID)
        self._known.add(path)
        self._times.append((path, entry.mtime_ns))

    def _whiteout(self, parent: bytes, base: bytes, mtime: int) -> None:
        """Hides what lower layers have, and never what this layer has, in whatever order they come."""
        if base == _OPAQUE_MARK:
            self._ensure(parent, mtime)
            os.setxattr(parent or b".", OPAQUE, b"y")
            return
        name = base[len(_WHITEOUT) :]
        if base.startswith(b".wh..wh.") or not base.startswith(_WHITEOUT):
            return  # aufs' own bookkeeping
        if name in (b"", b".", b".."):
            raise BadTar(f"a whiteout of nothing: {show(base)}")
        self._ensure(parent, mtime)
        path = parent + b"/" + name if parent else name
        try:
            os.mknod(path, stat.S_IFCHR, 0)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.setxattr(path, OPAQUE, b"y")

    # what is there already -------------------------------------------------------------------------------------------

    def _afresh(self, path: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(path)
            make()

    def _clear(self, path: bytes) -> bool:
        """Remove what an earlier entry made; whether that was a whiteout."""
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            trees.delete(Path(os.fsdecode(path)))
        else:
            os.unlink(path)
        if not stat.S_ISREG(found.st_mode):
            self._known = {b""}
        return stat.S_ISCHR(found.st_mode)

    def _ensure(self, path: bytes, mtime: int) -> None:
        """Make missing parents, root's and 0755, as Docker does for tars that do not list them; with the time of the
        entry they are made for, so that a layer always unpacks to the same."""
        at = b""
        for part in path.split(b"/"):
            at = at + b"/" + part if at else part
            if at in self._known:
                continue
            try:
                os.mkdir(at, 0o755)
                self._count()
                if self._inherit:
                    os.chown(at, 0, 0)
                    os.chmod(at, 0o755)
                os.setxattr(at, IMPLIED, b"y")
                self._implies = True
                self._times.append((at, mtime))
            except FileExistsError:
                found = os.lstat(at)
                if stat.S_ISCHR(found.st_mode):
                    os.unlink(at)
                    os.mkdir(at, 0o755)
                    os.setxattr(at, OPAQUE, b"y")
                elif not os.path.isdir(at):
                    raise BadTar(f"{show(path)} leads through {show(at)}, which is no directory") from None
            self._known.add(at)

    def _reserve(self, size: int) -> None:
        self._unchecked += size
        if self._unchecked >= _CHECK_SPACE_EVERY:
            self._unchecked = 0
            free = _free()
            if free < self._limits.reserve:
                raise NoSpace(self._limits.reserve, free)
            found = os.statvfs(".")
            if found.f_files and found.f_favail < self._limits.inodes:
                raise NoSpace(self._limits.reserve, free)

    def _describe(self, path: bytes, entry: Entry) -> None:
        """Owner, mode, attributes, time of anything but a file. Not through a symlink."""
        link = entry.kind == SYMLINK
        if entry.uid or entry.gid or self._inherit:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not link:
            os.chmod(path, entry.mode)
            _set_xattrs(path, entry)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _set_xattrs(target: bytes | int, entry: Entry) -> None:
    """Only what means something in any container. trusted.overlay.* from an image could redirect an overlay."""
    for name, value in entry.xattrs.items():
        if name == b"security.capability" or (name.startswith(b"user.") and not name.startswith(b"user.overlay.")):
            os.setxattr(target, name, value)


def _clean(name: bytes) -> bytes:
    if name and b"//" not in name and b"/." not in name and name[0] not in b"/." and name[-1] != 0x2F:
        return name  # as nearly all are
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise BadTar(f'{show(name)} has ".." in its name')
    return b"/".join(parts)


def _free() -> int:
    found = os.statvfs(".")
    return found.f_bavail * found.f_frsize
