"""Connections into a container's network, over the agent's socket (agent/wire/streams.py): one conversation each.

The socket is made in the container's network namespace, so what listens on its 127.0.0.1 alone is reached as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from agent.decide.record import TaskRecord
from agent.kit import syscalls
from agent.kit.errors import Permanent, Temporary, UserError, leaf
from agent.ports import Process
from agent.runtime import pidfd
from agent.streams.execs import Agent, chosen
from agent.streams.requests import Conversation, Take
from agent.wire.frames import CHUNK, END, STDIN, STDOUT, Duplex

PATIENCE = 5.0  # seconds for the container to take a connection
_RESET = struct.pack("ii", 1, 0)  # struct linger (socket(7))


class ForwardRequests:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.conversations: dict[str, Conversation] = {"forward": self._forward}

    async def _forward(self, request: dict[str, Any], take: Take) -> Any:
        record, process = chosen(self._agent, request, "reach a port of")
        port = request.get("port")
        if not isinstance(port, int) or not 1 <= port <= 65535:
            raise UserError("cannot forward: that is no port", code="bad-port", hint="1 to 65535")
        connection = await _connected(record, process, port)
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=CHUNK)
        except BaseException:
            connection.close()
            raise
        whole = False
        try:
            duplex = await take({"task": record.id, "service": record.service, "slot": record.slot})
            async with asyncio.TaskGroup() as group:
                group.create_task(_in(duplex, writer))
                group.create_task(_out(reader, duplex))
            whole = True
            return {}
        except BaseExceptionGroup as group:
            error = leaf(group)
            if isinstance(error, ConnectionError):
                raise Temporary(f"cannot go on with port {port}: the connection was reset", code="reset") from None
            raise error from None
        finally:
            if not whole:
                with suppress(OSError):  # what was sent so far must not pass for all of it
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


async def _in(duplex: Duplex, writer: asyncio.StreamWriter) -> None:
    """Up to the end of this direction; the other may go on. ConnectionResetError: it was cut off before."""
    while (frame := await duplex.receive()) is not None:
        if writer.is_closing():  # uvloop takes nothing more then, by a RuntimeError
            raise ConnectionResetError("the container's side has gone")
        if frame.kind == END:
            writer.write_eof()
            return
        if frame.kind == STDIN:
            writer.write(frame.payload)
            await writer.drain()
    raise ConnectionResetError("the client has gone")


async def _out(reader: asyncio.StreamReader, duplex: Duplex) -> None:
    while data := await reader.read(CHUNK):
        await duplex.send(STDOUT, data)
    await duplex.send(END)


async def _connected(record: TaskRecord, process: Process, port: int) -> socket.socket:
    """UserError refused: nothing listens there, at any address that may be meant."""
    addresses = ["127.0.0.1", "::1", record.joined.address if record.joined else record.allocation.address]
    why = ""
    for address in filter(None, addresses):
        try:
            made = await asyncio.get_running_loop().run_in_executor(None, _made, record, process, address)
        except OSError as error:  # no IPv6 on this host
            why = why or os.strerror(error.errno or 0)
            continue
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
            return made
        except OSError as error:  # TimeoutError is one
            made.close()
            why = why or (os.strerror(error.errno) if error.errno else "it does not answer")
        except BaseException:
            made.close()
            raise
    raise UserError(
        f"cannot reach port {port} of {record.stack}/{record.service}.{record.slot}: {why.lower()}",
        code="refused",
        hint="does the program listen on this port, and by TCP?",
    )


def _made(record: TaskRecord, process: Process, address: str) -> socket.socket:
    """A socket of the container's network."""
    container = pidfd.open_process(process.pid, process.start_ticks)
    if container is None:
        raise Permanent(f"cannot reach {record.stack}/{record.service}: its container has ended", code="nothing-runs")
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make() -> socket.socket:
            syscalls.setns(container, syscalls.CLONE_NEWNET)
            return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

        return _in_thread(make)
    finally:
        os.close(container)


def _in_thread(make: Callable[[], socket.socket]) -> socket.socket:
    """In a thread of its own, which ends with it: no other code ever runs where it has gone."""
    found: list[socket.socket | BaseException] = []

    def run() -> None:
        try:
            found.append(make())
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]
