"""The host loop: remember, look, adopt, sweep; then obey assignments, and look again from time to time.

It owns the workers. It never restarts what runs and never takes absence for an order. Whose word counts is the
intake's business, what a single task needs its worker's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from agent.allocator import Allocator
from agent.board import Board
from agent.burial import Burial
from agent.decide import accept
from agent.decide.diff import Observed, adopted, dump_stranger, load_stranger, orphans
from agent.decide.mounts import together, users
from agent.decide.record import TaskRecord, dump, load
from agent.decide.states import LIVE
from agent.effects import Ports
from agent.events import event, persist
from agent.intake import Intake
from agent.kit import backoff
from agent.kit.errors import Temporary, UserError
from agent.kit.ids import Ulids
from agent.kit.pools import Slice
from agent.ports import Change, Host, JournalState
from agent.reporter import Reporter, excuse
from agent.sweeper import look, sweep
from agent.wire.bus import Bus
from agent.wire.messages import Assignment, Listener, LogLimits, StackStatus
from agent.worker import Worker

log = logging.getLogger("gorae.agent")

SETTLE = 0.05  # seconds, in which changes of the mount table come together
LOOK_EVERY = 30.0  # seconds; the safety net under what should have been notified


class Reconciler:
    """`run` is the agent's life. Its containers outlive it. `ready`: what ran is adopted."""

    def __init__(self, ports: Ports, host: Host, bus: Bus, slice_: Slice, *, version: str = "") -> None:
        self.instance = ports.instance
        self.version = version
        self.journal_id = ""
        self.epoch = 0
        self.ready = asyncio.Event()
        self._ports, self._host, self._bus, self._slice = ports, host, bus, slice_
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()  # sweeping and obeying exclude each other
        self._workers: dict[str, Worker] = {}
        self._strangers: dict[str, str] = {}  # task → stack: found when there was no journal, not assigned since

    async def listeners(self) -> tuple[Listener, ...]:
        """As they are at this moment; the host message may be some seconds old."""
        return await self._host.listeners()

    # Life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        ports = self._ports
        state = await self._remember()
        self.journal_id, self.epoch = state.journal_id, state.epoch
        if state.last_event is not None:
            ports.ulids = Ulids(state.last_event[1])  # ids go on growing though the clock was set back
        self._board = Board(self._host.run_id(), self._slice.virtual, self._slice.twin)
        self._board.wake = self._wake_worker
        self._reporter = Reporter(self._bus, ports, self._board, self._host, self)
        self._reporter.acknowledged = state.acknowledged
        ports.troubles.changed = self._reporter.troubles_changed
        self._intake = Intake(ports, self._board, self._reporter, state.bound_store_id, self._wake.set)
        self._burial = Burial(ports, self._board, self._reporter)
        self._allocator = Allocator(ports, self._board, self._host, self._slice)
        self._restore(state)
        self._board.renamed = lambda: ports.resolver.tell(self._board.zone)
        if not state.fresh:  # or what runs without being known would lose the names it has
            self._board.renamed()
        self._board.look_at(ports.mounts.table().points)
        seen = await look(ports)
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._begin(seen, fresh=state.fresh)
            self.ready.set()
            self._wake.set()
            group.create_task(self._reporter.run(self._intake.deliver), name="reporter")
            group.create_task(self._look_again(), name="look again")
            group.create_task(self._watch_mounts(), name="watch mounts")
            await self._serve()

    async def _remember(self) -> JournalState:
        """However long that takes: without it, nothing that was promised is known."""
        ports, failures = self._ports, 0
        telling: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    return await ports.journal.load()
                except Temporary as error:
                    failures += 1
                    if failures == 1:
                        log.error("%s", error)
                    ports.troubles.found("load", error, ports.clock.wall())
                    telling = telling or asyncio.create_task(excuse(self._bus, ports), name="excuse")
                    await ports.clock.sleep(backoff.delay(failures, first=0.1, cap=5.0))
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.wait((telling,))
            ports.troubles.over("load")

    def _restore(self, state: JournalState) -> None:
        """What the journal says; a document that cannot be read is worth no more than a lost one."""
        for task, document in state.records.items():
            if (stranger := load_stranger(document)) is not None:
                self._strangers[task] = stranger
                continue
            try:
                self._board.put(load(document))
            except ValueError as error:
                log.error("cannot read the record of %s, it is taken for lost: %s", task, error)
        for stack, document in state.assignments.items():
            try:
                self._board.assign(Assignment.model_validate_json(document))
            except ValueError as error:
                log.error("cannot read the assignment of %s, it is taken for lost: %s", stack, error)

    async def _begin(self, seen: Observed, *, fresh: bool) -> None:
        """Take up what runs, also what the journal does not know or knows less well; then a worker for each task."""
        known, now = len(self._board.records), self._ports.clock.wall()
        unknown = (set(seen.attempts) | seen.parts) - set(self._board.records)
        if fresh:
            self._strangers = {task: stack for task in unknown if (stack := self._host.trace(task)[0]) is not None}
        self._allocator.reserve(self._strangers)
        newer = [
            found
            for record in self._board.records.values()
            if (found := adopted(record, seen.attempts.get(record.id, ()), self._board.boot, now))
        ]
        for record in newer:
            self._board.put(record)
        told = event(self._ports, "agent.started", f"agent {self.version} started", evidence={"epoch": self.epoch})
        changed = {task: dump_stranger(stack) for task, stack in self._strangers.items()}
        changed |= {record.id: dump(record) for record in newer}
        await persist(self._ports, Change(records=changed, events=[told]))
        for record in list(self._board.records.values()):
            # Without an assignment (it could not be read) nobody says what is to become of it: it is left as it is.
            if self._board.assignment(record.stack) is not None:
                self._employ(record, seen)
        await self._make_missing(seen)
        running = sum(record.state == "running" for record in self._board.records.values())
        log.info("started: %d tasks known, %d running, %d strangers", known, running, len(self._strangers))
        await self._sweep(seen)

    async def _serve(self) -> None:
        ports, failures = self._ports, 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                async with self._turn:
                    await self._intake.work(self._obey)
                    await self._make_missing(Observed())
                    await self._burial.work(self._intake.emptied, strangers=bool(self._strangers))
                failures = 0
                ports.troubles.over("serve")
            except Temporary as error:
                failures += 1
                if failures == 1:
                    log.error("%s; it is tried again", error)
                ports.troubles.found("serve", error, ports.clock.wall(), str(error.evidence.get("stack", "")))
                self._wake.set()
                await ports.clock.sleep(backoff.delay(failures, first=0.1, cap=5.0))

    async def _look_again(self) -> None:
        while True:
            await self._ports.clock.sleep(LOOK_EVERY)
            steps = {task: worker.steps for task, worker in self._workers.items()}
            seen = await look(self._ports)
            for task, number in steps.items():
                if task in self._workers:
                    self._workers[task].look(seen.seen(task), number)
            async with self._turn:
                await self._sweep(seen, steps)
            self._wake.set()

    async def _watch_mounts(self) -> None:
        """Each container that starts changes the table, too: nobody reads it unless somebody's disk may come or go."""
        while True:
            await self._ports.mounts.changed()
            await self._ports.clock.sleep(SETTLE)
            if any(record.mounts for record in self._board.records.values()):
                self._board.look_at(self._ports.mounts.table().points)

    async def _sweep(self, seen: Observed, before: Iterable[str] = ()) -> None:
        """`before`: tasks that had a worker when the look began; one may have taken its task away since."""
        board = self._board
        assigned = [task.id for stack in board.assignments for task in board.tasks(stack)]
        accounted = {*assigned, *board.records, *self._workers, *before}
        swept = await sweep(self._ports, orphans(accounted, seen, self._strangers, board.assignments.keys()), seen)
        for task in {*swept, *accounted} & self._strangers.keys():
            del self._strangers[task]
        self._allocator.reserve(self._strangers)
        if swept:
            self._reporter.events()

    # Assignments --------------------------------------------------------------------------------------------------

    async def _obey(self, offered: Assignment, before: Assignment | None) -> None:
        """Durable first, with the records of its new tasks; then told to the workers. UserError: it is no good."""
        stack, board = offered.stack, self._board
        held = accept.held_after(offered, before)
        tasks = () if held.removed else held.tasks
        for task in tasks:
            if task.id in board.records and board.records[task.id].stack != stack:
                raise UserError(
                    f"cannot obey the assignment of {stack}: task {task.id} belongs to another stack",
                    code="bad-assignment",
                )
        # Only after the loss of a journal, or of an assignment in it, is there something that nobody looks after yet.
        unkept = any(record.id not in self._workers for record in board.of(stack))
        seen = await look(self._ports) if self._strangers or unkept else Observed()
        told = event(
            self._ports,
            "stack.accepted",
            f"generation {held.generation}, "
            + ("to be removed" if held.removed else "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"),
            stack=stack,
            evidence={"generation": held.generation, "revision": held.revision},
            cause=held.cause,
        )
        new = [task for task in tasks if task.id not in board.records]
        made, failed = self._allocator.records(stack, new, seen, held.cause or told.id)
        await self._ports.journal.record(
            Change(
                assignments={stack: held.model_dump_json()},
                records={record.id: dump(record) for record in made},
                events=[told, *failed],
                bound_store_id=offered.store_id if self.bound is None else None,
            )
        )
        self._intake.bound = self._intake.bound or offered.store_id
        self._burial.done.discard(stack)
        log.info("%s: generation %d accepted, %d tasks", stack, held.generation, len(tasks))
        self._take_on(made, held, seen)
        for record in board.of(stack):
            if record.id in self._workers:
                self._workers[record.id].assign(board.task(record))
            else:
                self._employ(record, seen)
        if self._strangers:
            await self._sweep(seen)

    def _take_on(self, made: Sequence[TaskRecord], held: Assignment, seen: Observed) -> None:
        """Records first: their addresses are part of everybody's names."""
        for record in made:
            self._board.put(record)
        self._board.assign(held)
        for record in made:
            self._employ(record, seen)
        self._reporter.changed(held.stack)
        self._reporter.events()
        self._reporter.host_changed()

    async def _make_missing(self, seen: Observed) -> None:
        """Assigned tasks without a record: lost with the journal, or no address was free, or the id's removal had to
        end first."""
        for stack, held in self._board.assignments.items():
            missing = [task for task in self._board.tasks(stack) if task.id not in self._board.records]
            made, _ = self._allocator.records(stack, missing, seen, held.cause)
            if made:
                await persist(self._ports, Change(records={record.id: dump(record) for record in made}))
                self._take_on(made, held, seen)

    # Workers ------------------------------------------------------------------------------------------------------

    def _employ(self, record: TaskRecord, seen: Observed) -> None:
        self._group.create_task(self._oversee(self._worker(record, seen)), name=f"task {record.id}")

    def _worker(self, record: TaskRecord, seen: Observed) -> Worker:
        reporter = self._reporter
        worker = Worker(
            self._ports,
            self._board,
            record,
            seen.seen(record.id),
            changed=reporter.changed,
            events=reporter.events,
        )
        self._workers[record.id] = worker
        return worker

    async def _oversee(self, worker: Worker) -> None:
        """A bug met by one task must not end the care for all others: it is logged whole, and that task's worker begins
        again from what the journal and the host say."""
        failures = 0
        while True:
            try:
                await worker.run()
                break
            except* Exception:
                failures += 1
                log.exception("bug: the worker of %s failed; it begins again", worker.id)
            await self._ports.clock.sleep(backoff.delay(failures, first=1.0, cap=60.0))
            worker = self._worker(self._board.records[worker.id], await look(self._ports))
        stack = self._board.records[worker.id].stack
        self._board.drop(worker.id)
        del self._workers[worker.id]
        self._reporter.changed(stack)
        self._wake.set()

    def _wake_worker(self, task: str) -> None:
        if task in self._workers:
            self._workers[task].wake()

    # For the reporter and the agent's socket ------------------------------------------------------------------------

    @property
    def bound(self) -> str | None:
        return self._intake.bound

    @property
    def reporting(self) -> bool:
        return self._intake.reporting

    def buried(self, stack: str) -> bool:
        return stack in self._burial.done

    def statuses(self) -> Sequence[StackStatus]:
        return self._reporter.statuses()

    async def adopt(self, store_id: str) -> None:
        """An operator's word: obey this store from now on."""
        await self._intake.bind(store_id, "bound by an operator")

    def live(self, stack: str | None = None, services: Collection[str] = ()) -> list[TaskRecord]:
        """Those of records() that have a process."""
        return [r for r in self.records(stack, services) if r.process is not None and r.state in LIVE]

    def records(self, stack: str | None = None, services: Collection[str] = ()) -> list[TaskRecord]:
        """The tasks of these services (none named: of all) of the stack, or of all stacks."""
        known = self._board.records.values() if stack is None else self._board.of(stack)
        return [record for record in known if not services or record.service in services]

    async def kill(self, stack: str, services: Collection[str], signal: int, cause: str | None) -> int:
        """Send a signal to the first process of every task of these services (none named: of all); how many that were.
        What becomes of one that ends by it, its restart policy says. UserError nothing-runs."""
        sent = self.live(stack, services)
        if not sent:
            what = ", ".join(f"{stack}/{service}" for service in sorted(services)) or f"stack {stack}"
            raise UserError(
                f"cannot send a signal to {what}: no container runs", code="nothing-runs", hint="gorae status"
            )
        told = [
            event(
                self._ports,
                "task.signalled",
                f"sent signal {signal}, as asked for by the user",
                stack=stack,
                service=record.service,
                slot=record.slot,
                task=record.id,
                attempt=record.attempt,
                reason="user-signal",
                evidence={"signal": signal},
                cause=cause or record.cause,
            )
            for record in sent
        ]
        await self._ports.journal.record(Change(events=told))
        self._reporter.events()
        for record in sent:
            assert record.process is not None
            await self._ports.runtime.signal(record.id, record.attempt, record.process, signal)
        return len(sent)

    def log_limits(self, task: str) -> LogLimits | None:
        """What its service says of them. Once `ready`."""
        record = self._board.records.get(task)
        assigned = None if record is None else self._board.task(record)
        return None if assigned is None else assigned.policy.logs

    async def tell_of_logs(self, message: str, evidence: dict[str, Any]) -> None:
        """An event, if one can be recorded now: the disk may be full, and whoever frees it must not wait."""
        if not self.ready.is_set():
            return
        try:
            told = event(self._ports, "agent.logs-dropped", message, evidence=evidence)
            await self._ports.journal.record(Change(events=[told]))
        except Temporary as error:
            log.warning("cannot record that logs were dropped: %s", error)
        else:
            self._reporter.events()

    def volume_users(self, *, running: bool = False) -> dict[str, str]:
        """decide/mounts.py users(), of all tasks or of those that run."""
        return users(
            (assignment.stack, task)
            for assignment in self._board.assignments.values()
            for task in assignment.tasks
            if not self.buried(assignment.stack) and (not running or self._lives(task.id))
        )

    def _lives(self, task: str) -> bool:
        record = self._board.records.get(task)
        return record is not None and record.state in LIVE

    def in_use(self) -> dict[str, str]:
        """Image id → which services use it: by what is assigned, and by what is still there of earlier assignments."""
        assigned = [
            (task.container.image_id, f"{assignment.stack}/{task.service}")
            for assignment in self._board.assignments.values()
            for task in assignment.tasks
            if not self.buried(assignment.stack)
        ]
        return together(
            (
                *assigned,
                *((record.image_id, f"{record.stack}/{record.service}") for record in self._board.records.values()),
            )
        )
