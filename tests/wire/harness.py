"""The two brokers behind one face, so that one suite can be run against both."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Protocol

from agent.kit.layout import Layout
from agent.wire import broker
from agent.wire.bus import Bus, Session
from agent.wire.memory import MemoryBroker, MemorySession
from agent.wire.mqtt import MqttBus, MqttSession


class BrokerHarness(Protocol):
    def bus(self, role: str) -> Bus: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """A crash: no goodbye, nothing kept."""

    async def cut(self, session: Session) -> None:
        """The connection ends without a goodbye, as when the client's process is killed."""


class MemoryHarness:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def bus(self, role: str) -> Bus:
        return self.broker.bus(role)

    async def start(self) -> None:
        self.broker.start()

    async def stop(self) -> None:
        self.broker.stop()

    async def cut(self, session: Session) -> None:
        assert isinstance(session, MemorySession)
        self.broker.close(session)


class MosquittoHarness:
    """A real mosquitto in its own short root directory. `close` removes both."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="g-", dir="/tmp"))
        self.root.chmod(0o755)
        self.layout = Layout.at(self.root)
        self._process: asyncio.subprocess.Process | None = None

    def bus(self, role: str) -> Bus:
        return MqttBus(self.layout.bus_socket, role, broker.password_file(self.layout, role))

    async def start(self) -> None:
        argv = broker.prepare(self.layout)
        self._process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        assert self._process.stderr is not None
        seen = b""
        while b" running" not in seen:
            line = await self._process.stderr.readline()
            assert line, f"mosquitto ended: {seen.decode()}"
            seen += line

    async def stop(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.communicate()
            self._process = None

    async def cut(self, session: Session) -> None:
        assert isinstance(session, MqttSession)
        connection = session._client._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        await self.stop()
        shutil.rmtree(self.root)
