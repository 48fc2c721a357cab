"""Connections into a network namespace: here into our own, which is entered like any other."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.decide.record import TaskRecord
from agent.ports import Process
from agent.runtime import pidfd
from agent.streams.forwarding import ForwardRequests
from agent.wire.frames import ERROR, STDIN
from agent.wire.streams import converse
from tests.agent.streams.test_server import Place, serving

pytestmark = pytest.mark.host


class Here:
    """An agent whose one task is this process."""

    def records(self, stack: str | None = None, services: Collection[str] = ()) -> Sequence[TaskRecord]:
        ticks = pidfd.start_ticks(os.getpid())
        assert ticks is not None
        allocation = SimpleNamespace(address="")
        known = {"id": "t1", "stack": "shop", "service": "web", "slot": 1, "state": "running", "paused": False}
        process = Process(os.getpid(), ticks, 0)
        return [cast(TaskRecord, SimpleNamespace(**known, process=process, joined=None, allocation=allocation))]

    live = records


async def test_a_connection_that_is_reset_is_no_bug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    place = Place(tmp_path / "agent.sock")
    async with await asyncio.start_server(reset, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with (
            serving(place, conversations=ForwardRequests(Here()).conversations).serving(),
            converse(place.path, "forward", stack="shop", service="web", port=port) as (_, duplex),
            asyncio.timeout(5),
        ):
            await duplex.send(STDIN, b"x")
            last = await duplex.receive()
    assert last is not None and last.kind == ERROR
    assert last.document()["message"] == f"cannot go on with port {port}: the connection was reset"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
