"""The agent's voice on the bus: keeps a session, and says in each new one everything it has to say.

Statuses are coalesced (the newest per stack wins); events are sent in order, a batch at a time, until the
orchestrator's cursor has passed them. Nothing is queued across sessions, and nothing here decides: what arrives is
handed on. The broker may be away for as long as it likes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from pydantic import ValidationError

from agent.board import Board
from agent.effects import Ports
from agent.kit import backoff
from agent.kit.errors import GoraeError, leaf
from agent.kit.tasks import apart
from agent.ports import Host
from agent.wire import topics
from agent.wire.bus import Bus, BusDown, Message, Session
from agent.wire.messages import (
    Cursor,
    Event,
    EventBatch,
    HostStatus,
    Listener,
    Online,
    Report,
    Route,
    StackStatus,
    Wire,
)

log = logging.getLogger("gorae.agent")

# Seconds between two rounds of publishing, so that a burst of changes becomes few messages. The first rounds after a
# silence follow fast (5, 10, 20 ms …), up to the full gap, which grows with
# what was told: large stacks take a small share of a processor.
GAP_FIRST, GAP, GAP_PER_TASK = 0.005, 0.03, 0.001
PASSING = 0.1  # seconds; what follows a passing state within that is told with it, and costs a restart no processor
RECONNECT_FIRST, RECONNECT_CAP = 0.05, 1.0  # seconds
LASTING = 5.0  # seconds; a session that lived longer ends a row of failures
HOST_EVERY = 5.0  # seconds between two looks at the host's listeners
BATCH, BATCH_BYTES = 200, 4 << 20  # events; the broker takes 32 MiB
RESEND = 6  # looks at the host after which a batch that nobody took is sent again


class Identity(Protocol):
    """What the reporter must know of the reconciler."""

    instance: str
    journal_id: str
    epoch: int
    version: str

    @property
    def bound(self) -> str | None: ...

    @property
    def reporting(self) -> bool:
        """The store is unknown: the journal's assignments are published for it to adopt."""

    def buried(self, stack: str) -> bool:
        """A tombstone has been obeyed: nothing of the stack is left."""


class Reporter:
    def __init__(self, bus: Bus, ports: Ports, board: Board, host: Host, who: Identity) -> None:
        self._bus, self._journal, self._board, self._host, self._clock = bus, ports.journal, board, host, ports.clock
        self._troubles = ports.troubles
        self._who = who
        self._seq = 0
        self._wake, self._later = asyncio.Event(), asyncio.Event()
        self._dirty: set[str] = set()
        self._cleared: set[str] = set()  # stacks whose topics are to be emptied
        self._reports = False  # reports (or their clearing) are due
        self._reported: set[str] = set()
        self._host_due = self._online_due = True
        self._listeners: tuple[Listener, ...] | None = None
        self._routes: tuple[Route, ...] = ()
        self._acked = 0  # the orchestrator's cursor
        self.acknowledged = 0  # the highest it ever was: an orchestrator's database can go back
        self._sent: int | None = None  # end of the batch that is under way
        self._events_due = False

    # Said by the loops --------------------------------------------------------------------------------------------

    def changed(self, stack: str, passing: bool = False) -> None:
        """`passing`: something is about to follow, and nobody waits for this."""
        self._dirty.add(stack)
        self._cleared.discard(stack)
        (self._later if passing else self._wake).set()

    def events(self, passing: bool = False) -> None:
        self._events_due = True
        (self._later if passing else self._wake).set()

    def clear(self, stack: str) -> None:
        """Nothing more to say of it, ever: empty its retained messages."""
        self._dirty.discard(stack)
        self._cleared.add(stack)
        self._wake.set()

    def host_changed(self) -> None:
        self._host_due = True
        self._wake.set()

    def troubles_changed(self) -> None:
        self._online_due = True
        self._wake.set()

    def identity_changed(self) -> None:
        """Bound, adopted or met an unknown store: host status and reports are due."""
        self._host_due = self._reports = True
        self._wake.set()

    # The session --------------------------------------------------------------------------------------------------

    async def run(self, deliver: Callable[[Message], None]) -> None:
        """For ever. `deliver` gets every message but the cursor; it must not block."""
        clock, failures = self._clock, 0
        will = Message(topics.ONLINE, _bytes(Online(online=False, epoch=self._who.epoch)), retain=True)
        while True:
            began = clock.now()
            try:
                await apart(self._meet(will, deliver))
            except* GoraeError as group:
                if clock.now() - began > LASTING:
                    failures = 0
                failures += 1
                if failures == 1:
                    log.warning("%s; containers are kept running meanwhile", leaf(group))
            await clock.sleep(backoff.delay(failures, first=RECONNECT_FIRST, cap=RECONNECT_CAP))

    async def _meet(self, will: Message, deliver: Callable[[Message], None]) -> None:
        async with self._bus.session(topics.FROM_ORCHESTRATOR, will) as session:
            log.info("connected to the bus")
            await self._converse(session, deliver)

    async def _converse(self, session: Session, deliver: Callable[[Message], None]) -> None:
        self._dirty = set(self._board.assignments)
        self._online_due = self._host_due = self._reports = self._events_due = True
        self._listeners = None
        self._sent = None
        self._wake.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(session, deliver))
            group.create_task(self._speak(session))
            group.create_task(self._remind())
            group.create_task(self._watch_host())

    async def _listen(self, session: Session, deliver: Callable[[Message], None]) -> None:
        async for message in session.messages():
            if message.topic == topics.CURSOR:
                await self._take_cursor(message.payload)
            else:
                deliver(message)
        raise BusDown("cannot read the bus: the session has ended", code="bus-down")

    async def _speak(self, session: Session) -> None:
        rounds = 0
        while True:
            began = self._clock.now()
            await self._wake.wait()
            self._wake.clear()
            if self._clock.now() - began > GAP:
                rounds = 0
            if self._online_due:
                self._online_due = False
                online = Online(online=True, epoch=self._who.epoch, troubles=self._troubles.told())
                await session.publish(topics.ONLINE, _bytes(online), retain=True)
            if self._host_due:
                self._host_due = False
                await session.publish(topics.HOST, _bytes(await self._host_status()), retain=True)
            if self._reports:
                self._reports = False
                await self._publish_reports(session)
            told = await self._publish_statuses(session)
            await self._publish_events(session)
            await self._clock.sleep(min(GAP + GAP_PER_TASK * told, GAP_FIRST * 2.0 ** min(rounds, 10)))
            rounds += 1

    async def _remind(self) -> None:
        while True:
            await self._later.wait()
            self._later.clear()
            await self._clock.sleep(PASSING)
            self._wake.set()

    async def _publish_statuses(self, session: Session) -> int:
        """What is due now; how many tasks were told of. What becomes due meanwhile is the next round's."""
        for stack in sorted(self._cleared):
            await session.publish(topics.status(stack), b"", retain=True)
            self._cleared.discard(stack)
        due, self._dirty = self._dirty, set()
        told = 0
        for stack in sorted(due):
            status = self._status(stack)
            if status is not None:
                told += len(status.tasks)
                await session.publish(topics.status(stack), _bytes(status), retain=True)
        return told

    def statuses(self) -> list[StackStatus]:
        """Of every stack, for whoever asks at the agent's socket."""
        return [status for stack in sorted(self._board.assignments) if (status := self._status(stack)) is not None]

    def _status(self, stack: str) -> StackStatus | None:
        assignment = self._board.assignment(stack)
        if assignment is None:
            return None
        return StackStatus.model_construct(
            store_id=assignment.store_id,
            stack=stack,
            observed_generation=assignment.generation,
            epoch=self._who.epoch,
            seq=self._next(),
            removed=self._who.buried(stack),
            tasks=self._board.statuses(stack),
        )

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    async def _publish_reports(self, session: Session) -> None:
        assignments = self._board.assignments
        if self._who.reporting and self._who.bound is not None:
            for stack, assignment in assignments.items():
                report = Report(bound_store_id=self._who.bound, assignment=assignment)
                await session.publish(topics.report(stack), _bytes(report), retain=True)
                self._reported.add(stack)
            return
        while self._reported:
            await session.publish(topics.report(self._reported.pop()), b"", retain=True)

    def forget_reports(self, stacks: set[str]) -> None:
        """The store is known: reports of these, perhaps left by an earlier run of the agent, are to be emptied."""
        self._reported |= stacks
        self.identity_changed()

    # The host -----------------------------------------------------------------------------------------------------

    async def _host_status(self) -> HostStatus:
        who, capacity = self._who, self._host.capacity()
        self._listeners, self._routes = await self._host.listeners(self._listeners), capacity.routes
        return HostStatus(
            instance=who.instance,
            bound_store_id=who.bound,
            journal_id=who.journal_id,
            epoch=who.epoch,
            seq=self._next(),
            version=who.version,
            boot_id=self._host.boot_id(),
            kernel=capacity.kernel,
            cgroup=capacity.cgroup,
            cpus=capacity.cpus,
            memory=capacity.memory,
            listeners=self._listeners,
            routes=self._routes,
            pool=capacity.pool,
            features=dict(capacity.features),
            stacks={stack: a.generation for stack, a in self._board.assignments.items()},
            acknowledged=self.acknowledged,
        )

    async def _watch_host(self) -> None:
        """Also the safety net of the events: whoever lost a batch says so by its cursor, if it is as it should be."""
        waited, under_way = 0, self._sent
        while True:
            await self._clock.sleep(HOST_EVERY)
            waited = waited + 1 if self._sent is not None and self._sent == under_way else 0
            under_way = self._sent
            if waited >= RESEND:
                waited, self._sent, self._events_due = 0, None, True
                self._wake.set()
            changed = self._host.capacity().routes != self._routes
            known, self._listeners = self._listeners, await self._host.listeners(self._listeners)
            if changed or known != self._listeners:
                self._host_due = True
                self._wake.set()

    # Events -------------------------------------------------------------------------------------------------------

    async def _publish_events(self, session: Session) -> None:
        """One batch at a time: the next follows when the cursor has come back, or in the next session."""
        if self._sent is not None or not self._events_due:
            return
        self._events_due = False
        entries = await self._journal.events_after(self._acked, BATCH)
        if not entries:
            return
        payload = self._batch(entries)
        while len(payload) > BATCH_BYTES and len(entries) > 1:
            entries = entries[: len(entries) // 2]
            payload = self._batch(entries)
        self._sent = entries[-1][0]
        await session.publish(topics.EVENTS, payload)

    def _batch(self, entries: Sequence[tuple[int, Event]]) -> bytes:
        return _bytes(
            EventBatch.model_construct(journal_id=self._who.journal_id, after=self._acked, events=tuple(entries))
        )

    async def _take_cursor(self, payload: bytes) -> None:
        try:
            cursor = Cursor.model_validate_json(payload)
        except ValidationError:
            log.warning("cannot read the cursor: %r", payload[:100])
            return
        if cursor.journal_id != self._who.journal_id:
            return
        self._acked = cursor.seq
        self._sent = None
        try:
            await self._journal.forget_events(cursor.seq)
            self.acknowledged = max(self.acknowledged, cursor.seq)
        except GoraeError as error:
            log.warning("%s; the events are kept", error)
        self._events_due = True
        self._wake.set()


async def excuse(bus: Bus, ports: Ports) -> None:
    """For an agent that has not begun, because of its troubles: says so, until it is cancelled."""
    away = Online(online=False, epoch=0)
    failures = 0
    while True:
        try:
            async with bus.session((), Message(topics.ONLINE, _bytes(away), retain=True)) as session:
                failures = 0
                said = away.model_copy(update={"troubles": ports.troubles.told()})
                await session.publish(topics.ONLINE, _bytes(said), retain=True)
                async for _ in session.messages():
                    pass  # to the end of the session
        except GoraeError:
            pass  # no broker either, which nobody could be told
        failures += 1
        await ports.clock.sleep(backoff.delay(failures, first=RECONNECT_FIRST, cap=RECONNECT_CAP))


def _bytes(message: Wire) -> bytes:
    return message.model_dump_json().encode()
