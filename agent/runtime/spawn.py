"""Start a host program with nothing of ours in it: no descriptor, no signal setting, no terminal.

posix_spawn(3) rather than asyncio's subprocesses: half the time, and a pidfd is all we want to await. What starts here
may outlive the agent; what is to end with its caller is killed by the caller.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.runtime import pidfd

_libc = ctypes.CDLL(None, use_errno=True)
_CLOSE_RANGE, _CLOSE_RANGE_CLOEXEC = 436, 4  # linux/close_range.h, since 5.11
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Child:
    """Our own child; `wait` reaps it and closes the descriptor."""

    pid: int
    fd: int

    async def wait(self, timeout: float | None = None) -> int | None:
        """The exit status as a shell says it; None: the time is over, it still runs."""
        if self.fd < 0 or not await pidfd.readable(self.fd, timeout=timeout):
            return None
        return self.reap()

    def reap(self) -> int | None:
        status = pidfd.reap(self.fd)
        os.close(self.fd)
        self.fd = -1
        return status

    def kill(self) -> None:
        """SIGKILL, unless it has been waited for. Never blocks, not even on a process that hangs in the kernel: the
        loop reaps it when it is dead."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        pidfd.kill(fd)
        loop = asyncio.get_running_loop()

        def dead() -> None:
            loop.remove_reader(fd)
            pidfd.reap(fd)
            os.close(fd)

        loop.add_reader(fd, dead)


def spawn(
    argv: list[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    keep: Sequence[int] = (),
) -> Child:
    """argv[0] is an absolute path. None: /dev/null. `keep`: our descriptors, given to the child as 3, 4, … in order.

    Blocks for the fork only (vfork semantics). Raises OSError when the program is not there.
    """
    # Whatever was inherited, or opened by a library without O_CLOEXEC, is closed at the exec.
    _libc.syscall(
        ctypes.c_long(_CLOSE_RANGE), ctypes.c_uint(3), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(_CLOSE_RANGE_CLOEXEC)
    )
    # The sources lie above every target, so that no dup2 overwrites the source of a later one.
    spare = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + len(keep)) for fd in keep]
    try:
        actions: list[tuple[Any, ...]] = []
        for target, fd, flags in ((0, stdin, os.O_RDONLY), (1, stdout, os.O_WRONLY), (2, stderr, os.O_WRONLY)):
            if fd is None:
                actions.append((os.POSIX_SPAWN_OPEN, target, "/dev/null", flags, 0))
            else:
                actions.append((os.POSIX_SPAWN_DUP2, fd, target))
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + place) for place, fd in enumerate(spare)]
        pid = os.posix_spawn(
            argv[0],
            argv,
            {"PATH": PATH, **(env or {})},
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD),
        )
    finally:
        for fd in spare:
            os.close(fd)
    return Child(pid, os.pidfd_open(pid))
