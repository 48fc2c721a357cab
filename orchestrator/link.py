"""The bus side: assignments out, statuses and events in, and the question whose assignments the agent obeys.

A session begins with everything published again, so a lost broker loses nothing. Must not decide what should run: it
carries the ledger's records, and when decide.identity says so, takes over what the agent reports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial

from pydantic import ValidationError

from agent.kit.backoff import delay
from agent.kit.errors import Temporary, leaf
from agent.kit.tasks import apart
from agent.wire import topics
from agent.wire.bus import Bus, BusDown, Message, PublishDenied, Session
from agent.wire.messages import (
    WIRE_VERSION,
    Cursor,
    EventBatch,
    HostStatus,
    Online,
    Report,
    StackStatus,
    Store,
    Wire,
)
from orchestrator import takeover
from orchestrator.decide.identity import Seen, Wait
from orchestrator.store.ledger import Ledger
from orchestrator.store.port import Change

log = logging.getLogger(__name__)

KEEP_STATUS = 1.0  # seconds between two writes of statuses: they come again, the disk is for when the agent is away
_FIRST, _CAP = 0.05, 1.0  # seconds, backoff between sessions
_LASTING = 5.0  # seconds: a session that lived longer ends a row of failures

_MESSAGES: dict[str, type[Wire]] = {topics.ONLINE: Online, topics.HOST: HostStatus, topics.EVENTS: EventBatch}


class Link:
    """`run` for life. One Ledger, one bus."""

    def __init__(self, ledger: Ledger, bus: Bus) -> None:
        self._ledger = ledger
        self._bus = bus
        self._seen = Seen()
        self._gone: set[str] = set()  # stacks whose assignment is to be cleared on the bus
        self._asked = 0  # raised to publish the cursor again, unchanged
        self._untaken = False  # events came that could not be stored
        self._dirty: dict[str, StackStatus] = {}
        self._last: dict[str, StackStatus] = {}  # acknowledgements that could not be stored
        self._status_came = asyncio.Event()
        self._waiting = ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sessions(), name="link sessions")
            group.create_task(self._keep_statuses(), name="link statuses")

    async def _sessions(self) -> None:
        clock, failures = self._ledger.clock, 0
        while True:
            began = clock.now()
            try:
                await apart(self._meet(again=failures > 0))
            except* (PublishDenied, Temporary) as group:
                if clock.now() - began > _LASTING:
                    failures = 0
                error = leaf(group)
                if failures == 0:
                    log.warning("bus session ended: %s", error)
                if isinstance(error, Temporary) and not isinstance(error, BusDown):
                    self._ledger.troubles.found("session", error, self._ledger.clock.wall())
            failures += 1
            self._ledger.set_online(False)
            await clock.sleep(delay(failures, first=_FIRST, cap=_CAP))

    async def _meet(self, *, again: bool) -> None:
        async with self._bus.session(topics.FROM_AGENT) as session:
            if again:
                log.info("the bus is there")
            await self._session(session)

    async def _session(self, session: Session) -> None:
        self._seen = Seen()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish(session), name="link publish")
            group.create_task(self._consume(session), name="link consume")

    # Out -------------------------------------------------------------------------------------------------------------

    async def _publish(self, session: Session) -> None:
        """Level-triggered: at each change, whatever differs from what this session has published."""
        sent: dict[str, object] = {}
        with self._ledger.listen() as bell:
            while True:
                bell.clear()
                for topic, version, make in self._outgoing():
                    if sent.get(topic) != version:
                        await session.publish(topic, make().model_dump_json().encode(), retain=True)
                        sent[topic] = version
                for stack in sorted(self._gone):
                    if stack not in self._ledger.stacks:
                        await session.publish(topics.assignment(stack), b"", retain=True)
                        sent.pop(topics.assignment(stack), None)
                    self._gone.discard(stack)
                await bell.wait()

    def _outgoing(self) -> Iterator[tuple[str, object, Callable[[], Wire]]]:
        """(topic, version, message); a message is built only when its version is new."""
        ledger, identity = self._ledger, self._ledger.identity
        yield topics.STORE, identity, lambda: Store(store_id=identity.store_id, adopts=identity.adopts)
        if ledger.host is not None:
            journal = ledger.host.journal_id
            seq = ledger.cursors.get(journal, 0)
            yield topics.CURSOR, (journal, seq, self._asked), lambda: Cursor(journal_id=journal, seq=seq)
        if not ledger.bound or self._waiting:
            return
        for name, record in list(ledger.stacks.items()):
            if not record.held:
                version = (identity.store_id, record.generation)
                told = record.drained() if ledger.drained else record
                yield topics.assignment(name), version, partial(told.assignment, identity.store_id)

    # In --------------------------------------------------------------------------------------------------------------

    async def _consume(self, session: Session) -> None:
        async for message in session.messages():
            await self._take(message)

    async def _take(self, message: Message) -> None:
        if not message.payload:
            if message.topic.startswith(topics.REPORTS[:-1]):
                self._seen.reports.pop(topics.stack_of(message.topic), None)
            return
        try:
            value = _parse(message)
        except (ValidationError, ValueError) as error:
            log.error("cannot read a message on %s: %s", message.topic, error)
            return
        if isinstance(value, EventBatch):
            await self._events(value)
            return
        if isinstance(value, Online):
            if self._seen.online is not None and value.epoch < self._seen.online.epoch:
                self._seen.statuses.clear()  # a new journal counts from 1 again
            self._seen.online = value
        elif isinstance(value, HostStatus):
            await self._host(value)
        elif isinstance(value, Report):
            self._seen.reports[value.assignment.stack] = value
        elif isinstance(value, StackStatus):
            await self._status(value)
        await self._settle()
        online, host = self._seen.online, self._seen.host
        # Its host message is the sign that an agent has begun; until then what we know is its predecessor's.
        self._ledger.set_online(
            online is not None and online.online and host is not None and host.epoch == online.epoch,
            online.troubles if online is not None else (),
        )
        self._ledger.troubles.over("session")

    async def _host(self, host: HostStatus) -> None:
        self._seen.host = host
        known = self._ledger.host
        if known is None or known.journal_id != host.journal_id:
            # Another journal: what the agent said before it, and its count of epochs, hold no more.
            await self._ledger.commit(Change(host=host, forget_statuses=True))
            for statuses in (self._seen.statuses, self._ledger.statuses):
                for stack in [name for name, status in statuses.items() if status.epoch != host.epoch]:
                    del statuses[stack]
        self._ledger.host = host
        self._status_came.set()
        self._ledger.ring()

    async def _status(self, status: StackStatus) -> None:
        """The first of a session is the newest there is, whatever epoch an older journal had counted to; after it only
        newer ones are taken."""
        last = self._seen.statuses.get(status.stack)
        if last is not None and (status.epoch, status.seq) <= (last.epoch, last.seq):
            return
        self._seen.statuses[status.stack] = status
        identity = self._ledger.identity
        if status.store_id != identity.store_id and status.store_id not in identity.adopts:
            return
        record = self._ledger.stacks.get(status.stack)
        if record is None or record.held:
            if status.removed:
                self._clear(status.stack)
        elif record.removed and status.removed and status.store_id == identity.store_id:
            try:
                await self._acknowledged(status)
            except Temporary:
                self._last[status.stack] = status
                self._status_came.set()
        else:
            self._ledger.observe(status)
            self._dirty[status.stack] = status
            self._status_came.set()

    async def _acknowledged(self, status: StackStatus) -> None:
        """The agent has nothing left of the stack: forget it, keep its revisions and events."""
        ledger = self._ledger
        async with ledger.changing:
            record = ledger.stacks.get(status.stack)
            if record is None or not record.removed or status.observed_generation < record.generation:
                return
            event = ledger.event("stack.removed", "nothing of it is left", stack=record.name, cause=record.cause)
            await ledger.commit(Change(stacks={record.name: None}, events=[event]))
        self._dirty.pop(status.stack, None)
        self._clear(status.stack)

    def _clear(self, stack: str) -> None:
        self._gone.add(stack)
        self._ledger.ring()

    async def _events(self, batch: EventBatch) -> None:
        """Each event once and in order: what comes after a hole is refused, by publishing the cursor again. What cannot
        be stored (a full disk) is asked for again once the disk takes something; the session goes on meanwhile."""
        have = self._ledger.cursors.get(batch.journal_id, 0)
        fresh = [(seq, event) for seq, event in batch.events if seq > have] if batch.after <= have else []
        if fresh:
            cursor = Cursor(journal_id=batch.journal_id, seq=fresh[-1][0])
            try:
                await self._ledger.commit(Change(events=[event for _, event in fresh], cursor=cursor))
            except Temporary:
                self._untaken = True
                self._status_came.set()
        else:
            self._ask()

    def _ask(self) -> None:
        self._asked += 1
        self._ledger.ring()

    async def _settle(self) -> None:
        """Until the agent's answer is complete, no assignment is published."""
        ledger = self._ledger
        verdict = await takeover.settle(ledger, self._seen)
        if isinstance(verdict, Wait):
            if verdict.why != self._waiting:
                log.info("waiting: %s", verdict.why)
            self._waiting = verdict.why
        elif self._waiting or not ledger.bound:
            self._waiting = ""
            ledger.bound = True
            ledger.ring()

    # Statuses on disk ------------------------------------------------------------------------------------------------

    async def _keep_statuses(self) -> None:
        """Write-behind: at most once in KEEP_STATUS, the newest of each stack."""
        failing = False
        while True:
            await self._status_came.wait()
            await self._ledger.clock.sleep(KEEP_STATUS)
            self._status_came.clear()
            statuses, self._dirty = self._dirty, {}
            try:
                await self._ledger.commit(Change(statuses=statuses, host=self._ledger.host))
                for stack, status in list(self._last.items()):
                    await self._acknowledged(status)
                    del self._last[stack]
                failing = False
                self._ledger.troubles.over("statuses")
                if self._untaken:
                    self._untaken = False
                    self._ask()
            except Temporary as error:
                self._dirty = statuses | self._dirty
                self._status_came.set()
                self._ledger.troubles.found("statuses", error, self._ledger.clock.wall())
                if not failing:
                    log.warning("cannot keep statuses and events for now: %s", error)
                failing = True


def _parse(message: Message) -> Wire:
    """ValidationError: not what the topic carries. ValueError: another wire version."""
    kind = _MESSAGES.get(message.topic)
    if kind is None:
        kind = Report if message.topic.startswith(topics.REPORTS[:-1]) else StackStatus
    value = kind.model_validate_json(message.payload)
    version = getattr(value, "wire_version", WIRE_VERSION)
    if version != WIRE_VERSION:
        raise ValueError(f"the agent speaks wire version {version}, the orchestrator {WIRE_VERSION}")
    return value
