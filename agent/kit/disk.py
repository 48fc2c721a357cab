"""Whether a directory can be written, and how much of the disk it takes, whoever wrote what is in it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from agent.kit import syscalls

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_STAY = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
_LONGEST = 2000  # characters of a path; PATH_MAX is 4096 bytes, and a component may have 255
_ANCHORS = 100  # directories held open, one for each _LONGEST


def trouble(directory: Path) -> str:
    """Why nothing can be written there: "no space left on the disk of …"; "" when that is not known. For who has been
    told of an error that does not say it."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return ""
    if disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0):
        return f"no space left on the disk of {directory}"
    return f"the file system of {directory} is read-only" if disk.f_flag & os.ST_RDONLY else ""


def blocks(top: Path, stop: threading.Event | None = None) -> int:
    """Bytes of the blocks of a directory and of all that is in it; 0 if it is absent.

    A file with several names counts once, a hole not at all (stat(2), st_blocks). No symlink is followed, no mount
    point crossed. What goes away meanwhile, or lies deeper than 200,000 characters of path, does not count. Once `stop`
    is set it returns what it has so far.
    """
    try:
        fd = os.open(top, _DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        return os.fstat(fd).st_blocks * 512 + _below(fd, set(), stop or threading.Event(), _ANCHORS)
    finally:
        os.close(fd)


def _below(anchor: int, seen: set[tuple[int, int]], stop: threading.Event, anchors: int) -> int:
    """Paths are relative to `anchor`. Once they get long, the walk goes on from a new one: containers can nest
    directories far deeper than PATH_MAX."""
    total, left = 0, ["."]
    while left and not stop.is_set():
        path = left.pop()
        try:
            fd = syscalls.openat2(anchor, path, _DIRECTORY, resolve=_STAY)
        except OSError:
            continue
        try:
            if len(path) > _LONGEST:
                total += _below(fd, seen, stop, anchors - 1) if anchors else 0
                continue
            with os.scandir(fd) as entries:
                for entry in entries:
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            left.append(f"{path}/{entry.name}")
                        elif status.st_nlink > 1:
                            if (status.st_dev, status.st_ino) in seen:
                                continue
                            seen.add((status.st_dev, status.st_ino))
                        total += status.st_blocks * 512
        finally:
            os.close(fd)
    return total
