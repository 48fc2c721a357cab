"""Copy a directory of an image into a fresh one, as Docker fills a volume: contents, owners, modes, times, attributes.

Both trees are walked by descriptor and no symlink is followed; the ids of the task are turned back into the image's
own, so that a volume survives a new task with another range. Device nodes and sockets are left out. The target must not
be reachable by any container while this runs.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

from agent.kit.errors import Permanent
from agent.ports import UID_RANGE

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 256  # of directories; a deeper tree is an attack or a mistake
_NOBODY = 65534
_RESERVE = 64 << 20  # bytes of the file system that stay free
_PIECE = 64 << 20


class Filler:
    """One copy. `base`: host id of the task's root."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._links: dict[tuple[int, int], str] = {}  # (device, inode) of the source → its first name in the target
        self._top = -1

    def copy(self, source: int, target: Path) -> None:
        """The content of the directory `source` (a readable descriptor) into the empty directory `target`."""
        self._top = os.open(target, _DIRECTORY)
        try:
            self._level(source, self._top, "", 0)
            self.attributes(source, self._top)
        finally:
            os.close(self._top)

    def attributes(self, source: int, target: int) -> None:
        """Owner, mode, extended attributes, times, in an order that loses none: chown(2) clears set-uid bits and
        capabilities."""
        status = os.fstat(source)
        os.fchown(target, self._own(status.st_uid), self._own(status.st_gid))
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source):
            if not name.startswith("trusted."):
                self._xattr(source, target, name)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _level(self, source: int, target: int, path: str, depth: int) -> None:
        if depth > _DEPTH:
            raise Permanent(
                f"cannot fill the volume: the image's directory is more than {_DEPTH} levels deep",
                code="bad-image",
                hint="set `volume: {nocopy: true}`",
            )
        for name in os.listdir(source):
            self._entry(name, source, target, f"{path}{name}", depth)

    def _entry(self, name: str, source: int, target: int, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFDIR, stat.S_IFREG):
            self._openable(name, source, target, path, depth, status)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        else:
            return
        owner = self._own(status.st_uid), self._own(status.st_gid)
        os.chown(name, *owner, dir_fd=target, follow_symlinks=False)

    def _openable(self, name: str, source: int, target: int, path: str, depth: int, status: os.stat_result) -> None:
        directory = stat.S_ISDIR(status.st_mode)
        if not directory and status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
                return
        below = os.open(name, _DIRECTORY if directory else _SOURCE, dir_fd=source)
        try:
            if directory:
                os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, _DIRECTORY if directory else _TARGET, 0o600, dir_fd=target)
            try:
                if directory:
                    self._level(below, made, f"{path}/", depth + 1)
                else:
                    _bytes(below, made, status.st_size)
                self.attributes(below, made)
            finally:
                os.close(made)
        finally:
            os.close(below)

    def _own(self, host_id: int) -> int:
        """The id inside the container; what the agent itself made in the root file system is root's."""
        if self._base <= host_id < self._base + UID_RANGE:
            return host_id - self._base
        return 0 if host_id == 0 else _NOBODY

    def _xattr(self, source: int, target: int, name: str) -> None:
        value = os.getxattr(source, name)
        if name == "security.capability":
            value = self._capability(value)
        elif name.startswith("system.posix_acl_"):
            value = self._acl(value)
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # the volume's file system has no such attributes: as cp -a does
                raise

    def _capability(self, value: bytes) -> bytes:
        """struct vfs_ns_cap_data (linux/capability.h): revision 3 names the root it counts for, revision 2 does not."""
        if len(value) != 24:
            return value
        magic, *rest, root = struct.unpack("<6I", value)
        root = self._own(root)
        return struct.pack("<6I", magic, *rest, root) if root else struct.pack("<5I", magic & 0xFF | 2 << 24, *rest)

    def _acl(self, value: bytes) -> bytes:
        """struct posix_acl_xattr_header and entries (linux/posix_acl_xattr.h); user and group entries carry an id."""
        entries = [value[:4]]
        for tag, perm, who in struct.iter_unpack("<HHI", value[4:]):
            entries.append(struct.pack("<HHI", tag, perm, self._own(who) if tag in (2, 8) else who))
        return b"".join(entries)


def _bytes(source: int, target: int, size: int) -> None:
    """Holes stay holes: an image of a few bytes can have one as large as the disk (lseek(2), SEEK_DATA)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole
        at, end = start, min(os.lseek(source, start, os.SEEK_HOLE), size)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            _leave_room(target)
            sent = os.sendfile(target, source, at, min(end - at, _PIECE))
            if sent == 0:
                break
            at += sent
        if at < end:
            break  # it has become shorter
    os.ftruncate(target, size)


def _leave_room(target: int) -> None:
    found = os.fstatvfs(target)
    if found.f_bavail * found.f_frsize < _RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
