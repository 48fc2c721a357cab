"""The streams of a container's own program, through its conmon: a socket that carries what it writes, and takes what it
is to read. conmon waits for whoever is attached and does not read, and the container with it: so what comes is taken
at once, and a reader that is too slow is let go.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from contextlib import suppress

from agent.kit.errors import Temporary
from agent.kit.layout import Layout
from agent.runtime.execs import writable

_STDOUT, _STDERR = 2, 3  # the first byte of a packet (conmon, src/utils.h)
_PACKET = 8192  # bytes of one
_BEHIND = 1 << 20  # bytes that a reader may be behind
_EACH = 100  # bytes that a packet takes besides its own: a container may write one at a time


class Attached:
    """Temporary not-attached: its conmon is gone."""

    def __init__(self, layout: Layout, task: str, attempt: int, *, patient: bool = False) -> None:
        """`patient`: it waits for the reader, and the container with it."""
        self._patient, self._paused = patient, False
        self._control = layout.run_tasks / task / str(attempt) / "ctl"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._waiting: deque[tuple[bool, bytes]] = deque()
        self._behind = 0
        self._bell = asyncio.Event()
        self._over = self._too_slow = False
        path = layout.run / "at" / f"{task}.{attempt}" / "attach"  # short: 107 bytes at most
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Temporary(
                f"cannot attach to {task}: {error.strerror or error}", code="not-attached", hint="gorae status"
            ) from error
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._take)

    def close(self) -> None:
        """The container runs on. When nobody writes any more."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    async def read(self) -> tuple[bool, bytes] | None:
        """(whether it is stderr, bytes); None at the end. Temporary too-slow."""
        while not self._waiting:
            if self._over:
                return None
            if self._too_slow:
                raise Temporary(
                    "cannot show any more: it writes faster than this is read", code="too-slow", hint="gorae logs -f"
                )
            self._bell.clear()
            await self._bell.wait()
        errors, data = self._waiting.popleft()
        self._behind -= len(data) + _EACH
        if self._paused and self._behind < _BEHIND // 2:
            self._paused = False
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._take)
        return errors, data

    async def write(self, data: bytes) -> None:
        """To its input; waits while it does not read. Nothing happens once it has ended."""
        for at in range(0, len(data), _PACKET):
            while True:
                try:
                    self._socket.send(data[at : at + _PACKET])
                except BlockingIOError:
                    await writable(self._socket.fileno())
                except OSError:
                    return
                else:
                    break

    def end(self) -> None:
        """Of what it is given to read."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, rows: int, columns: int) -> None:
        """Of its terminal; conmon reads "1 ROWS COLUMNS" (src/ctrl.c)."""
        with suppress(OSError):
            fd = os.open(self._control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, f"1 {rows} {columns}\n".encode())
            finally:
                os.close(fd)

    def _take(self) -> None:
        try:
            data = self._socket.recv(_PACKET + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and data[0] in (_STDOUT, _STDERR):
            self._waiting.append((data[0] == _STDERR, data[1:]))
            self._behind += len(data) - 1 + _EACH
        if data and self._patient and self._behind > _BEHIND:
            self._paused = True
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        elif not data or self._behind > _BEHIND:
            self._over, self._too_slow = not data, bool(data)
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            with suppress(
                OSError
            ):  # not closed: a writer may wait on it, and libuv aborts on a descriptor that is none
                self._socket.shutdown(socket.SHUT_RDWR)
        self._bell.set()
