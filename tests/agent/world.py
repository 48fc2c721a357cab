"""A whole agent on fakes: the host and the journal outlive it, so a test can end it at any line and start another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent.effects import Ports
from agent.fakes.host import FakeHost
from agent.fakes.images import FakeImages
from agent.fakes.journal import FakeJournal
from agent.fakes.logs import FakeLogs
from agent.fakes.mounts import FakeMounts
from agent.fakes.network import FakeNetwork
from agent.fakes.prober import FakeProber
from agent.fakes.resolver import FakeResolver
from agent.fakes.rootfs import FakeRootfs
from agent.fakes.runtime import FakeRuntime
from agent.fakes.sandboxes import FakeSandboxes
from agent.fakes.volumes import FakeVolumes
from agent.kit.clock import FakeClock
from agent.kit.ids import Ulids
from agent.kit.pools import Slice
from agent.reconciler import Reconciler
from agent.wire import topics
from agent.wire.memory import MemoryBroker
from agent.wire.messages import (
    Assignment,
    Cursor,
    Event,
    EventBatch,
    HostStatus,
    Report,
    StackStatus,
    Store,
    Task,
    TaskStatus,
    Wire,
)


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.broker = MemoryBroker()
        self.host = FakeHost()
        self.journal = FakeJournal()
        self.sandboxes, self.images, self.rootfs = FakeSandboxes(), FakeImages(), FakeRootfs()
        self.volumes, self.network, self.runtime = FakeVolumes(), FakeNetwork(), FakeRuntime(self.clock)
        self.resolver = FakeResolver()
        self.prober, self.logs, self.mounts = FakeProber(), FakeLogs(), FakeMounts()
        self.image = self.images.add("web:1", Cmd=["serve"]).id
        self.agent: Reconciler | None = None
        self.batches: list[EventBatch] = []
        self.taken = 0  # the orchestrator's cursor
        self.take_events = True
        self._running: asyncio.Task[None] | None = None
        self._ulids = Ulids()

    # The agent ----------------------------------------------------------------------------------------------------

    def start(self) -> Reconciler:
        assert self._running is None
        ports = Ports(
            instance="0badcafe",
            clock=self.clock,
            journal=self.journal,
            sandboxes=self.sandboxes,
            images=self.images,
            rootfs=self.rootfs,
            volumes=self.volumes,
            network=self.network,
            flows=self.network,
            resolver=self.resolver,
            runtime=self.runtime,
            prober=self.prober,
            logs=self.logs,
            mounts=self.mounts,
            boot_id=self.host.boot_id(),
        )
        ports.ulids = self._ulids
        self.agent = Reconciler(ports, self.host, self.broker.bus("agent"), Slice(0), version="0")
        self._running = asyncio.ensure_future(self.agent.run())
        return self.agent

    async def kill(self) -> None:
        """The agent ends between two lines; the host stays as it is."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self._running = None
        self.broker.cut("agent")

    async def restart(self) -> None:
        await self.kill()
        self.start()
        await self.settle()

    async def reboot(self) -> None:
        """Everything that runs ends, and what lived in memory is gone; disks stay."""
        if self._running is not None:
            await self.kill()
        self.host.reboot()
        self.runtime.__init__(self.clock)  # type: ignore[misc]  # the same object, as after a boot
        self.sandboxes.made.clear()
        self.rootfs.mounted.clear()
        self.volumes.tasks.clear()
        self.network.attached.clear()
        self.network.published.clear()

    @property
    def failed(self) -> BaseException | None:
        return self._running.exception() if self._running is not None and self._running.done() else None

    async def settle(self, seconds: float = 0.05) -> None:
        """Let everything happen that can, `seconds` later too."""
        for _ in range(12):
            await self.clock.settle(40)
        if seconds:
            await self.clock.advance(seconds)
            for _ in range(12):
                await self.clock.settle(40)
        if self.failed is not None:
            raise self.failed

    async def until(self, condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
        """Fake time passes in small steps until it holds."""
        waited = 0.0
        await self.settle()
        while not condition():
            assert waited < seconds, "it did not come true"
            await self.settle(0.05)
            waited += 0.05

    # The orchestrator ---------------------------------------------------------------------------------------------

    async def say(self, topic: str, message: Wire | None, *, retain: bool = True) -> None:
        payload = b"" if message is None else message.model_dump_json().encode()
        await self.say_raw(topic, payload, retain=retain)

    async def say_raw(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        async with self.broker.bus("orchestrator").session(()) as session:
            await session.publish(topic, payload, retain=retain)
        await self.settle()

    async def store(self, store_id: str = "S1", *adopts: str) -> None:
        await self.say(topics.STORE, Store(store_id=store_id, adopts=adopts))

    async def assign(
        self, *tasks: Task, stack: str = "shop", generation: int = 1, store: str = "S1", **fields: Any
    ) -> None:
        made = Assignment(store_id=store, stack=stack, generation=generation, tasks=tasks, **fields)
        await self.say(topics.assignment(stack), made)

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """An orchestrator that takes events as ours does: in order, each once, and says how far it is."""
        async with self.broker.bus("orchestrator").session((topics.EVENTS,)) as session:

            async def take() -> None:
                async for message in session.messages():
                    batch = EventBatch.model_validate_json(message.payload)
                    self.batches.append(batch)
                    if not self.take_events:
                        continue
                    fresh = [seq for seq, _ in batch.events if seq > self.taken] if batch.after <= self.taken else []
                    self.taken = fresh[-1] if fresh else self.taken
                    cursor = Cursor(journal_id=batch.journal_id, seq=self.taken)
                    await session.publish(topics.CURSOR, cursor.model_dump_json().encode(), retain=True)

            if self.journal.epoch:
                cursor = Cursor(journal_id=self.journal.id, seq=self.taken)
                await session.publish(topics.CURSOR, cursor.model_dump_json().encode(), retain=True)
            taking = asyncio.ensure_future(take())
            try:
                yield
            finally:
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)

    # What is seen --------------------------------------------------------------------------------------------------

    def said(self, topic: str, kind: type[Any]) -> Any:
        payload = self.broker.retained.get(topic)
        return None if payload is None else kind.model_validate_json(payload)

    def stack(self, stack: str = "shop") -> StackStatus | None:
        found = self.said(topics.status(stack), StackStatus)
        assert found is None or isinstance(found, StackStatus)
        return found

    def hosts(self) -> HostStatus:
        found = self.said(topics.HOST, HostStatus)
        assert isinstance(found, HostStatus)
        return found

    def report(self, stack: str = "shop") -> Report | None:
        found = self.said(topics.report(stack), Report)
        assert found is None or isinstance(found, Report)
        return found

    def task(self, task: str = "t1", stack: str = "shop") -> TaskStatus | None:
        status = self.stack(stack)
        return next((t for t in status.tasks if t.id == task), None) if status else None

    def state(self, task: str = "t1", stack: str = "shop") -> str:
        found = self.task(task, stack)
        return found.state if found else "absent"

    def events(self, *kinds: str) -> list[Event]:
        return [event for _, event in self.journal.events if not kinds or event.kind in kinds]

    def nothing_left(self) -> bool:
        return not (
            self.sandboxes.made
            or self.rootfs.mounted
            or self.rootfs.writable
            or self.volumes.tasks
            or self.network.attached
            or self.network.published
            or self.resolver.served
            or self.runtime._containers
        )


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """A world with an agent in it, bound to store S1."""
    world = World()
    world.start()
    await world.settle()
    await world.store()
    try:
        yield world
    finally:
        if world._running is not None:
            await world.kill()
