"""System calls that Python 3.11 has no name for, called directly: forking `mount` or `ip` would cost more than the
work.

Numbers 428 and above are the same on every architecture (Linux, include/uapi/asm-generic/unistd.h).
Every function raises OSError with the path or object it was about.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
MOUNT_ATTR_IDMAP = 0x00100000
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16

NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE = 0xB701, 0xB702, 0xB703  # ioctl_ns(2)
OVERLAYFS_MAGIC, NSFS_MAGIC = 0x794C7630, 0x6E736673  # statfs(2)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 1, 4, 8, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_CAPABILITY_VERSION_3, _LAST_CAPABILITY = 0x20080522, 63

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2, _MOUNT_SETATTR = (
    428,
    429,
    430,
    431,
    432,
    437,
    442,
)


def _check(result: int, what: object) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(what))
    return result


def _bytes(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def _syscall(number: int, what: object, *args: object) -> int:
    return _check(int(_libc.syscall(ctypes.c_long(number), *args)), what)


def unshare(flags: int) -> None:
    """unshare(2). CLONE_NEWUSER is EINVAL in a process with threads."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): moves the calling *thread*."""
    _check(_libc.setns(fd, flags), f"setns fd {fd}")


def mount(
    source: str | os.PathLike[str] | None,
    target: str | os.PathLike[str],
    fstype: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """mount(2)."""
    _check(
        _libc.mount(_bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data)),
        target,
    )


def umount(target: str | os.PathLike[str], flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> None:
    """umount2(2), lazily by default."""
    _check(_libc.umount2(_bytes(target), flags), target)


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def drop_bounding(keep: int) -> None:
    """Leave nothing in the capability bounding set but the bits of `keep` (capabilities(7))."""
    for number in range(_LAST_CAPABILITY + 1):
        if not keep >> number & 1 and _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:  # the kernel knows no more of them
                return
            _check(-1, f"capability {number}")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2), of the calling thread; the sets as bits."""
    data = (
        word for shift in (0, 32) for word in (s >> shift & 0xFFFFFFFF for s in (effective, permitted, inheritable))
    )
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("6I", *data)), "capabilities")


class Filter:
    """Of system calls: an array of struct sock_filter, 8 bytes each (seccomp(2)), where the kernel can read it."""

    def __init__(self, text: bytes) -> None:
        if not text or len(text) % 8:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "seccomp filter")
        self._array = ctypes.create_string_buffer(text, len(text))
        program = struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(self._array))
        self.program = ctypes.create_string_buffer(program)


def seccomp(filter_: Filter) -> None:
    """PR_SET_SECCOMP of prctl(2), of the calling thread, for good."""
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    _check(_libc.prctl(_PR_SET_SECCOMP, mode, filter_.program, 0, 0), "seccomp filter")


def open_tree(
    path: str | os.PathLike[str], flags: int = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, dirfd: int = AT_FDCWD
) -> int:
    """open_tree(2): a detached clone of the mount at `path`; close the descriptor to drop it."""
    return _syscall(_OPEN_TREE, path, dirfd, _bytes(path), ctypes.c_uint(flags))


def move_mount(fd: int, target: str | os.PathLike[str]) -> None:
    """move_mount(2): attach a detached mount at `target`."""
    _syscall(_MOVE_MOUNT, target, fd, b"", AT_FDCWD, _bytes(target), ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH))


def mount_setattr(
    fd: int, *, set_: int = 0, clear: int = 0, userns_fd: int = 0, recursive: bool = False, propagation: int = 0
) -> None:
    """mount_setattr(2) on the mount behind `fd` (struct mount_attr, 32 bytes). propagation: MS_PRIVATE, MS_SLAVE, 0."""
    attr = struct.pack("QQQQ", set_, clear, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall(_MOUNT_SETATTR, f"mount fd {fd}", fd, b"", ctypes.c_uint(flags), attr, ctypes.c_size_t(len(attr)))


def fsopen(fstype: str) -> int:
    """fsopen(2)."""
    return _syscall(_FSOPEN, fstype, fstype.encode(), ctypes.c_uint(FSOPEN_CLOEXEC))


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """fsconfig(2). The kernel explains a failure in the descriptor's log: read(fd)."""
    _syscall(_FSCONFIG, key or "create", fd, ctypes.c_uint(command), _bytes(key), _bytes(value), aux)


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2): a detached mount of the configured filesystem."""
    return _syscall(_FSMOUNT, f"fs fd {fd}", fd, ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(attributes))


def openat2(
    dirfd: int, path: str | os.PathLike[str], flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT
) -> int:
    """openat2(2): with RESOLVE_IN_ROOT, no symlink or ".." inside `path` leads out of `dirfd`."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall(_OPENAT2, path, dirfd, _bytes(path), how, ctypes.c_size_t(len(how)))


def filesystem_type(fd: int) -> int:
    """f_type of fstatfs(2), which os.statvfs leaves out; the first word of struct statfs on 64-bit Linux."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, buffer), f"statfs fd {fd}")
    return int(struct.unpack_from("l", buffer)[0])
