"""An answer that the kernel carries from the agent's socket to the asker's: bytes that are to go through untouched need
not come here first. It costs a tenth of what reading and writing them would."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_ROOM = 1024 * 1024  # bytes on their way: as much as an unprivileged user's pipe may hold (pipe(7))


class Passed(Response):
    """For HTTP/1.0 alone, where the end of the connection is the end of the answer. `first`: bytes before the
    agent's."""

    def __init__(self, source: socket.socket, first: bytes, media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._source, self._first = source, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._source:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            work = asyncio.ensure_future(_carry(self._source, scope["state"]["connection"]))
            left = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (work, left):
                    task.cancel()
                await asyncio.gather(work, left, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(path: Path, op: str, arguments: dict[str, Any]) -> socket.socket:
    """The agent's socket, asked (agent/wire/streams.py). OSError."""
    loop = asyncio.get_running_loop()
    source = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await loop.sock_connect(source, str(path))
        await loop.sock_sendall(source, json.dumps({"op": op, **arguments}).encode() + b"\n")
    except BaseException:
        source.close()
        raise
    return source


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _carry(source: socket.socket, asker: socket.socket) -> None:
    """Until the agent has ended its answer, or the asker has gone."""
    loop = asyncio.get_running_loop()
    for _ in range(2):  # uvloop sends what was written at the end of a turn: the head goes first
        await asyncio.sleep(0)
    out = os.dup(asker.fileno())  # a number of its own: the loop watches none that a transport has
    end, begin = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # what all users' pipes may have together is used up: a small one does it, too
            fcntl.fcntl(begin, fcntl.F_SETPIPE_SZ, _ROOM)
        while count := await _splice(
            source.fileno(), begin, _ROOM, loop.add_reader, loop.remove_reader, source.fileno()
        ):
            while count:
                count -= await _splice(end, out, count, loop.add_writer, loop.remove_writer, out)
    except ConnectionError:
        return
    finally:
        for fd in (out, end, begin):
            os.close(fd)


async def _splice(
    source: int, target: int, count: int, add: Callable[..., Any], remove: Callable[[int], Any], which: int
) -> int:
    """splice(2); waits for the socket `which` where there is nothing to take, or no room. 0: the end."""
    while True:
        try:
            return os.splice(source, target, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        except BlockingIOError:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            add(which, _wake, ready)
            try:
                await ready
            finally:
                remove(which)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
