"""A terminal as one screen: what was on it comes back, and so do its settings, however this ends. Keys come by name.

Escape sequences: xterm's control sequences (ctlseqs); settings: termios(3).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from types import FrameType

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen, without a cursor; and back
_NAMES = {
    **{b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"},
    **{b"\x1b[5~": "pageup", b"\x1b[6~": "pagedown", b"\x1b[H": "home", b"\x1b[F": "end"},
    **{b"\x1b[1~": "home", b"\x1b[4~": "end", b"\x1bOH": "home", b"\x1bOF": "end", b"\x1b": "escape", b" ": "pagedown"},
}


class FullScreen:
    """Made by opened(). `wake` from any thread ends a wait for keys."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._turn = threading.RLock()  # also taken by a handler of signals, in the middle of anything
        self._closed = False

    def size(self) -> tuple[int, int]:
        """(columns, lines)."""
        try:
            columns, lines = os.get_terminal_size(self._terminal)
        except OSError:
            columns, lines = 0, 0
        return columns or 80, lines or 24

    def draw(self, lines: Sequence[str]) -> None:
        text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._terminal, data) :]

    def wake(self) -> None:
        with self._turn, contextlib.suppress(BlockingIOError):  # it is full: it will wake
            if not self._closed:
                os.write(self._wake, b"\0")

    def pressed(self) -> list[str]:
        """Those that were pressed, once there is one; or none, after wake() and when the size has changed. EOFError:
        the terminal is gone."""
        readable, _, _ = select.select([self._terminal, self._woken], [], [])
        if self._woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        return named(self._typed()) if self._terminal in readable else []

    def _typed(self) -> bytes:
        data = os.read(self._terminal, 1024)
        if not data:
            raise EOFError
        if data == b"\x1b" and select.select([self._terminal], [], [], 0.05)[0]:
            data += os.read(self._terminal, 1024)  # a slow line brings a sequence in pieces
        return data

    def close(self) -> None:
        with self._turn:
            self._closed = True
            os.close(self._woken)
            os.close(self._wake)


def named(data: bytes) -> list[str]:
    """Keys of what a terminal sent: "up", "escape", "q" …; what has no name here is left out."""
    found = []
    while data:
        size = next((size for size in (4, 3, 2, 1) if data[:size] in _NAMES and len(data) >= size), 0)
        if size == 1 and data[:1] == b"\x1b" and len(data) > 1:
            size = _sequence(data)  # of a key without a name
        elif size:
            found.append(_NAMES[data[:size]])
        else:
            size = 1
            if data[:1].isalpha():
                found.append(data[:1].decode().lower())
        data = data[size:]
    return found


def _sequence(data: bytes) -> int:
    """Bytes of a control sequence at the beginning (ECMA-48, 5.4): ESC [, parameters, a final byte."""
    if data[1:2] not in (b"[", b"O"):
        return 2
    return next((at + 1 for at in range(2, len(data)) if 0x40 <= data[at] <= 0x7E), len(data))


@contextlib.contextmanager
def opened(terminal: int) -> Iterator[FullScreen]:
    """Keys come at once and unseen; Ctrl-C is KeyboardInterrupt, SIGTERM and SIGHUP are SystemExit."""
    before = termios.tcgetattr(terminal)
    screen = FullScreen(terminal)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setcbreak(terminal)
        now = termios.tcgetattr(terminal)
        now[6][termios.VSUSP] = b"\0"  # a stopped one would leave the other screen behind
        termios.tcsetattr(terminal, termios.TCSADRAIN, now)
        signal.signal(signal.SIGWINCH, lambda *_: screen.wake())
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
        os.write(terminal, _ENTER.encode())
        yield screen
    finally:
        with contextlib.suppress(OSError, termios.error):  # the terminal is gone
            os.write(terminal, _LEAVE.encode())
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        screen.close()


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
