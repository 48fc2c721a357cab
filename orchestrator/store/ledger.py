"""What the orchestrator knows, in memory, never ahead of the disk: everyone reads here, and writes through commit().

`changing` serialises decisions: whoever reads in order to write holds it, so that admission and generations are never
computed from what another change is about to replace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.kit.clock import Clock
from agent.kit.errors import GoraeError
from agent.kit.ids import Ulids
from agent.kit.troubles import Trouble, Troubles
from agent.wire.messages import Event, HostStatus, StackStatus
from orchestrator.decide.records import Counter, StackRecord
from orchestrator.store.port import Change, Loaded, Store

BACKLOG = 10_000  # events a follower may lag behind before it is dropped


class Ledger:
    """`bound`: the agent is known to obey this store, so that changes may be accepted. `online`: as far as we know.
    `drained`: since when (Unix seconds) the host is; 0.0: it is not."""

    def __init__(self, store: Store, loaded: Loaded, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.identity = loaded.identity
        self.stacks: dict[str, StackRecord] = loaded.stacks
        self.counters: dict[str, Counter] = loaded.counters
        self.statuses: dict[str, StackStatus] = loaded.statuses
        self.cursors: dict[str, int] = loaded.cursors
        self.host: HostStatus | None = loaded.host
        self.drained = loaded.drained
        self.bound = False
        self.online = False
        self.online_since = clock.wall()
        self.told: tuple[Trouble, ...] = ()  # what the agent says holds it up
        self.troubles = Troubles()  # what holds up our own loops
        self.troubles.changed = self.ring
        self.changing = asyncio.Lock()
        self.closed = False
        self._ulids = Ulids(loaded.last_event)
        self._committing = asyncio.Lock()
        self._bells: set[asyncio.Event] = set()
        self._followers: set[asyncio.Queue[Event | None]] = set()

    @classmethod
    async def open(cls, store: Store, clock: Clock) -> Ledger:
        return cls(store, await store.load(), clock)

    def event(self, kind: str, message: str, **fields: Any) -> Event:
        """A new event of the orchestrator; it exists once it is committed."""
        at = self.clock.wall()
        return Event(
            id=self._ulids.next(at),
            at=at,
            monotonic=self.clock.now(),
            source="orchestrator",
            kind=kind,
            message=message,
            **fields,
        )

    async def commit(self, change: Change) -> None:
        """Store, then remember. A cancelled caller still waits for the disk: a transaction whose end nobody saw would
        leave this memory behind it."""
        writing = asyncio.create_task(self._commit(change))
        cancelled = False
        while not writing.done():
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                cancelled = True
            except GoraeError:
                break
        if cancelled:
            writing.exception()
            raise asyncio.CancelledError
        writing.result()

    async def _commit(self, change: Change) -> None:
        async with self._committing:
            await self.store.commit(change)
            self._remember(change)
        self.ring()

    def _remember(self, change: Change) -> None:
        self.identity = change.identity or self.identity
        self.drained = self.drained if change.drained is None else change.drained
        for revision in change.revisions:
            self._count(revision.stack, 0, revision.number)
        for name, record in change.stacks.items():
            if record is None:
                self.stacks.pop(name, None)
                self.statuses.pop(name, None)
            else:
                self.stacks[name] = record
                self._count(name, record.generation, record.revision)
        if change.cursor is not None:
            self.cursors[change.cursor.journal_id] = change.cursor.seq
        for event in change.events:
            self._tell(event)

    def _count(self, stack: str, generation: int, revision: int) -> None:
        known = self.counters.get(stack, Counter())
        self.counters[stack] = Counter(max(known.generation, generation), max(known.revision, revision))

    # What the agent said: state that comes again, so memory may be ahead of the disk ------------------------------

    def observe(self, status: StackStatus) -> None:
        self.statuses[status.stack] = status
        self.ring()

    def set_online(self, online: bool, troubles: tuple[Trouble, ...] = ()) -> None:
        if online != self.online:
            self.online_since = self.clock.wall()
        if (online, troubles) != (self.online, self.told):
            self.online, self.told = online, troubles
            self.ring()

    # Waking ----------------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        for bell in self._bells:
            bell.set()

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change from now on; the listener clears it."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    @contextmanager
    def follow(self) -> Iterator[asyncio.Queue[Event | None]]:
        """Every event committed from now on; None ends it (shutting down, or the follower is too slow)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

    def _tell(self, event: Event) -> None:
        for queue in list(self._followers):
            if queue.qsize() >= BACKLOG:
                self._followers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def close(self) -> None:
        """End every stream."""
        self.closed = True
        for queue in self._followers:
            queue.put_nowait(None)
        self.ring()
