"""The two bind mounts that keep a task's namespaces alive without a process, NS/user and NS/net, and NS/record, which
says which namespaces they are and which ids the user namespace maps.

The map of a namespace is written once and never changes, but only a process inside can read it: hence the record. It is
written last, so a pair without one is half made. Used by the helper and by the agent; must not create namespaces.
"""

from __future__ import annotations

import errno
import fcntl
import os

from agent.kit import mounts, syscalls
from agent.kit.trees import make_dir

KINDS = {"user": syscalls.CLONE_NEWUSER, "net": syscalls.CLONE_NEWNET}

Identity = tuple[int, int, int, int]  # (device, inode) of the user and of the network namespace


def make_room(task_dir: str, base: int) -> None:
    """The task's run directory, open to root and to the group of the container's root: it must pass through to its
    rootfs, the host's other users must not (they could run its set-uid files)."""
    make_dir(os.path.dirname(task_dir), 0o711)  # noqa: PTH120
    make_dir(task_dir, 0o710, gid=base)
    make_dir(f"{task_dir}/ns", 0o700)


def pin(pid: int, ns_dir: str, base: int) -> None:
    """Bind the namespaces of a live process, whose map begins at `base`. The caller has called discard() before."""
    for kind in KINDS:
        target = f"{ns_dir}/{kind}"
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        syscalls.mount(f"/proc/{pid}/ns/{kind}", target, flags=syscalls.MS_BIND)
    pair = _pair(ns_dir)
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


def holds(ns_dir: str, base: int) -> bool:
    """Whether a whole pair is pinned whose map begins at `base`."""
    pair = _pair(ns_dir)
    if pair is None:
        return False
    try:
        fd = os.open(f"{ns_dir}/record", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, 256) == _record(base, pair)
    finally:
        os.close(fd)


def _record(base: int, pair: Identity) -> bytes:
    return f"{base} {pair}\n".encode()


def _pair(ns_dir: str) -> Identity | None:
    """Which namespaces are pinned: both, the network one owned by the user one; or None."""
    fds: list[int] = []
    try:
        for kind, flag in KINDS.items():
            fds.append(os.open(f"{ns_dir}/{kind}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
            if syscalls.filesystem_type(fds[-1]) != syscalls.NSFS_MAGIC:
                return None
            if fcntl.ioctl(fds[-1], syscalls.NS_GET_NSTYPE) != flag:
                return None
        fds.append(fcntl.ioctl(fds[1], syscalls.NS_GET_USERNS))
        user, net, owner = map(os.fstat, fds)
        if (owner.st_dev, owner.st_ino) != (user.st_dev, user.st_ino):
            return None
        return user.st_dev, user.st_ino, net.st_dev, net.st_ino
    except OSError:  # absent, a symlink, not readable as a namespace: not a pair of ours
        return None
    finally:
        for fd in fds:
            os.close(fd)
