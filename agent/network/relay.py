"""[::1]: what is published on every address of the host is met there as well, though the kernel cannot translate it.

127.0.0.1 can be routed out of the host (route_localnet); IPv6 knows nothing like it. So for ::1, and for ::1 alone, the
agent listens itself and passes on what it hears: a container sees the gateway as its client, as with 127.0.0.1, and a
conversation ends with the agent. Only programs of the host get here, and no more of them than MOST at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

log = logging.getLogger(__name__)
LOCAL = "::1"
MOST = 256  # conversations, and UDP clients of a port
PATIENCE = 5.0  # seconds for a container to take a connection
SILENCE = 60.0  # seconds after which a UDP client is forgotten
_CHUNK = 1 << 16


class Door(NamedTuple):
    """One port on ::1."""

    protocol: str
    port: int


Target = tuple[str, int]  # address, port
_Client = tuple[Any, ...]  # as of recvfrom


class Relay:
    """Everything runs in the event loop of its caller."""

    def __init__(self) -> None:
        self._doors: dict[Door, _Tcp | _Udp] = {}
        self._talks: set[asyncio.Task[None]] = set()

    def doors(self) -> frozenset[Door]:
        """Where it listens."""
        return frozenset(self._doors)

    async def serve(self, wanted: Mapping[Door, Sequence[Target]]) -> dict[Door, OSError]:
        """Listen at exactly these; who answers takes turns. What has begun goes on. → the doors that could not be
        opened."""
        for door in self._doors.keys() - wanted.keys():
            self._doors.pop(door).close()
        failed = {}
        for door, targets in wanted.items():
            if door not in self._doors:
                try:
                    self._doors[door] = await self._open(door)
                except OSError as error:
                    failed[door] = error
                    continue
            self._doors[door].turn_to(targets)
        return failed

    async def close(self) -> None:
        await self.serve({})
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _open(self, door: Door) -> _Tcp | _Udp:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if door.protocol == "tcp" else socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            if door.protocol == "tcp":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOCAL, door.port))
        except BaseException:
            listener.close()
            raise
        if door.protocol != "tcp":
            return _Udp(listener)
        made = _Tcp(self._talks)
        made.server = await asyncio.start_server(made.answer, sock=listener)
        return made


class _Tcp:
    server: asyncio.Server

    def __init__(self, talks: set[asyncio.Task[None]]) -> None:
        self._talks = talks
        self._turns: itertools.cycle[Target] = itertools.cycle(())

    def turn_to(self, targets: Sequence[Target]) -> None:
        self._turns = itertools.cycle(targets)

    def close(self) -> None:
        self.server.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._talks) >= MOST:
            writer.transport.abort()
            return
        self._talks.add(task)
        try:
            target = next(self._turns)
            within, without = await asyncio.wait_for(asyncio.open_connection(*target), PATIENCE)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, without))
                    group.create_task(_pass_on(within, writer))
            finally:
                without.transport.abort()
        except* (OSError, TimeoutError, StopIteration):
            pass  # one of the two is gone: so is the other
        finally:
            writer.transport.abort()
            self._talks.discard(task)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Up to the end of the one direction; the other may go on."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class _Udp:
    """Each client has a socket of its own towards the container, so that the answers find their way back."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._targets: Sequence[Target] = ()
        self._turn = 0
        self._clients: dict[_Client, tuple[socket.socket, Target, asyncio.TimerHandle]] = {}
        self._loop.add_reader(listener.fileno(), self._hear)

    def turn_to(self, targets: Sequence[Target]) -> None:
        self._targets = targets
        for client, (_, target, _) in list(self._clients.items()):
            if target not in targets:
                self._forget(client)

    def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        for client in list(self._clients):
            self._forget(client)
        self._listener.close()

    def _hear(self) -> None:
        with suppress(OSError):
            data, client = self._listener.recvfrom(_CHUNK)
            if client not in self._clients and (len(self._clients) >= MOST or not self._targets):
                return
            passage, target, timer = self._clients.get(client) or self._begin(client)
            timer.cancel()
            self._clients[client] = passage, target, self._loop.call_later(SILENCE, self._forget, client)
            try:
                passage.send(data)
            except ConnectionError:  # nobody listened there the last time
                self._forget(client)

    def _begin(self, client: _Client) -> tuple[socket.socket, Target, asyncio.TimerHandle]:
        self._turn = (self._turn + 1) % len(self._targets)
        target = self._targets[self._turn]
        passage = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        passage.setblocking(False)
        passage.connect(target)
        self._loop.add_reader(passage.fileno(), self._reply, client, passage)
        return passage, target, self._loop.call_later(SILENCE, self._forget, client)

    def _reply(self, client: _Client, passage: socket.socket) -> None:
        try:
            data = passage.recv(_CHUNK)
        except ConnectionError:
            self._forget(client)
            return
        except OSError:
            return
        with suppress(OSError):
            self._listener.sendto(data, client)

    def _forget(self, client: _Client) -> None:
        passage, _, timer = self._clients.pop(client)
        timer.cancel()
        self._loop.remove_reader(passage.fileno())
        passage.close()
