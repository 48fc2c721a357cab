"""A program from a sealed copy in memory, which nothing can write to.

Why: crun has to keep a container from overwriting it, and so copies itself and begins anew at each call, unless it
finds that it is such a copy (cloned_binary.c, is_self_cloned). One copy for all calls saves a quarter of their cost.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_EXEC = 0x10  # MFD_EXEC, linux/memfd.h; since 6.3, where a file in memory may be refused to be a program otherwise
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Sealed:
    """`program`: an absolute path."""

    def __init__(self, program: str) -> None:
        self.program = program
        self._copied: tuple[int, int, int] | None = None
        self._fd = -1

    def lend(self) -> tuple[list[int], str]:
        """Descriptors to be inherited by whoever is to execute it, and the path it then has there: not one through our
        pid, which may be somebody else's by then. Where the host allows no such copy, none, and the program itself.
        OSError: there is no such program."""
        now = os.stat(self.program)  # noqa: PTH116 (for each start)
        key = (now.st_ino, now.st_mtime_ns, now.st_size)
        if key != self._copied:
            self.close()
            self._copied = key
            with suppress(OSError):
                self._fd = _copy(self.program)
        return ([], self.program) if self._fd < 0 else ([self._fd], f"/proc/self/fd/{self._fd}")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._copied = -1, None


def _copy(program: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(Path(program).name, flags | _EXEC)
    except OSError:
        fd = os.memfd_create(Path(program).name, flags)
    try:
        os.fchmod(fd, 0o755)
        with open(program, "rb") as source:  # noqa: PTH123
            left = os.fstat(source.fileno()).st_size
            while left:
                left -= os.sendfile(fd, source.fileno(), None, left)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
