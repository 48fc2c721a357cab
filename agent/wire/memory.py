"""The bus without a broker, for tests and simulations: the same promises as mosquitto, in one process.

It passes the same conformance suite as mqtt.py. It must not know what the messages mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from agent.wire.broker import READS, WRITES, matches
from agent.wire.bus import Bus, BusDown, Message, PublishDenied, Session


class MemoryBroker:
    """`stop()` is a crash: every session ends and every retained message is lost. Roles agent and orchestrator have
    the access list of the real broker; any other role may do everything. `deny` refuses more, for tests."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.running = True
        self._sessions: list[MemorySession] = []
        self._denied: dict[str, set[str]] = {}

    def bus(self, role: str = "test") -> Bus:
        return _MemoryBus(self, role)

    def stop(self) -> None:
        self.running = False
        self.retained.clear()
        for session in self._sessions:
            session.lose()
        self._sessions.clear()

    def start(self) -> None:
        self.running = True

    def cut(self, role: str) -> None:
        """End every session of `role` without a goodbye, as when its process is killed: the will is published."""
        for session in [s for s in self._sessions if s.role == role]:
            self.close(session)

    def deny(self, role: str, *filters: str) -> None:
        """Refuse these topics to `role` from now on, for writing."""
        self._denied.setdefault(role, set()).update(filters)

    # Below: for sessions.

    def open(self, session: MemorySession) -> None:
        if not self.running:
            raise BusDown("cannot reach the bus: the broker is stopped", code="bus-down")
        self._sessions.append(session)
        for topic, payload in self.retained.items():
            if self._reads(session, topic):
                session.deliver(Message(topic, payload, retain=True))

    def close(self, session: MemorySession) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            session.lose()
            if session.will is not None and self._writes(session.role, session.will.topic):
                self._store(session.will)

    def publish(self, session: MemorySession, message: Message) -> None:
        if session not in self._sessions:
            raise BusDown(f"cannot publish {message.topic}: the session has ended", code="bus-down")
        if not self._writes(session.role, message.topic):
            raise PublishDenied(
                f"cannot publish {message.topic} as {session.role}: the broker's access list refuses it",
                code="publish-denied",
            )
        self._store(message)

    def _store(self, message: Message) -> None:
        if message.retain and message.payload:
            self.retained[message.topic] = message.payload
        elif message.retain:
            self.retained.pop(message.topic, None)
        for session in self._sessions:
            if self._reads(session, message.topic):
                session.deliver(Message(message.topic, message.payload))

    def _writes(self, role: str, topic: str) -> bool:
        if any(matches(pattern, topic) for pattern in self._denied.get(role, ())):
            return False
        return role not in WRITES or any(matches(pattern, topic) for pattern in WRITES[role])

    def _reads(self, session: MemorySession, topic: str) -> bool:
        allowed = session.role not in READS or any(matches(pattern, topic) for pattern in READS[session.role])
        return allowed and any(matches(pattern, topic) for pattern in session.subscribe)


class _MemoryBus:
    def __init__(self, broker: MemoryBroker, role: str) -> None:
        self._broker = broker
        self._role = role

    def session(self, subscribe: tuple[str, ...], will: Message | None = None) -> AbstractAsyncContextManager[Session]:
        return self._session(subscribe, will)

    @asynccontextmanager
    async def _session(self, subscribe: tuple[str, ...], will: Message | None) -> AsyncIterator[Session]:
        session = MemorySession(self._broker, self._role, subscribe, will)
        self._broker.open(session)
        try:
            yield session
        finally:
            self._broker.close(session)


class MemorySession:
    """One connection; ends for good with `lose`."""

    def __init__(self, broker: MemoryBroker, role: str, subscribe: tuple[str, ...], will: Message | None) -> None:
        self.role = role
        self.subscribe = subscribe
        self.will = will
        self._broker = broker
        self._inbox: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._lost = False

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._broker.publish(self, Message(topic, payload, retain))
        await asyncio.sleep(0)  # as the real one: others may run before the acknowledgement

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            while self._inbox:
                yield self._inbox.popleft()
            if self._lost:
                raise BusDown("cannot read the bus: the session has ended", code="bus-down")
            self._wake.clear()
            await self._wake.wait()

    def deliver(self, message: Message) -> None:
        self._inbox.append(message)
        self._wake.set()

    def lose(self) -> None:
        self._lost = True
        self._wake.set()
