"""Tar entries as files, directories and links below one place, whatever the names in the tar say.

Every name is walked from the place down, component by component. Unless `follow` is given, no symlink is followed on
the way, so nothing outside is reached, also not through links that the tar itself brought. With `follow` the caller is
shut into a root of its own, and links lead where they lead there. A file appears whole, in place of what was there, or
not at all. Device nodes and sockets are left out, and counted.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.kit.copying import Found, Source, placed
from agent.kit.errors import UserError

CHUNK = 256 * 1024
Owner = tuple[int, int] | Literal["archive"] | None  # None: whoever writes

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Unpacked:
    entries: int = 0
    bytes: int = 0
    skipped: int = 0


class TreeUnpacker:
    """`base`: an open directory; the entries' names, without their first `strip` components, are relative to `name` in
    it, or to itself for "". `bits`: of modes that are kept. An existing directory keeps its mode and owner, unless
    owners come from the archive. Close it."""

    def __init__(
        self, base: int, name: str, *, strip: int, owner: Owner, bits: int = 0o7777, follow: bool = False
    ) -> None:
        self.counts = Unpacked()
        self._base, self._top, self._strip = base, [name] if name else [], strip
        self._owner, self._bits, self._follow = owner, bits, follow
        self._directories: list[tuple[list[str], int, int]] = []  # where, mode, mtime in ns: set in the end
        self._kept: tuple[list[str], int] | None = None  # the directory of the last entry, open

    def all(self, tar: tarfile.TarFile, go_on: Callable[[], None] = lambda: None) -> None:
        """Every entry of a stream that is read once. tarfile.TarError: it is none, or is cut off."""
        while (entry := tar.next()) is not None:
            go_on()
            self.add(entry, tar)
            tar.members = []  # type: ignore[attr-defined]  # or every name would be kept until the end
        self.finish()

    def add(self, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """UserError bad-archive, bad-owner, not-a-directory, is-a-directory; OSError."""
        self.counts.entries += 1
        try:
            self._add(entry, tar)
        except (ValueError, OverflowError) as error:  # a NUL in a name, a mode that is no number of C's
            raise UserError(f"cannot unpack {entry.name[:80]!r}: {error}", code="bad-archive") from None

    def _add(self, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        where = self._where(entry.name)
        if entry.isdir():
            self._directory(where, entry)
        elif not where:
            raise UserError("cannot unpack: its top is no directory", code="bad-archive", hint="tar of a directory")
        elif entry.isreg():
            self._replace(where, lambda at, name: self._file(at, name, entry, tar))
        elif entry.issym():
            self._replace(where, lambda at, name: self._symlink(at, name, entry))
        elif entry.islnk():
            self._replace(where, lambda at, name: self._link(at, name, entry))
        elif entry.isfifo():
            self._replace(where, lambda at, name: self._fifo(at, name, entry))
        else:
            self.counts.skipped += 1

    def finish(self) -> None:
        """Modes and times of directories, deepest first: what is in them is there."""
        for where, mode, at in reversed(self._directories):
            fd = self._walk(where)
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=(at, at))
            finally:
                os.close(fd)

    def close(self) -> None:
        if self._kept is not None:
            os.close(self._kept[1])
            self._kept = None

    # Kinds -----------------------------------------------------------------------------------------------------------

    def _directory(self, where: list[str], entry: tarfile.TarInfo) -> None:
        if not where:
            return  # the place itself, which was there
        parent, name = self._parent(where), where[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            fresh = True
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=self._follow)
            if not stat.S_ISDIR(found.st_mode):
                raise _no_directory("/".join(where)) from None
            fresh = False
        if fresh or self._owner == "archive":
            self._own(name, parent, entry, follow=self._follow)
            self._directories.append((where, entry.mode & self._bits, _time(entry)))

    def _file(self, parent: int, name: str, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            self._content(fd, entry, tar)
            self._finished(fd, entry)
        finally:
            os.close(fd)

    def _content(self, fd: int, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        source = tar.extractfile(entry)
        assert source is not None
        left = entry.size
        while left:
            piece = source.read(min(CHUNK, left))
            if not piece:
                raise tarfile.ReadError("unexpected end of data")
            left -= len(piece)
            self.counts.bytes += len(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]

    def _finished(self, fd: int, entry: tarfile.TarInfo) -> None:
        if (ids := self._ids(entry)) is not None:
            _give(fd, ids, entry.name)
        os.fchmod(fd, entry.mode & self._bits)
        os.utime(fd, ns=(_time(entry), _time(entry)))

    def _symlink(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        os.symlink(entry.linkname, name, dir_fd=parent)
        self._own(name, parent, entry, follow=False)
        os.utime(name, ns=(_time(entry), _time(entry)), dir_fd=parent, follow_symlinks=False)

    def _link(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        first = self._where(entry.linkname)
        if not first:
            raise UserError("cannot unpack: a hard link to its top", code="bad-archive")
        source = self._walk(first[:-1])
        try:
            os.link(first[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _fifo(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        os.mkfifo(name, entry.mode & self._bits & 0o777, dir_fd=parent)
        self._own(name, parent, entry, follow=False)
        os.utime(name, ns=(_time(entry), _time(entry)), dir_fd=parent, follow_symlinks=False)

    def _where(self, name: str) -> list[str]:
        return [*self._top, *below(name)[self._strip :]]

    # Places ----------------------------------------------------------------------------------------------------------

    def _replace(self, where: list[str], make: Callable[[int, str], None]) -> None:
        """make() under a name of its own, which then takes the place."""
        parent, name = self._parent(where), where[-1]
        aside = f".gorae-{os.urandom(6).hex()}"
        try:
            make(parent, aside)
            try:
                os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                self._pour(parent, aside, name)  # something is mounted there (/etc/hosts): its content is replaced
        except IsADirectoryError:
            raise UserError(
                f"cannot replace the directory {'/'.join(where)}: what is copied is none",
                code="is-a-directory",
                hint="name another place, or remove it first",
            ) from None
        finally:
            with suppress(FileNotFoundError):  # also of two names of one file, which rename(2) leaves as they are
                os.unlink(aside, dir_fd=parent)

    def _pour(self, parent: int, source: str, target: str) -> None:
        read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            write = os.open(
                target, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
            )
            try:
                while piece := os.read(read, CHUNK):
                    while piece:
                        piece = piece[os.write(write, piece) :]
            finally:
                os.close(write)
        finally:
            os.close(read)

    def _parent(self, where: list[str]) -> int:
        """The open directory that an entry goes into; it stays open for the next one. Not to be closed."""
        above = where[:-1]
        if self._kept is None or self._kept[0] != above:
            self.close()
            self._kept = above, self._walk(above, make=True)
        return self._kept[1]

    def _walk(self, parts: Sequence[str], *, make: bool = False) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if self._follow else os.O_NOFOLLOW)
        at = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._base)
        for number, part in enumerate(parts):
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=at)
                        self._own(part, at, None, follow=False)
                following = os.open(part, flags, dir_fd=at)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise _no_directory("/".join(parts[: number + 1])) from None
                raise
            finally:
                os.close(at)
            at = following
        return at

    def _own(self, name: str, parent: int, entry: tarfile.TarInfo | None, *, follow: bool) -> None:
        if (ids := self._ids(entry)) is not None:
            _give(name, ids, entry.name if entry else name, dir_fd=parent, follow_symlinks=follow)

    def _ids(self, entry: tarfile.TarInfo | None) -> tuple[int, int] | None:
        if self._owner == "archive":
            return None if entry is None else (entry.uid, entry.gid)
        return self._owner


def place(target: str, source: Source, name: str) -> tuple[int, str]:
    """(an open directory, what the copy is called in it, "" for its own content), by the rules of copying.placed().
    The directory is to be closed. UserError as there, and no-directory when even its directory is missing; OSError."""
    try:
        found: Found = "directory" if stat.S_ISDIR(Path(target).stat().st_mode) else "file"
    except FileNotFoundError:
        found = "missing"
    called = placed(source, name, target, found)
    if found == "directory":
        return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), called
    path = (os.path.realpath(target) if found == "file" else target).rstrip("/")
    parent, _, last = path.rpartition("/")
    parent = parent or ("/" if path.startswith("/") else ".")
    try:
        return os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), last
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"cannot copy to {target}: there is no directory {parent}", code="no-directory", hint="make it first"
        ) from None


def below(name: str) -> list[str]:
    """The components of a name in a tar. UserError bad-archive for one that goes up."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UserError(
            f"cannot unpack {name[:80]!r}: it leads out of the place", code="bad-archive", hint="tar it without .."
        )
    return parts


def _time(entry: tarfile.TarInfo) -> int:
    """Of the last change, in nanoseconds: a float has not enough digits for them."""
    whole, _, part = str(entry.pax_headers.get("mtime", entry.mtime)).partition(".")
    try:
        at = int(whole) * 10**9 + int(part[:9].ljust(9, "0") or 0)
    except ValueError:
        at = 0
    return max(0, min(at, 2**62))


def _give(target: str | int, ids: tuple[int, int], name: str, **how: Any) -> None:
    """chown(2). UserError bad-owner: no such id, or none in this user namespace."""
    try:
        os.chown(target, *ids, **how)
    except (OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise UserError(
            f"cannot give {name[:80]!r} to user {ids[0]}, group {ids[1]}: there is none of that number",
            code="bad-owner",
            hint="a container has those up to 65535",
        ) from None


def _no_directory(path: str) -> UserError:
    return UserError(
        f"cannot unpack below {path}: it is no directory there", code="not-a-directory", hint="name another place"
    )
