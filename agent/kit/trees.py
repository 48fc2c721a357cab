"""Directories whose content somebody else wrote: made, walked and deleted by root without ever leaving them.

Names are taken relative to open directories; symlinks are unlinked, never followed; no mount point is crossed. Nothing
here trusts a path below the top one.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from agent.kit import syscalls
from agent.kit.errors import Permanent, Temporary

_COMPONENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,126}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAY = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
_DEPTH = 64  # open directories at once; whatever lies deeper is moved up first
_BATCH = 4096  # names of subdirectories held at once, per level


def component(name: str) -> str:
    """`name`, if it is safe as one path component (task ids come over the bus); else Permanent bad-name."""
    if not _COMPONENT.fullmatch(name):
        raise Permanent(f"cannot use {name!r} as the name of a directory", code="bad-name")
    return name


def names(directory: str | os.PathLike[str], below: str = "") -> frozenset[str]:
    """Names in a directory, of those that have an entry `below` in them; none if it is absent."""
    try:
        found = os.listdir(directory)  # noqa: PTH208
    except FileNotFoundError:
        return frozenset()
    top = os.fspath(directory)
    return frozenset(name for name in found if not below or os.path.lexists(f"{top}/{name}/{below}"))


def make_dir(path: str | os.PathLike[str], mode: int, uid: int = 0, gid: int = 0) -> None:
    """The directory with exactly this mode and owner, whatever the umask; its parents with 0711, if missing."""
    try:
        os.mkdir(path, mode)  # noqa: PTH102  (hot path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_dir(Path(path).parent, 0o711)
        os.mkdir(path, mode)  # noqa: PTH102
    found = os.lstat(path)
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)
    if found.st_mode & 0o7777 != mode:
        os.chmod(path, mode)  # noqa: PTH101


def delete(path: Path) -> None:
    """Delete what `path` names, a directory with all that is in it. Absent is success.

    What can be deleted is, before an error is raised: Permanent undeletable (an immutable file, say), Temporary
    still-mounted when a mount point is in the way.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    eraser = _Eraser(path)
    try:
        eraser.erase(parent)
    finally:
        os.close(parent)
    if eraser.failures:
        raise _explain(path, eraser.failures)


def _explain(path: Path, failures: list[OSError]) -> Permanent | Temporary:
    # A directory that is only not empty is a consequence; the first other failure is the cause.
    cause = next((f for f in failures if f.errno != errno.ENOTEMPTY), failures[0])
    if cause.errno in (errno.EBUSY, errno.EXDEV):
        return Temporary(
            f"cannot delete {path}: {cause.filename} is a mount point", code="still-mounted", hint=f"umount {path}/…"
        )
    return Permanent(
        f"cannot delete {path}: {cause.filename}: {cause.strerror}",
        code="undeletable",
        hint="lsattr shows immutable files; chattr -i -a clears that" if cause.errno == errno.EPERM else "",
    )


class _Level:
    """An open directory: `children` are subdirectories still to be deleted; `more`: it has to be read (again)."""

    __slots__ = ("children", "fd", "more", "name", "path", "stuck")

    def __init__(self, fd: int, name: str, path: str) -> None:
        self.fd, self.name, self.path = fd, name, path
        self.children: list[str] = []
        self.stuck: set[str] = set()
        self.more = True


class _Eraser:
    """Depth first, by a loop with at most _DEPTH descriptors: a container can nest directories far deeper than Python's
    stack, PATH_MAX or our descriptors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failures: list[OSError] = []

    def erase(self, parent: int) -> None:
        try:
            os.unlink(self._path.name, dir_fd=parent)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EISDIR:
                self._failed(error, str(self._path))
                return
        base = _Level(parent, "", str(self._path.parent))
        base.more, base.children = False, [self._path.name]
        stack = [base]
        try:
            while len(stack) > 1 or base.children:
                self._step(stack)
        finally:
            for level in stack[1:]:
                os.close(level.fd)

    def _step(self, stack: list[_Level]) -> None:
        level = stack[-1]
        if not level.children and level.more:
            self._read(level)
        if not level.children:
            stack.pop()
            os.close(level.fd)
            if not self._try(level.path, os.rmdir, level.name, dir_fd=stack[-1].fd):
                stack[-1].stuck.add(level.name)
            return
        child = level.children.pop()
        path = f"{level.path}/{child}"
        try:
            if len(stack) > _DEPTH:
                top, moved = stack[1], f".moved-{os.urandom(8).hex()}"
                os.rename(child, moved, src_dir_fd=level.fd, dst_dir_fd=top.fd)
                top.children.append(moved)
            else:
                stack.append(_Level(syscalls.openat2(level.fd, child, _DIRECTORY, resolve=_STAY), child, path))
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed(error, path)
            level.stuck.add(child)

    def _read(self, level: _Level) -> None:
        """Unlink all that is no directory, note the directories."""
        level.more = False
        with os.scandir(level.fd) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    self._try(f"{level.path}/{entry.name}", os.unlink, entry.name, dir_fd=level.fd)
                elif entry.name not in level.stuck:
                    level.children.append(entry.name)
                    if len(level.children) >= _BATCH:
                        level.more = True
                        return

    def _try(self, path: str, call: Callable[..., None], name: str, *, dir_fd: int) -> bool:
        try:
            call(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._failed(error, path)
            return False
        return True

    def _failed(self, error: OSError, path: str) -> None:
        if len(self.failures) < 16:  # the first tell the cause; a million would only fill memory
            self.failures.append(OSError(error.errno, error.strerror, path))
