"""Whose word the agent obeys, and what was said last: the orchestrator's identity and the assignments on offer.

It keeps the newest message per stack and hands on what is to be obeyed. It never applies anything: from a store that is
not known everything is kept aside, until that store has adopted what runs, or an operator says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from agent.board import Board
from agent.decide import accept
from agent.effects import Ports
from agent.events import event
from agent.kit.errors import UserError
from agent.ports import Change
from agent.reporter import Reporter
from agent.wire import topics
from agent.wire.bus import Message
from agent.wire.messages import Assignment, Store

log = logging.getLogger("gorae.agent")

Obey = Callable[[Assignment, Assignment | None], Awaitable[None]]


class Intake:
    def __init__(
        self, ports: Ports, board: Board, reporter: Reporter, bound: str | None, wake: Callable[[], None]
    ) -> None:
        self.bound = bound  # the store that is obeyed; None: none yet, the first one wins
        self.emptied: set[str] = set()  # stacks whose topic was cleared
        self._ports, self._board, self._reporter, self._wake = ports, board, reporter, wake
        self._store: Store | None = None
        self._store_due = False
        self._offers: dict[str, bytes] = {}  # stack → newest payload not yet dealt with
        self._kept: dict[str, bytes] = {}  # stack → newest payload of a store that is not known
        self._refused: dict[str, bytes] = {}  # stack → payload, to say so once

    @property
    def reporting(self) -> bool:
        return self._store is not None and self.bound is not None and self._store.store_id != self.bound

    def deliver(self, message: Message) -> None:
        """Only remembers, so that it can be called from anywhere."""
        if message.topic == topics.STORE:
            self._take_store(message.payload)
        elif message.topic.startswith(topics.ASSIGNMENTS[:-1]):
            self._offers[topics.stack_of(message.topic)] = message.payload
        self._wake()

    def _take_store(self, payload: bytes) -> None:
        try:
            self._store = Store.model_validate_json(payload)
        except ValueError as error:
            if payload:
                log.error("cannot read the orchestrator's identity, it is not obeyed: %s", error)
            return
        self._store_due = True

    async def work(self, obey: Obey) -> None:
        """Everything that is on offer. Temporary: the journal cannot be written; what was on offer stays so."""
        await self._settle_store()
        for stack in sorted(self._offers):
            payload = self._offers[stack]
            await self._consider(stack, payload, obey)
            if self._offers.get(stack) is payload:
                del self._offers[stack]
            else:
                self._wake()  # a newer one came meanwhile

    # The store ----------------------------------------------------------------------------------------------------

    async def _settle_store(self) -> None:
        store = self._store
        if store is None or not self._store_due:
            return
        if self.bound is None:
            await self.bind(store.store_id, "bound to the first orchestrator it met")
        elif store.store_id == self.bound:
            self._reporter.forget_reports(set(self._board.assignments))
        elif self.bound in store.adopts:
            await self.bind(store.store_id, f"store {store.store_id} has adopted what runs")
        else:
            log.warning("store %s is not known; what runs is kept and reported to it", store.store_id)
            self._reporter.identity_changed()
        self._store_due = self._store is not store

    async def bind(self, store_id: str, why: str) -> None:
        told = event(self._ports, "agent.bound", why, evidence={"store": store_id, "before": self.bound})
        await self._ports.journal.record(Change(bound_store_id=store_id, events=[told]))
        self.bound = store_id
        log.info("%s: %s", store_id, why)
        self._offers = {**self._kept, **self._offers}
        self._kept.clear()
        self._reporter.events()
        self._reporter.forget_reports(set(self._board.assignments))
        self._wake()

    # Assignments --------------------------------------------------------------------------------------------------

    async def _consider(self, stack: str, payload: bytes, obey: Obey) -> None:
        if not payload:
            self._kept.pop(stack, None)
            self.emptied.add(stack)
            return
        self.emptied.discard(stack)
        try:
            offered = accept.parse(payload, stack)
            held = self._board.assignment(stack)
            verdict = accept.judge(offered, self.bound, held)
            if verdict == "accept":
                await obey(offered, held)
        except UserError as error:
            await self._refuse(stack, payload, error)
            return
        if verdict == "unknown-store":
            self._kept[stack] = payload
        elif verdict == "stale" and held is not None and offered.generation < held.generation:
            log.info("%s: generation %d is older than %d", stack, offered.generation, held.generation)

    async def _refuse(self, stack: str, payload: bytes, error: UserError) -> None:
        if self._refused.get(stack) == payload:
            return
        told = event(self._ports, "stack.refused", error.message, stack=stack, reason=error.code)
        await self._ports.journal.record(Change(events=[told]))
        self._refused[stack] = payload
        log.error("%s", error)
        self._reporter.events()
