"""One bind mount made for one task: ids mapped, nosuid, nodev, private, and read-only all the way down if asked for.

crun is handed the finished mount, because what it makes of the option `idmap` depends on its version.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

from agent.kit import mounts, syscalls
from agent.kit.errors import Temporary, UserError
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


def open_below(volume: int, mount: Mount) -> int:
    """What `subpath` names in the volume (a descriptor, which is closed). No symlink leads out of it. Temporary
    subpath-missing: another container may make it yet."""
    inside = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    try:
        return syscalls.openat2(volume, str(mount.subpath), os.O_PATH, resolve=inside)
    except OSError as error:
        raise Temporary(
            f"cannot mount {mount.subpath} of volume {mount.source} at {mount.target}: {error.strerror}",
            code="subpath-missing",
            hint="make it in the volume, or let another service do so",
        ) from error
    finally:
        os.close(volume)


def check_shared(source: int, mount: Mount) -> None:
    """UserError mount-not-shared, as docker has it: what the file asks for could not happen."""
    if mount.propagation != "private" and not mounts.receives(source):
        raise UserError(
            f"cannot mount {mount.source} at {mount.target} with propagation {mount.propagation}: it lies on a private"
            " mount",
            code="mount-not-shared",
            hint="make it a shared one: mount --make-rshared MOUNTPOINT (findmnt -T PATH names it)",
        )


def _bad(mount: Mount, error: OSError) -> UserError:
    return UserError(
        f"cannot mount {mount.source} at {mount.target}: {error.strerror}",
        code="bad-bind-source",
        hint="correct the path in the Compose file",
        path=mount.source,
    )


def place(
    source: int, point: Path, namespace: int, run: Path, *, read_only: bool, passed_on: bool = False
) -> tuple[tuple[str, ...], str]:
    """Mount the file or directory `source` (descriptor) at `point`, in place of what is mounted there. `passed_on`:
    mounts that the host makes below the source later appear there, too; but not ours, where those lie below it.

    Returns the host's flags the runtime has to repeat ("ro", "noexec"), and why ids are not (all) mapped, or "".
    """
    mounts.detach(point)
    _make_point(point, directory=stat.S_ISDIR(os.fstat(source).st_mode))
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    if read_only:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    with ExitStack() as stack:
        below = _path_below(source, run)
        propagation = syscalls.MS_SLAVE if passed_on else syscalls.MS_PRIVATE
        tree = source if below is None else _pruned(source, point, below, propagation, stack)
        clone, reason = _clone(tree, namespace, attributes, propagation if below is None else 0)
        stack.callback(os.close, clone)
        mounts.detach(point)
        syscalls.move_mount(clone, point)
    flags = os.fstatvfs(source).f_flag
    locked = ("ro",) * bool(flags & os.ST_RDONLY) + ("noexec",) * bool(flags & os.ST_NOEXEC)
    return locked, reason


def _path_below(source: int, run: Path) -> Path | None:
    """Where `run` lies below the source, if it does."""
    top, run = Path(f"/proc/self/fd/{source}").readlink(), run.resolve()
    return run.relative_to(top) if run.is_relative_to(top) else None


def _pruned(source: int, point: Path, below: Path, propagation: int, stack: ExitStack) -> int:
    """The source without the mounts of our own tasks. Carried along they would double with each such bind, and each
    would keep all the others alive. Only a tree in the mount table can be pruned, and only while ids are not mapped:
    host root has no rights there over a file whose owner the map leaves out."""
    plain = mounts.clone("", dirfd=source, recursive=True, propagation=propagation)
    stack.callback(os.close, plain)
    syscalls.move_mount(plain, point)
    ours = mounts.holding(point / below, [point, *mounts.points(point)])
    if propagation == syscalls.MS_SLAVE and ours is not None:
        syscalls.mount(None, ours, None, syscalls.MS_PRIVATE)
    for copied in mounts.points(point / below):
        mounts.detach(copied)
    return plain


def _clone(source: int, namespace: int, attributes: int, propagation: int) -> tuple[int, str]:
    """All of the tree with mapped ids; else its top alone; else as it is. Refused by proc, sysfs, overlay, NFS, most of
    FUSE and tmpfs before 6.3 (EINVAL), and by a mount that is idmapped already (EPERM)."""
    try:
        clone = mounts.clone(
            "", dirfd=source, userns=namespace, attributes=attributes, recursive=True, propagation=propagation
        )
        return clone, ""
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
    clone = mounts.clone("", dirfd=source, attributes=attributes, recursive=True, propagation=propagation)
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
