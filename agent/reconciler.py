"""The host loop: remember, look, adopt, sweep; then obey assignments and look again from time to time.

It owns the workers and the journal's assignments. It never restarts what runs, never takes absence for an order, and
applies nothing from a store it does not know. What a single task needs is its worker's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from agent import effects
from agent.board import Board
from agent.decide import accept
from agent.decide.diff import Observed, adopted, diff, free_index, observed
from agent.decide.record import TaskRecord, dump, load
from agent.effects import Ports
from agent.kit import backoff
from agent.kit.errors import GoraeError, Temporary, UserError
from agent.kit.pools import TASKS, Slice
from agent.ports import Allocation, Change, Host, JournalState
from agent.reporter import Reporter
from agent.wire import topics
from agent.wire.bus import Bus, Message
from agent.wire.messages import Assignment, Event, PublishedPort, StackStatus, Store, Task
from agent.worker import Worker, persist

log = logging.getLogger("gorae.agent")

LOOK_EVERY = 30.0  # seconds; the safety net under what should have been notified


class Reconciler:
    """`run` is the agent's life. Its containers outlive it."""

    def __init__(self, ports: Ports, host: Host, bus: Bus, slice_: Slice, *, version: str = "") -> None:
        self.instance = ports.instance
        self.version = version
        self.journal_id = ""
        self.epoch = 0
        self._ports, self._host, self._bus, self._slice = ports, host, bus, slice_
        self._bound: str | None = None
        self._store: Store | None = None
        self._offers: dict[str, bytes] = {}  # stack → newest payload not yet dealt with
        self._kept: dict[str, bytes] = {}  # stack → newest payload of a store that is not known (yet)
        self._refused: dict[str, bytes] = {}
        self._emptied: set[str] = set()  # tombstones whose topic was cleared
        self._buried: set[str] = set()
        self._store_due = False
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()  # sweeping and obeying exclude each other
        self._workers: dict[str, Worker] = {}
        self._reserved: set[int] = set()  # allocation indexes of strangers
        self._next_index = 0
        self._closed = False
        self.ready = asyncio.Event()  # what ran is adopted

    # Identity, for the reporter -----------------------------------------------------------------------------------

    @property
    def bound(self) -> str | None:
        return self._bound

    @property
    def reporting(self) -> bool:
        return self._store is not None and self._bound is not None and self._store.store_id != self._bound

    def buried(self, stack: str) -> bool:
        return stack in self._buried

    # Life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        state = await self._remember()
        self.journal_id, self.epoch, self._bound = state.journal_id, state.epoch, state.bound_store_id
        self.board = Board(self._host.run_id())
        self.board.wake = self._wake_worker
        self.reporter = Reporter(self._bus, self._ports.journal, self.board, self._host, self._ports.clock, self)
        records = self._restore(state)
        seen = await self._look()
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._begin(records, seen)
            self.ready.set()
            group.create_task(self.reporter.run(self.deliver), name="reporter")
            group.create_task(self._look_again(), name="look again")
            await self._serve()

    async def _remember(self) -> JournalState:
        failures = 0
        while True:
            try:
                return await self._ports.journal.load()
            except Temporary as error:
                failures += 1
                if failures == 1:
                    log.error("%s", error)
                await self._ports.clock.sleep(backoff.delay(failures, first=0.1, cap=5.0))

    def _restore(self, state: JournalState) -> dict[str, TaskRecord]:
        """What the journal says; a document that cannot be read is worth no more than a lost one."""
        records: dict[str, TaskRecord] = {}
        for task, document in state.records.items():
            try:
                records[task] = load(document)
            except ValueError as error:
                log.error("cannot read the record of %s, it is taken for lost: %s", task, error)
        for record in records.values():
            self.board.put(record)
        for stack, document in state.assignments.items():
            try:
                self.board.assign(Assignment.model_validate_json(document))
            except ValueError as error:
                log.error("cannot read the assignment of %s, it is taken for lost: %s", stack, error)
        return records

    async def _look(self) -> Observed:
        """Everything of this instance on the host; again until every part could be listed."""
        ports, failures = self._ports, 0
        while True:
            try:
                return observed(
                    await ports.runtime.list(),
                    sandboxes=await ports.sandboxes.list(),
                    rootfs=await ports.rootfs.list(),
                    mounts=await ports.volumes.mounted(),
                    network=await ports.network.list(),
                )
            except GoraeError as error:
                failures += 1
                if failures == 1:
                    log.error("cannot look at the host: %s", error)
                await ports.clock.sleep(backoff.delay(failures, first=0.2, cap=10.0))

    async def _begin(self, records: dict[str, TaskRecord], seen: Observed) -> None:
        """Records for what is assigned but not remembered, then a worker for each task; orphans go."""
        missing = [t for a in self.board.assignments.values() for t in self._current(a) if t.id not in records]
        strangers = self._reserve(seen)
        events = [self._event("agent.started", message=f"agent {self.version} started (epoch {self.epoch})")]
        made, failed = self._make_records(missing, self._stacks_of(missing), seen)
        for record in made:
            self.board.put(record)
        for assignment in self.board.assignments.values():
            self.board.assign(assignment)  # names hold the new addresses
        running = sum(1 for r in self.board.records.values() if r.state == "running")
        log.info("started: %d tasks known, %d running, %d of unknown stacks", len(records), running, len(strangers))
        await persist(self._ports, Change(records={r.id: dump(r) for r in made}, events=[*events, *failed]))
        for record in list(self.board.records.values()):
            self._employ(record, seen)
        await self._sweep(seen)
        await self._bury()

    def _current(self, assignment: Assignment) -> tuple[Task, ...]:
        return () if assignment.removed else assignment.tasks

    def _stacks_of(self, tasks: list[Task]) -> dict[str, str]:
        wanted = {task.id for task in tasks}
        return {t.id: a.stack for a in self.board.assignments.values() for t in self._current(a) if t.id in wanted}

    # Allocation -----------------------------------------------------------------------------------------------------

    def _reserve(self, seen: Observed) -> set[str]:
        """The allocations of what runs without being known stay theirs."""
        unknown = (set(seen.attempts) | seen.parts) - set(self.board.records)
        self._reserved = {index for task in unknown if (index := self._host.trace(task)[1]) is not None}
        return unknown

    def _make_records(
        self, tasks: list[Task], stacks: dict[str, str], seen: Observed, cause: str | None = None
    ) -> tuple[list[TaskRecord], list[Event]]:
        """Records with an allocation each; what cannot be given one gets an event, and is tried again."""
        taken = {r.allocation.index for r in self.board.records.values()} | self._reserved
        made: list[TaskRecord] = []
        events: list[Event] = []
        for task in tasks:
            known = self._host.trace(task.id)[1] if task.id in seen.parts or task.id in seen.attempts else None
            index = known if known is not None else free_index(taken, self._next_index)
            try:
                if index is None:
                    raise UserError(
                        f"cannot start {task.service}.{task.slot}: all {TASKS} addresses of this instance are in use",
                        code="no-address",
                        hint="remove tasks",
                    )
                allocation = self._allocation(task, index, made)
            except GoraeError as error:
                log.error("%s", error)
                events.append(self._event("task.failed", stacks[task.id], error.message, error.code, task))
                continue
            if known is None:
                self._next_index = (index + 1) % TASKS
            taken.add(index)
            record = TaskRecord(
                id=task.id,
                stack=stacks[task.id],
                service=task.service,
                slot=task.slot,
                template=task.template,
                since=self._ports.clock.wall(),
                allocation=allocation,
                restart_request=task.restart_request,
                cause=cause,
            )
            now = self._ports.clock.wall()
            made.append(adopted(record, seen.attempts.get(task.id, ()), self.board.boot, now) or record)
        return made, events

    def _allocation(self, task: Task, index: int, made: list[TaskRecord]) -> Allocation:
        others = [*self.board.records.values(), *made]
        taken = {(p.protocol, p.published) for r in others for p in r.allocation.ports}
        ports: list[PublishedPort] = []
        for port in task.container.ports:
            number = port.published or self._host.free_port(
                port, frozenset(published for protocol, published in taken if protocol == port.protocol)
            )
            taken.add((port.protocol, number))
            ports.append(
                PublishedPort(target=port.target, published=number, protocol=port.protocol, host_ip=port.host_ip)
            )
        return Allocation(index, self._slice.address(index), self._slice.uid_base(index), tuple(ports))

    # Workers ----------------------------------------------------------------------------------------------------

    def _employ(self, record: TaskRecord, seen: Observed) -> None:
        worker = Worker(
            self._ports,
            self.board,
            record,
            seen.seen(record.id),
            changed=self.reporter.changed,
            events=self.reporter.events,
        )
        self._workers[record.id] = worker
        self._group.create_task(self._oversee(worker, record), name=f"task {record.id}")

    async def _oversee(self, worker: Worker, record: TaskRecord) -> None:
        """A bug met by one task must not end the care for all others: it is logged whole, and that worker begins
        again from what the journal and the host say."""
        failures = 0
        while True:
            try:
                await worker.run()
                break
            except* Exception:
                failures += 1
                log.exception("bug: the worker of %s failed; it begins again", record.id)
            await self._ports.clock.sleep(backoff.delay(failures, first=1.0, cap=60.0))
            seen = await self._look()
            known = self.board.records.get(record.id, record)
            worker = self._workers[record.id] = Worker(
                self._ports,
                self.board,
                known,
                seen.seen(record.id),
                changed=self.reporter.changed,
                events=self.reporter.events,
            )
        self.board.drop(record.id)
        del self._workers[record.id]
        self.reporter.changed(record.stack)
        self._wake.set()

    def _wake_worker(self, task: str) -> None:
        worker = self._workers.get(task)
        if worker is not None:
            worker.wake()

    # Messages ---------------------------------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """From the reporter; only remembers what is newest."""
        if message.topic == topics.STORE:
            self._take_store(message.payload)
        elif message.topic.startswith(topics.ASSIGNMENTS[:-1]):
            self._offers[topics.stack_of(message.topic)] = message.payload
        self._wake.set()

    def _take_store(self, payload: bytes) -> None:
        try:
            store = Store.model_validate_json(payload)
        except ValueError as error:
            if payload:
                log.error("cannot read the orchestrator's identity, it is not obeyed: %s", error)
            return
        self._store, self._store_due = store, True

    async def adopt(self, store_id: str) -> None:
        """An operator's word: obey this store from now on."""
        await self._bind(store_id, "bound by an operator")

    async def _serve(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                async with self._turn:
                    await self._settle_store()
                    for stack in sorted(self._offers):
                        await self._consider(stack, self._offers[stack])
                    await self._make_missing()
                    await self._bury()
                failures = 0
            except Temporary as error:
                failures += 1
                if failures == 1:
                    log.error("%s; it is tried again", error)
                self._wake.set()
                await self._ports.clock.sleep(backoff.delay(failures, first=0.1, cap=5.0))

    async def _settle_store(self) -> None:
        store = self._store
        if store is None or not self._store_due:
            return
        if self._bound is None:
            await self._bind(store.store_id, "bound to the first orchestrator it met")
        elif store.store_id == self._bound:
            self.reporter.forget_reports(set(self.board.assignments))
        elif self._bound in store.adopts:
            await self._bind(store.store_id, f"store {store.store_id} has adopted what runs")
        else:
            log.warning("store %s is not known; what runs is kept and reported to it", store.store_id)
            self.reporter.identity_changed()
        self._store_due = False

    async def _bind(self, store_id: str, why: str) -> None:
        event = self._event("agent.bound", message=why, evidence={"store": store_id, "before": self._bound})
        await self._ports.journal.record(Change(bound_store_id=store_id, events=[event]))
        self._bound = store_id
        log.info("%s: %s", store_id, why)
        self._offers = {**self._kept, **self._offers}
        self._kept.clear()
        self.reporter.events()
        self.reporter.forget_reports(set(self.board.assignments))
        self._wake.set()

    async def _consider(self, stack: str, payload: bytes) -> None:
        """Obey it, keep it for later, or drop it. Temporary: it stays offered."""
        if not payload:
            self._kept.pop(stack, None)
            self._emptied.add(stack)
        else:
            self._emptied.discard(stack)
            try:
                offered = accept.parse(payload, stack)
            except UserError as error:
                await self._refuse(stack, payload, error)
            else:
                held = self.board.assignment(stack)
                verdict = accept.judge(offered, self._bound, held)
                if verdict == "accept":
                    await self._obey(offered, held)
                elif verdict == "unknown-store":
                    self._kept[stack] = payload
                elif held is not None and offered.generation < held.generation:
                    log.info("%s: generation %d is older than %d", stack, offered.generation, held.generation)
        if self._offers.get(stack) is payload:
            del self._offers[stack]
        else:
            self._wake.set()

    async def _refuse(self, stack: str, payload: bytes, error: UserError) -> None:
        if self._refused.get(stack) == payload:
            return
        event = self._event("stack.refused", stack, error.message, error.code)
        await self._ports.journal.record(Change(events=[event]))
        self._refused[stack] = payload
        log.error("%s", error)
        self.reporter.events()

    async def _obey(self, offered: Assignment, before: Assignment | None) -> None:
        """Durable first, with the records of its new tasks; then told to the workers."""
        stack = offered.stack
        held = accept.held_after(offered, before)
        tasks = {task.id: task for task in self._current(held)}
        foreign = [i for i in tasks if i in self.board.records and self.board.records[i].stack != stack]
        if foreign:
            await self._refuse(
                stack,
                offered.model_dump_json().encode(),
                UserError(
                    f"cannot obey the assignment of {stack}: task {foreign[0]} belongs to another stack",
                    code="bad-assignment",
                ),
            )
            return
        new = [task for task in tasks.values() if task.id not in self.board.records]
        seen = await self._look() if self._reserved else Observed()
        verb = "is to be removed" if held.removed else f"has {len(tasks)} tasks"
        event = self._event(
            "stack.accepted",
            stack,
            f"generation {held.generation} accepted: {stack} {verb}",
            evidence={"generation": held.generation, "revision": held.revision},
            cause=held.cause,
        )
        made, failed = self._make_records(new, dict.fromkeys(tasks, stack), seen, event.id)
        change = Change(
            assignments={stack: held.model_dump_json()},
            records={record.id: dump(record) for record in made},
            events=[event, *failed],
            bound_store_id=offered.store_id if self._bound is None else None,
        )
        await self._ports.journal.record(change)
        self._bound = self._bound or offered.store_id
        log.info("%s: generation %d accepted, %d tasks", stack, held.generation, len(tasks))
        self._buried.discard(stack)
        for record in made:
            self.board.put(record)
        self.board.assign(held)
        for record in made:
            self._employ(record, seen)
        for record in self.board.of(stack):
            if record.id in self._workers:
                self._workers[record.id].assign(self.board.task(record))
        if self._reserved:
            await self._sweep(seen)
        self.reporter.changed(stack)
        self.reporter.events()
        self.reporter.host_changed()

    async def _make_missing(self) -> None:
        """Assigned tasks without a record: no address was free, or the id's removal had to end first."""
        missing = [
            task
            for assignment in self.board.assignments.values()
            for task in self._current(assignment)
            if task.id not in self.board.records
        ]
        if not missing:
            return
        made, _ = self._make_records(missing, self._stacks_of(missing), Observed())
        if not made:
            return
        await self._ports.journal.record(Change(records={record.id: dump(record) for record in made}))
        for record in made:
            self.board.put(record)
        for stack in {record.stack for record in made}:
            self.board.assign(self.board.assignments[stack])
            self.reporter.changed(stack)
        for record in made:
            self._employ(record, Observed())

    # Endings ----------------------------------------------------------------------------------------------------

    async def _bury(self) -> None:
        """Tombstones whose last task is gone: volumes if asked, logs, then the acknowledgement."""
        for stack, assignment in self.board.assignments.items():
            if not assignment.removed or self.board.of(stack):
                continue
            if stack not in self._buried:
                await self._remove_rest(stack, assignment)
                self._buried.add(stack)
                self.reporter.changed(stack)
            if stack in self._emptied:
                await self._ports.journal.record(Change(assignments={stack: None}))
                self.board.forget(stack)
                self._emptied.discard(stack)
                self._buried.discard(stack)
                self.reporter.clear(stack)
                self.reporter.host_changed()
        if self.board.records:
            self._closed = False
        elif not self._closed and not self._reserved:
            try:
                await self._ports.network.close()
            except GoraeError as error:
                log.warning("%s", error)
                return
            self._closed = True

    async def _remove_rest(self, stack: str, assignment: Assignment) -> None:
        ports = self._ports
        names = accept.volumes(assignment) if assignment.remove_volumes else ()
        used = {
            m.source
            for other in self.board.assignments.values()
            for task in self._current(other)
            for m in task.container.mounts
            if m.kind == "volume"
        }
        try:
            await ports.volumes.remove([name for name in names if name not in used])
            await ports.logs.remove(stack)
        except GoraeError as error:
            raise Temporary(error.message, code=error.code, hint=error.hint) from error

    async def _look_again(self) -> None:
        while True:
            await self._ports.clock.sleep(LOOK_EVERY)
            steps = {task: worker.steps for task, worker in self._workers.items()}
            seen = await self._look()
            for task, number in steps.items():
                if task in self._workers:
                    self._workers[task].look(seen.seen(task), number)
            async with self._turn:
                await self._sweep(seen)
            self._wake.set()

    async def _sweep(self, seen: Observed) -> None:
        """Remove what is of this instance and belongs to nobody. A failure is tried again at the next look."""
        unknown = (set(seen.attempts) | seen.parts) - set(self.board.records)
        traces = {task: self._host.trace(task) for task in unknown}
        found = diff(
            (task.id for a in self.board.assignments.values() for task in self._current(a)),
            self.board.records,
            seen,
            {task: trace[0] for task, trace in traces.items()},
            self.board.assignments.keys(),
        )
        self._reserved = {i for task in found.strangers if (i := traces[task][1]) is not None}
        for task in found.orphans:
            if task in self._workers:
                continue
            try:
                for attempt in seen.attempts.get(task, ()):
                    await self._ports.runtime.remove(task, attempt.attempt)
                await effects.discard(self._ports, task)
                event = self._event("task.swept", traces[task][0], f"{task} belonged to nobody and was removed")
                await self._ports.journal.record(Change(events=[event]))
            except GoraeError as error:
                log.warning("cannot sweep %s: %s", task, error)
                continue
            log.info("swept %s, which belonged to nobody", task)
            self.reporter.events()

    # Events -----------------------------------------------------------------------------------------------------

    def _event(
        self,
        kind: str,
        stack: str | None = None,
        message: str = "",
        reason: str = "",
        task: Task | None = None,
        *,
        evidence: dict[str, Any] | None = None,
        cause: str | None = None,
    ) -> Event:
        ports = self._ports
        return Event(
            id=ports.ulids.next(ports.clock.wall()),
            at=ports.clock.wall(),
            boot_id=ports.boot_id,
            monotonic=ports.clock.now(),
            kind=kind,
            stack=stack,
            service=task.service if task else None,
            slot=task.slot if task else None,
            task=task.id if task else None,
            reason=reason,
            message=message,
            evidence=evidence or {},
            cause=cause,
        )

    # For the agent's socket ---------------------------------------------------------------------------------------

    def statuses(self) -> Sequence[StackStatus]:
        return self.reporter.statuses()

    def in_use(self) -> dict[str, str]:
        """Image id → which service uses it."""
        return {
            task.container.image_id: f"{assignment.stack}/{task.service}"
            for stack, assignment in self.board.assignments.items()
            for task in assignment.tasks
            if stack not in self._buried
        }
