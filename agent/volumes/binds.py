"""One bind mount made for one task: ids mapped, nosuid, nodev, private, and read-only all the way down if asked for.

crun is handed the finished mount, because what it makes of the option `idmap` depends on its version.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from agent.kit import mounts, syscalls
from agent.kit.errors import UserError
from agent.wire.messages import Mount


def open_source(mount: Mount) -> int:
    """The bind's source as a descriptor, which no later change of the path affects. Symlinks of the *host's* path are
    followed, as Docker does. UserError missing-bind-source, bad-bind-source."""
    path = str(mount.source)
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if not mount.create_host_path:
            raise UserError(
                f"cannot mount {path} at {mount.target}: it does not exist",
                code="missing-bind-source",
                hint=f"create it, or set `bind: {{create_host_path: true}}`: mkdir -p {path}",
                path=path,
            ) from None
    except OSError as error:
        raise _bad(mount, error) from error
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise _bad(mount, error) from error


def _bad(mount: Mount, error: OSError) -> UserError:
    return UserError(
        f"cannot mount {mount.source} at {mount.target}: {error.strerror}",
        code="bad-bind-source",
        hint="correct the path in the Compose file",
        path=mount.source,
    )


def place(source: int, point: Path, namespace: int, *, read_only: bool) -> tuple[tuple[str, ...], str]:
    """Mount the file or directory `source` (descriptor) at `point`, in place of what is mounted there.

    Returns the host's flags the runtime has to repeat ("ro", "noexec"), and why ids are not (all) mapped, or "".
    """
    mounts.detach(point)
    _make_point(point, directory=stat.S_ISDIR(os.fstat(source).st_mode))
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    if read_only:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    clone, reason = _clone(source, namespace, attributes)
    try:
        syscalls.move_mount(clone, point)
    finally:
        os.close(clone)
    flags = os.fstatvfs(source).f_flag
    locked = ("ro",) * bool(flags & os.ST_RDONLY) + ("noexec",) * bool(flags & os.ST_NOEXEC)
    return locked, reason


def _clone(source: int, namespace: int, attributes: int) -> tuple[int, str]:
    """All of the tree with mapped ids; else its top alone; else as it is. Refused by proc, sysfs, overlay, NFS, most of
    FUSE and tmpfs before 6.3 (EINVAL), and by a mount that is idmapped already (EPERM)."""
    try:
        return mounts.clone("", dirfd=source, userns=namespace, attributes=attributes, recursive=True), ""
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
    clone = mounts.clone("", dirfd=source, attributes=attributes, recursive=True)
    try:
        syscalls.mount_setattr(clone, set_=syscalls.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    except OSError as error:
        return clone, f"its file system cannot map ids ({error.strerror})"
    return clone, "a file system mounted below it cannot map ids"


def _make_point(point: Path, *, directory: bool) -> None:
    try:
        found = point.lstat()
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(found.st_mode) == directory:
            return
        (point.rmdir if stat.S_ISDIR(found.st_mode) else point.unlink)()
    if directory:
        point.mkdir(mode=0o700)
    else:
        point.touch(mode=0o600)
