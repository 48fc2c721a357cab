"""Two unpacked layers compared, entry by entry: names, kinds, modes, owners, xattrs, links, content, times of files.

Blocking: in a thread. Names are taken relative to open directories and never followed: what is compared came from
images.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_DEPTH = 400  # directories; an image that nests deeper is not compared below


def difference(expected: Path, found: Path) -> str | None:
    """What differs first, for people; None when nothing does."""
    one, other = os.open(expected, _DIRECTORY), os.open(found, _DIRECTORY)
    try:
        return _attributes(os.fstat(one), os.fstat(other), "/") or _Walk().directories(one, other, "", 0)
    finally:
        os.close(one)
        os.close(other)


class _Walk:
    def __init__(self) -> None:
        self._links: dict[tuple[int, int], tuple[int, int]] = {}  # inode of the one → of the other

    def directories(self, one: int, other: int, path: str, depth: int) -> str | None:
        ours, theirs = set(os.listdir(one)), set(os.listdir(other))
        if ours != theirs:
            name = min(ours ^ theirs)
            return f"{path}/{name} is {'missing' if name in ours else 'not of the layer'}"
        for name in sorted(ours):
            if problem := self._entries(one, other, name, f"{path}/{name}", depth):
                return problem
        return None

    def _entries(self, one: int, other: int, name: str, path: str, depth: int) -> str | None:
        a = os.stat(name, dir_fd=one, follow_symlinks=False)
        b = os.stat(name, dir_fd=other, follow_symlinks=False)
        if problem := _attributes(a, b, path):
            return problem
        if a.st_nlink > 1 and not stat.S_ISDIR(a.st_mode):
            known = self._links.setdefault((a.st_dev, a.st_ino), (b.st_dev, b.st_ino))
            if known != (b.st_dev, b.st_ino):
                return f"{path} is not the hard link it should be"
        if stat.S_ISLNK(a.st_mode):
            same = os.readlink(name, dir_fd=one) == os.readlink(name, dir_fd=other)
            return None if same else f"{path} points elsewhere"
        if not stat.S_ISDIR(a.st_mode) and not stat.S_ISREG(a.st_mode):
            return None
        flags = _DIRECTORY if stat.S_ISDIR(a.st_mode) else _FILE
        x = os.open(name, flags, dir_fd=one)
        y = os.open(name, flags, dir_fd=other)
        try:
            if _xattrs(x) != _xattrs(y):
                return f"{path} has other extended attributes"
            if stat.S_ISREG(a.st_mode):
                return None if _same(x, y) else f"{path} has other content"
            return self.directories(x, y, path, depth + 1) if depth < _DEPTH else None
        finally:
            os.close(x)
            os.close(y)


def _attributes(a: os.stat_result, b: os.stat_result, path: str) -> str | None:
    for what, mine, theirs in (
        ("kind or mode", a.st_mode, b.st_mode),
        ("owner", (a.st_uid, a.st_gid), (b.st_uid, b.st_gid)),
        ("device", a.st_rdev, b.st_rdev),
        ("size", 0 if stat.S_ISDIR(a.st_mode) else a.st_size, 0 if stat.S_ISDIR(b.st_mode) else b.st_size),
        ("time", _time(a), _time(b)),
    ):
        if mine != theirs:
            return f"{path} has another {what}"
    return None


def _time(found: os.stat_result) -> int:
    """Whiteouts, and directories that no entry names, have the time of their unpacking: it says nothing."""
    return int(found.st_mtime) if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) else 0


def _xattrs(fd: int) -> dict[str, bytes]:
    return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}


def _same(x: int, y: int) -> bool:
    while True:
        a, b = os.read(x, _CHUNK), os.read(y, _CHUNK)
        if a != b:
            return False
        if not a:
            return True
