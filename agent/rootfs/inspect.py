"""Looking into a mounted root file system, whose every file an image or a container wrote.

Each path is resolved by openat2(2) inside the root; what is opened is looked at (O_PATH) before it is read, so that a
FIFO cannot block the agent and a device cannot act. Must never be given a plain path join.
"""

from __future__ import annotations

import errno
import os
import stat

from agent.kit import syscalls
from agent.kit.errors import Permanent

_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_STRICT = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
_SMALL = 1 << 20  # bytes of /etc/passwd or /etc/group we read

# crun 1.8.1 mounts on the first three without looking; a symlink there has led out of the container before.
_PLACES = ("proc", "sys", "dev", "etc")


def prepare(root: int, uid_base: int) -> None:
    """The places where the runtime mounts are real directories, made if missing; else Permanent bad-image."""
    for name in _PLACES:
        try:
            os.close(syscalls.openat2(root, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_STRICT))
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=root)
            os.chown(name, uid_base, uid_base, dir_fd=root, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                raise
            raise Permanent(
                f"cannot use the image: /{name} is not a directory",
                code="bad-image",
                hint="an image must have directories, or nothing, at /proc, /sys, /dev and /etc",
                path=f"/{name}",
            ) from error


def read_small(root: int, path: str) -> str | None:
    """Text of a regular file, at most 1 MiB; None if there is none. Permanent bad-image for anything else."""
    try:
        found = syscalls.openat2(root, path, os.O_PATH, resolve=_INSIDE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise _unreadable(path, error.strerror or "error") from error
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "it is not a regular file")
        if status.st_size > _SMALL:
            raise _unreadable(path, f"it is larger than {_SMALL} bytes")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        return os.read(fd, _SMALL).decode(errors="replace")
    finally:
        os.close(fd)


def _unreadable(path: str, why: str) -> Permanent:
    return Permanent(f"cannot read /{path} of the image: {why}", code="bad-image", path=f"/{path}")
