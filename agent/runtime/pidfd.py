"""Processes held by descriptor, so that no pid is ever mistaken for another, and awaited without being their parent.

pidfd_open(2). A pid is only believed together with its start time; a descriptor, once open, stays right. Reaping is by
descriptor too: waitpid(-1) would steal the statuses of asyncio's own children.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from contextlib import suppress
from pathlib import Path

from agent.kit.clock import Clock

REAP_EVERY = 0.2  # seconds


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def open_process(pid: int, ticks: int) -> int | None:
    """A pidfd of exactly that process, dead-but-unreaped included; None when it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_ticks(pid) == ticks:  # read after the open: from here on the descriptor cannot change its meaning
        return fd
    os.close(fd)
    return None


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def kill(pidfd: int, number: int = signal.SIGKILL) -> None:
    """Gone is success."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def reap(pidfd: int) -> int | None:
    """The exit status as a shell says it, if the process is our child (or was given to us as subreaper) and has
    ended."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def reap_orphans(before: frozenset[int] = frozenset()) -> frozenset[int]:
    """Reap what died inside containers and was given to us, as subreaper, because its parent on the host's side died.

    Unreaped, one such zombie keeps its container's pid 1, and with it the whole cgroup, from ending
    (pid_namespaces(7)). These are known by a second number in NSpid: asyncio and `Child` reap their own. So do those
    who end a conmon; one that was a zombie `before` as well has been overlooked by them. Returns the zombies left.
    """
    left = set()
    for pid in map(int, Path("/proc/thread-self/children").read_text().split()):
        with suppress(FileNotFoundError, ProcessLookupError, ChildProcessError):
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            if fields["State"].split()[0] != "Z":
                continue
            overlooked = pid in before and fields["Name"].strip() == "conmon"
            if overlooked or len(fields["NSpid"].split()) > 1:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            else:
                left.add(pid)
    return frozenset(left)


async def keep_reaping(clock: Clock) -> None:
    """For as long as it is run: orphans come when they come (a check that was entering a container as it was killed),
    and no descriptor tells of them. Looking costs one system call; only a zombie is looked at closer."""
    zombies: frozenset[int] = frozenset()
    while True:
        zombies = reap_orphans(zombies) if _any_zombie() else frozenset()
        await clock.sleep(REAP_EVERY)


def _any_zombie() -> bool:
    """Leaves it to be waited for (WNOWAIT)."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return False


async def readable(*fds: int, timeout: float | None = None) -> frozenset[int]:
    """Wait until one of `fds` is readable (a pidfd: has ended); those that are. Empty: the time is over."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    for fd in fds:
        loop.add_reader(fd, wake)
    try:
        async with asyncio.timeout(timeout):
            await woken
    except TimeoutError:
        pass
    finally:
        for fd in fds:
            loop.remove_reader(fd)
    return frozenset(fd for fd in fds if has_ended(fd))
