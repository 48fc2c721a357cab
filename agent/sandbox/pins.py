"""The two bind mounts that keep a task's namespaces alive without a process, NS/user and NS/net, and NS/record, which
says which namespaces they are and which ids the user namespace maps. A task in the host's network has NS/user alone.

The map of a namespace is written once and never changes, but only a process inside can read it: hence the record. It is
written last, so a pair without one is half made. Used by the helper and by the agent; must not create namespaces.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence

from agent.kit import mounts, syscalls
from agent.kit.trees import make_dir

KINDS = {"user": syscalls.CLONE_NEWUSER, "net": syscalls.CLONE_NEWNET}
BOTH, USER = ("user", "net"), ("user",)

Identity = tuple[int, ...]  # (device, inode) of the user and of the network namespace


def make_room(task_dir: str, base: int) -> None:
    """The task's run directory, open to root and to the group of the container's root: it must pass through to its
    rootfs, the host's other users must not (they could run its set-uid files)."""
    make_dir(os.path.dirname(task_dir), 0o711)  # noqa: PTH120
    make_dir(task_dir, 0o710, gid=base)
    make_dir(f"{task_dir}/ns", 0o700)


def pin(pid: int, ns_dir: str, base: int, kinds: Sequence[str]) -> None:
    """Bind the namespaces of a live process, whose map begins at `base`. The caller has called discard() before."""
    for kind in kinds:
        target = f"{ns_dir}/{kind}"
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        syscalls.mount(f"/proc/{pid}/ns/{kind}", target, flags=syscalls.MS_BIND)
    pair = _identity(ns_dir, kinds)
    if pair is None:
        raise OSError(errno.ESTALE, "the network namespace is not owned by the user namespace", ns_dir)
    fd = os.open(f"{ns_dir}/record", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.write(fd, _record(base, pair))
    os.close(fd)


def discard(ns_dir: str) -> None:
    """Unpin: the namespaces end with their last user. Half a pair, or none, is fine."""
    for name in ("record", *KINDS):
        path = f"{ns_dir}/{name}"
        if name in KINDS:
            mounts.detach(path)
        try:
            os.unlink(path)  # noqa: PTH108
        except FileNotFoundError:
            pass


def held(ns_dir: str, base: int, kinds: Sequence[str] = BOTH) -> str:
    """What is pinned, if it is whole and its map begins at `base`; else ""."""
    identity = _identity(ns_dir, kinds)
    if identity is None:
        return ""
    try:
        fd = os.open(f"{ns_dir}/record", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return ".".join(map(str, identity)) if os.read(fd, 256) == _record(base, identity) else ""
    finally:
        os.close(fd)


def _record(base: int, pair: Identity) -> bytes:
    return f"{base} {pair}\n".encode()


def _identity(ns_dir: str, kinds: Sequence[str]) -> Identity | None:
    """Which namespaces are pinned: those kinds, a network one owned by the user one; or None."""
    fds: list[int] = []
    try:
        for kind, flag in ((kind, KINDS[kind]) for kind in kinds):
            fds.append(os.open(f"{ns_dir}/{kind}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
            if syscalls.filesystem_type(fds[-1]) != syscalls.NSFS_MAGIC:
                return None
            if fcntl.ioctl(fds[-1], syscalls.NS_GET_NSTYPE) != flag:
                return None
        identity = tuple(number for fd in fds for number in (os.fstat(fd).st_dev, os.fstat(fd).st_ino))
        if "net" in kinds:
            fds.append(fcntl.ioctl(fds[1], syscalls.NS_GET_USERNS))
            owner = os.fstat(fds[-1])
            if (owner.st_dev, owner.st_ino) != identity[:2]:
                return None
        return identity
    except OSError:  # absent, a symlink, not readable as a namespace: not a pair of ours
        return None
    finally:
        for fd in fds:
            os.close(fd)
