"""A root process in the container of PID, with all capabilities there, against what enters it: `python -m` this, with

PID look    writes each thing of the host's that it sees of processes that begin: the interpreter, mounts, devices
PID hold    traces whoever executes `sleep`, and takes no notice when it ends
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.kit import syscalls

_PTRACE_SEIZE = 0x4206
_SPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET


def main(pid: int, what: str) -> None:
    container = os.pidfd_open(pid)
    syscalls.setns(container, syscalls.CLONE_NEWPID)
    if child := os.fork():
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        os.waitpid(child, 0)
        return
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    syscalls.setns(container, _SPACES)
    syscalls.setns(container, syscalls.CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    os.write(1, b"begun\n")
    {"look": look, "hold": hold}[what]()


def others() -> Iterator[Path]:
    mine = {"1", str(os.getpid())}
    while True:
        yield from (place for place in Path("/proc").iterdir() if place.name.isdigit() and place.name not in mine)


def look() -> None:
    mounts, devices = lines(Path("/proc/1/mountinfo")), lines(Path("/proc/1/net/dev"))
    for place in others():
        with suppress(OSError):
            if lines(place / "mountinfo") > mounts:
                os.write(1, b"mounts\n")
            if lines(place / "net/dev") > devices:
                os.write(1, b"devices\n")
        with suppress(OSError):
            if "python" in (program := place.joinpath("exe").readlink()).name:
                os.write(1, f"{program}\n".encode())


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def hold() -> None:
    libc = ctypes.CDLL(None)
    for place in others():
        with suppress(OSError):
            asked = place.joinpath("exe").readlink().name == "busybox" and b"sleep" in (place / "cmdline").read_bytes()
            if asked and libc.ptrace(_PTRACE_SEIZE, int(place.name), None, None) == 0:
                os.write(1, b"held\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
