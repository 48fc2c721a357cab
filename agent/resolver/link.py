"""The agent's side of the resolver: makes a socket pair in each task's namespace, hands it over, keeps a duplicate.

Both processes hold every pair. So the agent's death costs no look-up, and the resolver's only the one that it was
answering: what was asked meanwhile waits in the socket for its successor.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.kit import threads
from agent.kit.errors import Temporary
from agent.kit.layout import Layout
from agent.network.coalesce import Coalesced
from agent.resolver import message, room

T = TypeVar("T")
log = logging.getLogger("gorae.agent")
_PATIENCE = 2.0  # seconds within which a resolver takes a message; it does little else
_FIRST, _CAP = 0.02, 0.5  # seconds between calls on one that is away: nothing tells when it listens again
_QUIET = 5.0  # seconds it may be away before that is worth a line: the supervisor starts it beside us


@dataclass(frozen=True, slots=True)
class _Pair:
    space: str  # room.identity
    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


class ResolverLink:
    """Implements ports.Resolver. `run` it in the agent's task group. All blocking work is done in one thread."""

    def __init__(self, layout: Layout) -> None:
        self._socket, self._file, self._tasks = layout.resolver_socket, layout.zone, layout.run_tasks
        self._thread = ThreadPoolExecutor(1, "resolver")
        self._pairs: dict[str, _Pair] = {}
        self._connection: socket.socket | None = None
        self._gone = asyncio.Event()  # the connection is
        self._tried = asyncio.Event()  # to reach one, which may hold pairs of an agent before us
        self._zone: Callable[[], str] | None = None
        self._told = asyncio.Event()
        self._write = Coalesced(self._write_zone)

    # The Protocol -----------------------------------------------------------------------------------------------------

    def tell(self, zone: Callable[[], str]) -> None:
        self._zone = zone
        self._told.set()

    async def serve(self, task: str) -> None:
        await self._tried.wait()
        try:
            if self._told.is_set():
                await self._write()
            await self._do(self._serve, task)
        except OSError as error:
            hint = ""
            if error.errno == errno.EADDRINUSE:
                hint = f"does its container listen on port {room.PORT}? that one is taken"
            raise Temporary(
                f"cannot take the look-ups of task {task}: {error}", code="look-ups-refused", hint=hint
            ) from error

    async def drop(self, task: str) -> None:
        await self._do(self._drop, task)

    # Besides the Protocol ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: keep a resolver at work, and what it knows fresh."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_connected(), name="resolver's connection")
            group.create_task(self._keep_told(), name="resolver's names")

    async def close(self) -> None:
        """Our duplicates; those of the resolver go on."""

        def close() -> None:
            self._hang_up()
            for pair in self._pairs.values():
                pair.close()
            self._pairs.clear()

        await self._do(close)
        self._thread.shutdown()

    # Work -------------------------------------------------------------------------------------------------------------

    async def _do(self, work: Callable[..., T], *arguments: object) -> T:
        return await threads.finish(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    async def _keep_told(self) -> None:
        failing = False
        while True:
            await self._told.wait()
            try:
                await self._write()
                failing = False
            except OSError as error:
                if not failing:
                    log.error("cannot write %s: %s; tasks find each other as before", self._file, error)
                failing = True
                await asyncio.sleep(1)

    async def _write_zone(self) -> None:
        if self._zone is None or not self._told.is_set():
            return
        self._told.clear()
        try:
            await self._do(self._replace, self._zone())
        except OSError:
            self._told.set()
            raise

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            fd = await self._connected()
            self._gone.clear()
            loop.add_reader(fd, self._gone.set)  # it never speaks after its greeting: this is its end
            try:
                await self._gone.wait()
            finally:
                loop.remove_reader(fd)
            await self._do(self._hang_up)

    async def _connected(self) -> int:
        """Its descriptor, once a resolver is there and knows all."""
        loop = asyncio.get_running_loop()
        since, pause, complained = loop.time(), _FIRST, False
        while True:
            try:
                fd = await self._do(self._connect)
            except OSError as error:
                if not complained and loop.time() - since > _QUIET:
                    log.warning("cannot reach the resolver: %s; tasks look up only what is in /etc/hosts", error)
                    complained = True
                self._tried.set()
            else:
                self._tried.set()
                if complained:
                    log.info("the resolver is there")
                return fd
            await asyncio.sleep(pause)
            pause = min(pause * 2, _CAP)

    # In the thread ----------------------------------------------------------------------------------------------------

    def _connect(self) -> int:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self._socket))
            held = self._greeted(connection)
            self._connection = connection
            # Names first: whoever is served must not be told that they do not exist.
            if self._file.exists():
                self._hand_over_zone()
            for task in held - self._pairs.keys():
                self._say({"drop": task})
            for task in self._pairs.keys() - held:
                self._hand_over(task)
            return connection.fileno()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def _greeted(self, connection: socket.socket) -> set[str]:
        """What it serves; a pair we do not have is taken from it, one of a namespace that is gone is not."""
        held: set[str] = set()
        while True:
            received = message.receive(connection)
            if received is None:
                raise ConnectionResetError(errno.ECONNRESET, "it hung up")
            said, descriptors = received
            if "task" not in said or len(descriptors) != 2:
                return held
            task, space = str(said["task"]), str(said["space"])
            pair = _Pair(space, *(socket.socket(fileno=descriptor) for descriptor in descriptors))
            held.add(task)
            known = self._pairs.get(task)
            if known is None and self._space(task) == space:
                self._pairs[task] = pair
                continue
            pair.close()
            if known is not None and known.space != space:
                held.discard(task)

    def _net_ns(self, task: str) -> Path:
        return self._tasks / task / "ns" / "net"

    def _space(self, task: str) -> str:
        try:
            return room.identity(self._net_ns(task))
        except OSError:
            return ""

    def _serve(self, task: str) -> None:
        space = room.identity(self._net_ns(task))
        known = self._pairs.get(task)
        if known is not None and known.space == space:
            return
        if known is not None:
            known.close()
            del self._pairs[task]
        self._pairs[task] = _Pair(space, *room.opened(self._net_ns(task)))
        self._hand_over(task)

    def _drop(self, task: str) -> None:
        pair = self._pairs.pop(task, None)
        if pair is not None:
            pair.close()
        self._say({"drop": task})

    def _replace(self, zone: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(zone)
        new.chmod(0o600)
        new.replace(self._file)
        self._hand_over_zone()

    def _hand_over(self, task: str) -> None:
        pair = self._pairs[task]
        self._say({"task": task, "space": pair.space}, (pair.udp.fileno(), pair.tcp.fileno()))

    def _hand_over_zone(self) -> None:
        descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._say({"zone": True}, (descriptor,))
        finally:
            os.close(descriptor)

    def _say(self, said: dict[str, object], descriptors: tuple[int, ...] = ()) -> None:
        """To a resolver that is there; one that is not is told all of it when it comes."""
        if self._connection is None:
            return
        try:
            message.send(self._connection, said, descriptors)
        except OSError as error:
            log.warning("cannot tell the resolver anything: %s", error)
            # Not closed here: the loop still watches it, and hangs up.
            self._connection.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
