"""A person, or a pipe, and a program in a container: everything both ways until the program ends. One loop on one
thread; nothing is sent faster than the daemon takes it, nor read before there is room."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from agent.kit.errors import GoraeError, UserError
from agent.wire.kinds import DETACH, END, ERROR, RESIZE, RESULT, SIGNAL, STDERR, STDIN, STDOUT
from orchestrator.cli import terminal
from orchestrator.cli.terminal import Ended, Keys
from orchestrator.cli.websocket import WebSocket, outcome, write

CODES = {"command-not-found": 127, "not-executable": 126}  # as a shell says it
_CHUNK = 64 * 1024
_PASSED = (signal.SIGINT, signal.SIGQUIT)


def wants_terminal(asked: bool | None) -> bool:
    """`asked`: -t, -T, or neither: then a terminal on both sides of us decides. UserError no-terminal."""
    there = os.isatty(0) and os.isatty(1)
    if asked and not there:
        raise UserError(
            "cannot give it a terminal: stdin or stdout is none", code="no-terminal", hint="-T goes without"
        )
    return there if asked is None else asked


class Detached(Exception):
    """The detach keys were typed."""


def run(path: str, target: str, ask: dict[str, object], *, tty: bool | None, stdin: bool, keys: Keys) -> int:
    """The exit code for this program. `path`: of the daemon's socket; `ask`: the first message. `tty` None: as the
    container is, if we have one; the same of its input."""
    with terminal.ending():
        try:
            return Talk(tty=tty, stdin=stdin, keys=keys).hold(path, target, ask) or 0
        except GoraeError as error:
            if error.code not in CODES:
                raise
            print(error.message, file=sys.stderr)
            return CODES[error.code]
        except Ended as end:
            return 128 + end.number
        except Detached:
            return 0


class Talk:
    def __init__(self, *, tty: bool | None, stdin: bool, keys: Keys, passing: tuple[int, ...] = _PASSED) -> None:
        """`passing`: signals that are passed on once, where there is no terminal."""
        self._tty, self._keys, self._passing = tty, keys, passing
        self.reads = stdin  # there may be more to pass on
        self.shown = {STDOUT: 0, STDERR: 0}  # bytes
        self._signals: list[int] = []  # that have come
        self._passed: set[int] = set()

    def hold(self, path: str, target: str, ask: dict[str, object]) -> int | None:
        """The program's exit code; None: nobody knows it. Raises Detached, the daemon's error, Unreachable."""
        with ExitStack() as stack:
            self._talk = WebSocket(path, target, ask | {"size": terminal.size(1)} if self._tty else ask)
            stack.callback(self._talk.close)
            # Before the terminal is raw: while it is waited for, Ctrl-C is not the program's yet.
            about = self._talk.wait_ready() if self._tty is None or "wait" in ask else {}
            if self._tty is None:
                self._tty = bool(about["tty"]) and wants_terminal(None)
                self.reads = self.reads and bool(about["stdin"])
                if self._tty:
                    self._talk.send(RESIZE, _size())
            if self._tty:
                stack.enter_context(terminal.raw(0))
            return self._go_on()

    def _go_on(self) -> int | None:
        with self._watching() as wake:
            if not self.reads:
                self._talk.send(END)
            for kind, payload in self._talk.early():
                if kind in (RESULT, ERROR):
                    return outcome(kind, payload)
                self._show(kind, payload)
            while True:
                woken, typed, answered = self._talk.wait(wake, reads=self.reads)
                if woken:
                    os.read(wake, 512)
                    self._tell_signals()
                if typed:
                    self._read()
                if answered:
                    for kind, payload in self._talk.receive():
                        if kind in (RESULT, ERROR):
                            return outcome(kind, payload)
                        self._show(kind, payload)

    def _show(self, kind: int, payload: bytes) -> None:
        if kind in self.shown:
            write(1 if kind == STDOUT else 2, payload)
            self.shown[kind] += len(payload)

    def _read(self) -> None:
        """What is typed, or piped in. Raises Detached."""
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        left = False
        if self._tty:
            if not data:  # the terminal is gone; SIGHUP may be ignored, as nohup does
                raise Ended(signal.SIGHUP)
            data, left = self._keys.feed(data)
        if data:
            self._talk.send(STDIN, data)
        if left:
            self._talk.send(DETACH)
            self._leave()
        if not data and not self._tty:
            self._talk.send(END)
            self.reads = False

    def _leave(self) -> None:
        """Once the daemon knows of it."""
        while self._talk.waiting:
            select.select([], [self._talk.socket], [])
            self._talk.flush()
        while not any(kind in (RESULT, ERROR) for kind, _ in self._talk.receive()):
            select.select([self._talk.socket], [], [])
        os.write(2, b"\r\ndetached; it runs on\r\n")
        raise Detached

    # Signals ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[int]:
        """A descriptor that is readable when a signal is to be passed on. On a terminal Ctrl-C is a key; without one it
        is passed on once, and ends us when it comes again."""
        wake, sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        passed = (signal.SIGWINCH, signal.SIGCONT) if self._tty else self._passing
        before = {number: signal.signal(number, self._note) for number in passed}
        old = signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(sink)

    def _note(self, number: int, _: object) -> None:
        if not self._tty and number in self._passed:
            raise KeyboardInterrupt
        self._signals.append(number)

    def _tell_signals(self) -> None:
        if self._tty:
            self._talk.send(RESIZE, _size())
            if signal.SIGCONT in self._signals:  # whoever had the terminal meanwhile has changed it
                terminal.set_raw(0)
        else:
            for number in self._signals:
                self._talk.send(SIGNAL, str(number).encode())
                self._passed.add(number)
        self._signals.clear()


def _size() -> bytes:
    rows, columns = terminal.size(1)
    return rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
