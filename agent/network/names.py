"""Writes a task's /etc/hosts, /etc/resolv.conf and /etc/hostname. The text is decide/hosts.py's.

The files are bind-mounted into a running container, so they are rewritten in place: a rename would leave the container
with the old inode. Nothing is written when nothing changed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

HOST_RESOLV = Path("/etc/resolv.conf")
HOST_HOSTS = Path("/etc/hosts")

FILES = ("hosts", "resolv.conf", "hostname")  # in the order of ports.NameFiles


def remove(directory: Path) -> None:
    """The files of one task, and its directory if nothing else is in it. Gone is success."""
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
    with suppress(OSError):  # others keep their parts there
        directory.rmdir()


def rewrite(path: Path, text: str) -> None:
    """Same inode, mode 0644 whatever the umask: a task's mapped root reads it as "other"."""
    data = text.encode()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        status = os.fstat(fd)
        if status.st_mode & 0o777 != 0o644:
            os.fchmod(fd, 0o644)
        if status.st_size != len(data) or os.pread(fd, len(data), 0) != data:
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def read(path: Path) -> str:
    """ "" when there is none: a host without a resolver is a host without a resolver."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
