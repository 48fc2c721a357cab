"""Keeps gorae's daemons running in the foreground, where no systemd does it: starts them in order, restarts whichever
dies, stops them in reverse. It must never touch a container: those are children of conmon and outlive us all.

One thread, no event loop: signals arrive through a wake-up descriptor, deaths through pidfds.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agent.kit.backoff import delay
from agent.kit.errors import GoraeError

STEADY = 10.0  # seconds after which a start counts as a success
FIRST, CAP = 0.1, 10.0  # seconds before a restart
GRACE = 15.0  # seconds between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: after fork only the call itself remains


@dataclass(frozen=True, slots=True)
class User:
    """Who a daemon runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Daemon:
    """`command` is called before each start: it may prepare files. `user` None: as we are."""

    name: str
    command: Callable[[], Sequence[str]]
    user: User | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class _Child:
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.started = 0.0
        self.failures = 0
        self.again_at: float | None = None


class Supervisor:
    def __init__(self, daemons: Sequence[Daemon], log: Callable[[str], None]) -> None:
        self._children = [_Child(daemon) for daemon in daemons]
        self._log = log
        self._stop = 0  # signals received
        self._poll = select.poll()

    def run(self) -> int:
        """Until SIGTERM or SIGINT; a second one forces. 0, or 1 when something had to be killed."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._poll.register(reading, select.POLLIN)
        try:
            for child in self._children:
                if not self._stop:
                    self._start(child)
            while not self._stop:
                self._wait(reading, self._next_start())
                self._restart_due()
            return self._end(reading)
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            reading.close()
            writing.close()

    def _signalled(self, number: int, frame: object) -> None:
        self._stop += 1

    def _start(self, child: _Child) -> None:
        daemon = child.daemon
        child.again_at = None
        try:
            child.process = _spawn(daemon.command(), daemon)
        except (OSError, subprocess.SubprocessError, GoraeError) as error:
            self._failed(child, f"does not start: {error}")
            return
        child.started = time.monotonic()
        child.pidfd = os.pidfd_open(child.process.pid)
        self._poll.register(child.pidfd, select.POLLIN)

    def _wait(self, reading: socket.socket, timeout: float | None) -> None:
        for descriptor, _ in self._poll.poll(None if timeout is None else max(0, timeout * 1000)):
            if descriptor == reading.fileno():
                reading.recv(4096)
            for child in self._children:
                if child.pidfd == descriptor:
                    self._ended(child)

    def _ended(self, child: _Child) -> None:
        assert child.process is not None
        code = child.process.wait()
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        child.pidfd, child.process = -1, None
        if not self._stop:
            if time.monotonic() - child.started >= STEADY:
                child.failures = 0
            how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
            self._failed(child, how)

    def _failed(self, child: _Child, how: str) -> None:
        child.failures += 1
        pause = delay(child.failures, first=FIRST, cap=CAP)
        child.again_at = time.monotonic() + pause
        # Edges: the first death, and that it goes on; not each of a hundred.
        if child.failures == 1:
            self._log(f"{child.daemon.name} {how}; starting it again")
        elif child.failures == 5:
            self._log(f"{child.daemon.name} keeps failing ({how}); trying every {CAP:g} s at most")

    def _next_start(self) -> float | None:
        now = time.monotonic()
        moments = [child.again_at - now for child in self._children if child.again_at is not None]
        # A daemon that failed often is said to run again once it has been steady.
        moments += [c.started + STEADY - now for c in self._children if c.failures >= 5 and c.process is not None]
        return min(moments, default=None)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.again_at is not None and child.again_at <= now:
                self._start(child)
            elif child.failures and child.process is not None and now - child.started >= STEADY:
                if child.failures >= 5:
                    self._log(f"{child.daemon.name} runs again")
                child.failures = 0

    def _end(self, reading: socket.socket) -> int:
        """In reverse order of start, one after the other; a second signal kills what is left."""
        forced = 0
        for child in reversed(self._children):
            if child.process is None:
                continue
            child.process.terminate()
            deadline: float | None = time.monotonic() + GRACE
            while child.process is not None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and (self._stop > 1 or left <= 0):
                    why = "asked twice" if self._stop > 1 else f"it did not end in {GRACE:g} s"
                    self._log(f"{child.daemon.name} is killed: {why}")
                    child.process.kill()
                    forced, left, deadline = 1, None, None
                self._wait(reading, left)
        return forced


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one has no name


def _spawn(argv: Sequence[str], daemon: Daemon) -> subprocess.Popen[bytes]:
    """Popen changes groups, gid and uid before it calls preexec_fn: a change of uid would clear the death signal."""
    parent = os.getpid()

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # died between fork and prctl: nobody would tell us
            os._exit(1)

    user = daemon.user
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, **daemon.environment},
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else list(user.groups),
        preexec_fn=bind,
        process_group=0,  # Ctrl-C at the terminal is for us alone: we stop in order
    )


def log(text: str) -> None:
    with suppress(OSError):  # the disk of its log may be full: no reason to end, and the daemons with us
        print(f"gorae daemon: {text}", file=sys.stderr, flush=True)
