"""The mount table below one directory, and the mounts this project makes of other people's trees.

Must not be asked to unmount anything that is not below a directory of ours.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from agent.kit import syscalls


def points(below: Path, table: str | None = None) -> list[Path]:
    """Mount points below a directory, in the order they were mounted. table: text of mountinfo (proc(5)), in tests."""
    if table is None:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    prefix = str(below).rstrip("/") + "/"
    found = []
    for line in table.splitlines():
        point = line.split(" ", 5)[4]
        if "\\" in point:  # space, tab, newline and backslash are octal escapes
            point = unescape(point)
        if point.startswith(prefix):
            found.append(Path(point))
    return found


def receives(fd: int) -> bool:
    """Whether the mount that `fd` (a descriptor of a file on it) belongs to is shared or a slave: mounts that others
    make there can be passed on (mount_namespaces(7)). Without that there is nothing to be a slave of."""
    wanted = next(
        line.split()[1] for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "mnt_id" in line
    )
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split(" ")
        if words[0] == wanted:
            return any(word.startswith(("shared:", "master:")) for word in words[6 : words.index("-")])
    return False


def holding(path: Path, found: Sequence[Path]) -> Path | None:
    """The deepest of these mount points at or above `path`."""
    above = [point for point in found if path.is_relative_to(point)]
    return max(above, key=lambda point: len(point.parts), default=None)


def unescape(text: str) -> str:
    """A path as mountinfo writes it."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def detach(point: str | os.PathLike[str]) -> None:
    """Unmount all that is stacked at `point`, lazily; not a mount point and absent are success. Follows no symlink."""
    while True:
        try:
            syscalls.umount(point)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def clone(
    source: str | os.PathLike[str],
    *,
    userns: int | None = None,
    attributes: int = 0,
    recursive: bool = False,
    dirfd: int = syscalls.AT_FDCWD,
    propagation: int = syscalls.MS_PRIVATE,
) -> int:
    """A detached bind mount of `source` ("" : the descriptor `dirfd` itself), ids shifted by the user namespace
    `userns`. `propagation`: 0 keeps the source's. OSError EINVAL: the file system cannot be idmapped."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
    if recursive:
        flags |= syscalls.AT_RECURSIVE
    if not os.fspath(source):
        flags |= syscalls.AT_EMPTY_PATH
    fd = syscalls.open_tree(source, flags, dirfd)
    try:
        syscalls.mount_setattr(
            fd,
            set_=attributes | (0 if userns is None else syscalls.MOUNT_ATTR_IDMAP),
            userns_fd=0 if userns is None else userns,
            recursive=recursive,
            propagation=propagation,
        )
    except OSError:
        os.close(fd)
        raise
    return fd
