"""The bus over mosquitto. The only module that imports aiomqtt.

What aiomqtt leaves out is added here: MQTT 5 reason codes of acknowledgements (a publish the access list refuses looks
like success without them), publishes that fail at once when the connection is lost instead of waiting for a
timeout, and messages that are not lost when the reader is cancelled. That needs a few of its private hooks, so the
version is pinned below 3.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
from paho.mqtt import client as paho

from agent.wire.bus import BusDown, Message, PublishDenied, Session

KEEPALIVE = 15  # seconds; a broker that hangs (not one that dies) is noticed after 1.5 times this
TIMEOUT = 10.0  # seconds to connect and subscribe
_REFUSED = 0x80  # MQTT 5 reason codes from here on are errors


class MqttBus:
    """`password_file` is read at every session: credentials are made anew when the runtime directory is lost."""

    def __init__(self, socket: Path, role: str, password_file: Path) -> None:
        self._path = socket
        self._role = role
        self._password_file = password_file

    def session(self, subscribe: tuple[str, ...], will: Message | None = None) -> AbstractAsyncContextManager[Session]:
        return self._session(subscribe, will)

    @asynccontextmanager
    async def _session(self, subscribe: tuple[str, ...], will: Message | None) -> AsyncIterator[Session]:
        session = await self._open(subscribe, will)
        try:
            yield session
        finally:
            await session.close()

    async def _open(self, subscribe: tuple[str, ...], will: Message | None) -> MqttSession:
        try:
            password = self._password_file.read_text().strip()
        except OSError as error:
            raise self._down(f"cannot read {self._password_file}: {error.strerror}") from error
        client = _Client(
            str(self._path),
            port=1,  # paho refuses 0, and ignores it for a unix socket
            transport="unix",
            protocol=aiomqtt.ProtocolVersion.V5,
            username=self._role,
            password=password,
            clean_start=True,
            keepalive=KEEPALIVE,
            timeout=TIMEOUT,
            max_inflight_messages=1000,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain),
        )
        session = MqttSession(client, self._role, will)
        try:
            await client.__aenter__()
            client.watch()
            if subscribe:
                codes = await client.subscribe([(pattern, 1) for pattern in subscribe])
                refused = [p for p, code in zip(subscribe, codes, strict=True) if _value(code) >= _REFUSED]
                if refused:
                    raise self._down(f"the broker refuses to let {self._role} subscribe to {', '.join(refused)}")
        except aiomqtt.MqttError as error:
            client.abandon()
            raise self._down(str(error)) from error
        except BaseException:
            client.abandon()
            raise
        return session

    def _down(self, reason: str) -> BusDown:
        return BusDown(f"cannot reach the bus at {self._path}: {reason}", code="bus-down", hint="gorae doctor")


class MqttSession:
    """One connection; ends for good when it is lost."""

    def __init__(self, client: _Client, role: str, will: Message | None) -> None:
        self._client = client
        self._role = role
        self._will = will

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """After PublishDenied expect the session to end: mosquitto 2.0.11 acknowledges the refusal, then hangs up."""
        code = await self._client.publish_checked(topic, payload, retain)
        if code >= _REFUSED:
            raise PublishDenied(
                f"cannot publish {topic} as {self._role}: the broker's access list refuses it (reason {code:#x})",
                code="publish-denied",
            )

    async def messages(self) -> AsyncIterator[Message]:
        client = self._client
        while True:
            while client.inbox:
                yield client.inbox.popleft()
            if client.lost:
                raise BusDown("cannot read the bus: the session has ended", code="bus-down")
            client.wake.clear()
            await client.wake.wait()

    async def close(self) -> None:
        """Say goodbye. A polite MQTT goodbye discards the will, so it is published first: however a session ends,
        its will is heard."""
        try:
            if self._will is not None and not self._client.lost:
                async with asyncio.timeout(1):
                    await self.publish(self._will.topic, self._will.payload, retain=self._will.retain)
            await self._client.__aexit__(None, None, None)
        except (BusDown, PublishDenied, aiomqtt.MqttError, TimeoutError):
            pass  # the connection is gone or hangs: the broker publishes the will by itself
        finally:
            self._client.abandon()


class _Client(aiomqtt.Client):
    """aiomqtt's client with checked acknowledgements and a plain inbox."""

    def __init__(self, hostname: str, **options: Any) -> None:
        super().__init__(hostname, **options)
        self.inbox: deque[Message] = deque()
        self.wake = asyncio.Event()
        self.lost = False
        self._acknowledgements: dict[int, asyncio.Future[int]] = {}
        self._client._create_unix_socket_connection = self._connect  # type: ignore[method-assign]

    def _connect(self) -> sockets.socket:
        """paho's own leaves an open socket behind when nobody listens."""
        connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            connection.connect(self._hostname)
        except OSError:
            connection.close()
            raise
        return connection

    def watch(self) -> None:
        """Notice the end of the connection from now on."""
        self._disconnected.add_done_callback(self._on_lost)

    async def publish_checked(self, topic: str, payload: bytes, retain: bool) -> int:
        """The broker's reason code. Raises BusDown when the connection is lost before it comes."""
        if self.lost:
            raise BusDown(f"cannot publish {topic}: the session has ended", code="bus-down")
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise BusDown(f"cannot publish {topic}: {paho.error_string(info.rc)}", code="bus-down")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acknowledgements[info.mid] = future
        return await future

    def abandon(self) -> None:
        """Close the socket if it is still open, whatever state the connection is in."""
        self._on_lost(None)
        if self._client.socket() is not None:
            self._client.disconnect()
        if self._client.socket() is not None:
            self._client._sock_close()

    def _on_lost(self, future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.cancelled():
            future.exception()  # retrieved: each user of the session raises its own BusDown
        self.lost = True
        self.wake.set()
        for waiting in self._acknowledgements.values():
            if not waiting.done():
                waiting.set_exception(BusDown("cannot publish: the connection was lost", code="bus-down"))
        self._acknowledgements.clear()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        waiting = self._acknowledgements.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(_value(reason_code))

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        self.inbox.append(Message(message.topic, bytes(message.payload), bool(message.retain)))
        self.wake.set()


def _value(code: Any) -> int:
    return int(getattr(code, "value", code))
