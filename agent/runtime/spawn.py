"""Start a host program with nothing of ours in it: no descriptor, no signal setting, no terminal, no directory.

subprocess.Popen (vfork, 0.2 ms) without its bookkeeping, rather than asyncio's subprocesses: a pidfd is all we want to
await. What starts here may outlive the agent; what is to end with its caller is killed by the caller.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.runtime import pidfd

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
    cwd: Path = Path("/"),
) -> Child:
    """argv[0] is an absolute path. None: /dev/null. `keep`: our descriptors the child gets too, under the same numbers.

    Every other one is closed, also those that a library or our own parent left open. Blocks for the fork only. Raises
    OSError when the program is not there.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.DEVNULL if stderr is None else stderr,
        env={"PATH": PATH, **(env or {})},
        cwd=cwd,
        pass_fds=keep,
        start_new_session=True,
    )
    process.returncode = 0  # we reap, by descriptor: Popen must not, nor warn that nobody did
    return Child(process.pid, os.pidfd_open(process.pid))
