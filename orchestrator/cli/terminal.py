"""The terminal that a person sits at, lent to a program in a container, and what they type to leave it."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agent.kit.errors import UserError

DETACH_KEYS = "ctrl-p,ctrl-q"


class Ended(BaseException):
    """A signal ends this program; what was changed is put back on the way."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def ending() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Ended here, instead of ending the program where it stands."""

    def end(number: int, _: object) -> None:
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Every key goes to the program, Ctrl-C too. Put back however the block ends."""
    try:
        before = termios.tcgetattr(fd)
    except termios.error as error:
        raise UserError("cannot use this terminal", code="no-terminal", hint="-T goes without one") from error
    try:
        set_raw(fd)
        yield
    finally:
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def set_raw(fd: int) -> None:
    tty.setraw(fd, termios.TCSADRAIN)


def size(fd: int) -> tuple[int, int]:
    """(rows, columns); (0, 0): unknown."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return rows, columns


class Keys:
    """Looks for a sequence among what is typed: "ctrl-p,ctrl-q", "ctrl-x,x" …, as Docker writes it; "" is none. Raises
    UserError usage."""

    def __init__(self, text: str) -> None:
        self._keys = bytes(_key(word) for word in text.split(",")) if text else b""
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the sequence was typed). What may be its beginning is held back until the next
        key."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for at in range(len(data)):
            self._held += data[at : at + 1]
            while self._held and not self._keys.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                return bytes(passed), True
        return bytes(passed), False


def _key(word: str) -> int:
    name = word.strip()
    if len(name) == 1 and name.isascii():
        return ord(name)
    letter = name[5:].upper() if name.lower().startswith("ctrl-") else ""
    if len(letter) == 1 and "@" <= letter <= "_":
        return ord(letter) & 0x1F
    raise UserError(f"cannot understand the key {word!r}", code="usage", hint=f"as in --detach-keys {DETACH_KEYS}")
