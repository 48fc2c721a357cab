"""One worker per task: decide, do, record, again. It decides nothing itself; decide/next_action does.

The mailbox has one slot: the newest assignment of the task wins, and a removal is never overwritten. Whatever happens
(a message, an exit, a probe, a timer) only wakes the loop, which looks at everything afresh. The record is durable
before the next effect and before anybody is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from agent import effects
from agent.board import Board
from agent.decide import health, hooks, mounts
from agent.decide.action import (
    Action,
    Clean,
    Count,
    Discard,
    Draft,
    Freeze,
    Gone,
    Kill,
    Move,
    Prepare,
    Publish,
    Rename,
    Signal,
    Start,
    Tail,
    Update,
    Wait,
)
from agent.decide.endpoints import leaves
from agent.decide.health import Check
from agent.decide.next_action import next_action
from agent.decide.record import Ending, TaskRecord, dump, ending
from agent.decide.running import TAIL_LINES, TAIL_WIDTH
from agent.decide.view import Flows, Probed, Seen, Trouble
from agent.effects import Ports, Prepared
from agent.events import bounded, event, persist
from agent.kit import backoff
from agent.kit.errors import GoraeError, Permanent, Temporary, UserError
from agent.ports import Change, Found, ImageConfig, ProbeResult, Process
from agent.wire.messages import Event, Hook, Task

log = logging.getLogger("gorae.agent")
SIGKILL = 9


class Worker:
    """`changed(stack, passing)` is called after each recorded change; `events(passing)` when there is one to send;
    passing: more is about to follow."""

    def __init__(
        self,
        ports: Ports,
        board: Board,
        record: TaskRecord,
        seen: Seen,
        *,
        changed: Callable[[str, bool], None],
        events: Callable[[bool], None],
    ) -> None:
        self.id = record.id
        self.steps = 0  # effects begun; an observation older than the newest one is stale
        self.idle = False
        self._ports, self._board = ports, board
        self._record, self._seen = record, seen
        self._task = board.task(record)
        self._removed = self._task is None
        self._changed, self._events = changed, events
        self._unsaved: list[Event] = []
        self._durable = False
        self._woken = asyncio.Event()
        self._image: ImageConfig | None = None
        self._prepared: Prepared | None = None
        self._watching: tuple[int, asyncio.Task[None]] | None = None
        self._probing: tuple[tuple[int, Check], asyncio.Task[None]] | None = None
        self._hooking: tuple[tuple[str, int, Hook], asyncio.Task[None]] | None = None
        self._starting: asyncio.Task[Process] | None = None
        self._facts_of: tuple[Task | None, ImageConfig | None] | None = None
        self._facts: tuple[Check | str | None, Ending | None] = ("unknown", None)

    # The mailbox ------------------------------------------------------------------------------------------------

    def assign(self, task: Task | None) -> None:
        if not self._removed:
            self._task = task
            self._removed = task is None
        if self._starting is not None and (self._task is None or not self._task.wanted):
            self._starting.cancel()
        self.wake()

    def wake(self) -> None:
        self._woken.set()

    def look(self, seen: Seen, steps: int) -> None:
        """A periodic look at the host, begun when `steps` effects had been. What a pidfd watches is known better."""
        if steps != self.steps or not self.idle:
            return
        number = self._record.attempt
        own, known = seen.attempt(number), self._seen.attempt(number)
        if known is not None and known.process is not None and self._watching is not None:
            lost = own is not None and own.process is not None and own.process.conmon is None
            seen = seen.found(replace(known, process=replace(known.process, conmon=None)) if lost else known)
        attempts = seen.attempts
        if attempts != self._seen.attempts or seen.leftovers != self._seen.leftovers:
            self._seen = replace(self._seen, attempts=attempts, leftovers=seen.leftovers)
            self.wake()

    # The loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Returns when nothing of the task is left."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                if self._record.attempt and self._task is not None:
                    await self._recall_image(self._task)
                going = True
                while going:
                    self._attend()
                    going = await self._step()
            finally:
                self._dismiss()

    async def _step(self) -> bool:
        self._woken.clear()
        check, end = self._known()
        world = self._board.world(self._record, check, end, self._ports.random())
        if (world.unmounted or world.joined != self._record.joined) and self._seen.prepared:
            self._see(prepared=False)  # what was made of the old mount, or with another's sandbox, is not the new one
        action = next_action(self._task, self._record, self._seen, world, self._ports.clock.wall())
        if isinstance(action, Move):
            self._move(action)
        elif self._record is not self._board.records.get(self.id):
            await self._save()
        elif isinstance(action, Gone):
            return False
        elif isinstance(action, Wait):
            await self._wait(action.until)
        else:
            await self._do(action)
        return True

    async def _recall_image(self, task: Task) -> None:
        try:
            self._image = await self._ports.images.config(task.container.image_id)
        except GoraeError as error:
            log.warning("%s: %s; its image's healthcheck and stop signal are not known", self._name(), error)

    def _known(self) -> tuple[Check | str | None, Ending | None]:
        """The healthcheck and the way to stop, by spec and image."""
        key = (self._task, self._image)
        if self._facts_of is None or self._facts_of[0] is not key[0] or self._facts_of[1] is not key[1]:
            self._facts_of = key
            task, image = key
            if task is None or image is None:
                self._facts = ("unknown", None)
            else:
                self._facts = (health.effective(task.policy.healthcheck, image.healthcheck), ending(task, image))
        return self._facts

    def _move(self, move: Move) -> None:
        old, new = self._record, move.record
        if move.folded:
            self._seen = replace(self._seen, probes=self._seen.probes[1:])
        if hooks.progress(new) != hooks.progress(old):
            self._see(hooked=None)
        if new.state != old.state:
            self._seen = self._seen.entered()
            log.info("%s: %s → %s %s", self._name(), old.state, new.state, new.message)
        if move.event is not None:
            told = self._event(move.event, new)
            self._unsaved.append(told)
            new = replace(new, cause=told.id)
        self._durable = self._durable or move.durable
        self._record = new

    def _event(self, draft: Draft, record: TaskRecord) -> Event:
        causes = {"task": record.cause, "user": self._board.cause(record.stack), "world": None}
        return event(
            self._ports,
            draft.kind,
            draft.message,
            evidence=draft.evidence,
            stack=record.stack,
            service=record.service,
            slot=record.slot,
            task=record.id,
            attempt=record.attempt or None,
            reason=draft.reason,
            cause=causes[draft.cause],
        )

    async def _save(self) -> None:
        """Make the record durable, however long that takes: nothing is done or said before."""
        record, events = self._record, tuple(self._unsaved)
        if self._durable:
            document = None if record.state == "removed" else dump(record)
            await persist(self._ports, Change(records={self.id: document}, events=events))
        self._unsaved, self._durable = [], False
        passing = record.state in ("preparing", "starting")
        if self._board.put(record):
            self._changed(record.stack, passing)
        self._ports.attendance.ring(record.stack, record.service)
        if events:
            self._events(passing)

    async def _wait(self, until: float | None) -> None:
        self.idle = True
        alarm = None
        try:
            if until is not None and not self._woken.is_set():
                alarm = self._group.create_task(self._alarm(until - self._ports.clock.wall()))
            await self._woken.wait()
        finally:
            self.idle = False
            if alarm is not None:
                alarm.cancel()

    async def _alarm(self, seconds: float) -> None:
        await self._ports.clock.sleep(max(0.0, seconds))
        self.wake()

    # Effects ----------------------------------------------------------------------------------------------------

    async def _do(self, action: Action) -> None:
        self.steps += 1
        try:
            await self._effect(action)
        except GoraeError as error:
            before = self._seen.trouble(type(action))
            trouble = Trouble(
                action=type(action).__name__,
                permanent=isinstance(error, Permanent | UserError),
                code=error.code,
                message=bounded(error.message),
                evidence=bounded({**error.evidence, **({"hint": error.hint} if error.hint else {})}),
                at=self._ports.clock.wall(),
            )
            self._seen = self._seen.failed(trouble)
            if before is None or before.code != error.code:
                log.warning("%s: %s", self._name(), error)
        else:
            self._seen = self._seen.worked(type(action))

    async def _effect(self, action: Action) -> None:
        ports, record = self._ports, self._record
        match action:
            case Prepare():
                await self._prepare()
            case Start(attempt):
                await self._start(attempt)
            case Publish(serving):
                await ports.network.publish(self.id, serving)
                self._see(published=serving)
            case Rename(version):
                await self._rename()
                self._see(named=version)
            case Update(resources):
                await ports.runtime.update(self.id, record.attempt, resources)
                self._see(resources=resources)
            case Freeze(frozen):
                await ports.runtime.update(self.id, record.attempt, frozen=frozen)
                self._see(frozen=frozen)
            case Count():
                seats = filter(None, (record.allocation.address, record.allocation.address_6))
                counts = await asyncio.gather(*map(ports.flows.open, seats))
                self._see(flows=Flows(sum(counts), ports.clock.wall()))
            case Signal(number):
                if record.process is not None:
                    await ports.runtime.signal(self.id, record.attempt, record.process, number)
                self._see(signalled=True)
            case Kill():
                if record.process is not None:
                    await ports.runtime.signal(self.id, record.attempt, record.process, SIGKILL, everyone=True)
                self._see(killed_at=ports.clock.wall())
            case Tail():
                self._see(tail=await self._tail())
            case Clean(attempt):
                await ports.runtime.remove(self.id, attempt)
                self._seen = self._seen.cleaned(attempt)
            case Discard():
                self._prepared = None
                await effects.discard(ports, self.id, once=record.ending.once)
                self._see(leftovers=False, prepared=False, published=leaves(record, alive=False))

    def _see(self, **changes: object) -> None:
        self._seen = replace(self._seen, **changes)  # type: ignore[arg-type]  # named where they are made

    async def _prepare(self) -> None:
        task = self._assigned()
        version, peers = self._board.names(self._record)
        self._image = await self._ports.images.config(task.container.image_id)
        others = {service: await self._first(service) for service in mounts.needed(task)}
        self._see(leftovers=True)
        self._prepared = await effects.prepare(self._ports, task, self._record, peers, self._image, others)
        sandbox = self._prepared.sandbox
        own = sandbox.net_ns is not None and self._record.joined is None
        self._see(prepared=True, named=version, space=f"{self._board.boot} {sandbox.space}" if own else "")

    async def _first(self, service: str) -> tuple[Task, ImageConfig]:
        """The service's first slot, whose volumes this task takes over."""
        tasks = [task for task in self._board.tasks(self._record.stack) if task.service == service]
        if not tasks:
            raise Temporary(
                f"cannot mount the volumes of {service}: it has no container",
                code="volumes-from-absent",
                hint=f"gorae scale {self._record.stack} {service}=1",
            )
        first = min(tasks, key=lambda task: task.slot)
        return first, await self._ports.images.config(first.container.image_id)

    async def _start(self, attempt: int) -> None:
        task = self._assigned()
        assert self._prepared is not None, "next_action starts only what is prepared"
        try:
            start = effects.start(self._ports, task, self._record, self._prepared)
            process = await (self._interruptible(start) if hooks.holds(task, self._record) else start)
        except GoraeError:
            self._seen = self._seen.found(Found(self.id, attempt, None, None))  # whatever is left of it
            raise
        self._see(resources=task.policy.resources, frozen=False)
        self._seen = self._seen.found(Found(self.id, attempt, process, None))

    async def _interruptible(self, start: Coroutine[Any, Any, Process]) -> Process:
        """Given up when the task is not wanted any more: pre_start commands may take long."""
        self._starting = asyncio.ensure_future(start)
        try:
            return await self._starting
        except asyncio.CancelledError:
            worker = asyncio.current_task()
            if worker is not None and worker.cancelling():
                raise
            raise Temporary("cannot go on: the task was stopped meanwhile", code="stopped") from None
        finally:
            self._starting = None

    async def _rename(self) -> None:
        task, record = self._assigned(), self._record
        _, peers = self._board.names(record)
        await effects.write_names(self._ports, task, record, peers)

    async def _tail(self) -> tuple[str, ...]:
        record = self._record
        try:
            lines = await self._ports.logs.tail(record.stack, record.service, record.slot, record.id, TAIL_LINES)
            return tuple(bounded(list(lines), TAIL_WIDTH))
        except GoraeError:
            return ()  # evidence is welcome, not needed

    def _assigned(self) -> Task:
        if self._task is None:
            raise Temporary("cannot go on: the task was removed meanwhile", code="removed")
        return self._task

    # Watching what runs -----------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """A watch for the process that runs, probes for the attempt that is checked; none for anything else."""
        found = self._seen.attempt(self._record.attempt)
        process = found.process if found else None
        if self._watching is not None and (process is None or self._watching[0] != self._record.attempt):
            self._watching[1].cancel()
            self._watching = None
        if process is not None and self._watching is None:
            task = self._group.create_task(self._watch(self._record.attempt, process))
            self._watching = (self._record.attempt, task)
        check, _ = self._known()
        key = None
        asleep = self._record.paused or (self._task is not None and self._task.desired == "paused")
        if process is not None and isinstance(check, Check) and self._record.state == "running" and not asleep:
            key = (self._record.attempt, check)
        if self._probing is not None and self._probing[0] != key:
            self._probing[1].cancel()
            self._probing = None
        if key is not None and process is not None and self._probing is None:
            self._probing = (key, self._group.create_task(self._probe(key[0], process, key[1])))

        self._attend_hooks(process)

    def _attend_hooks(self, process: Process | None) -> None:
        record = self._record
        due = None if process is None else hooks.due(self._task, record)
        key = None if due is None else (record.state, hooks.progress(record), due)
        if self._hooking is not None and self._hooking[0] != key:
            self._hooking[1].cancel()
            self._hooking = None
        # Not before it is durable that the one before is done: the next agent would run that again.
        durable = record is self._board.records.get(self.id)
        if key is not None and process is not None and self._hooking is None and durable:
            self._hooking = (key, self._group.create_task(self._hook(process, key[2])))

    async def _hook(self, process: Process, due: Hook) -> None:
        kind = "post_start" if self._record.state == "running" else "pre_stop"
        self._see(hooked=await effects.run_hooks(self._ports, self._record, process, (due,), kind))
        self.wake()

    def _dismiss(self) -> None:
        for watcher in (self._watching, self._probing, self._hooking):
            if watcher is not None:
                watcher[1].cancel()

    async def _watch(self, attempt: int, process: Process) -> None:
        failures = 0
        while True:
            try:
                exit_ = await self._ports.runtime.wait(self.id, attempt, process)
                break
            except GoraeError as error:
                failures += 1
                log.warning("%s: cannot watch its process: %s", self._name(), error)
                await self._ports.clock.sleep(backoff.delay(failures, first=0.1, cap=5.0))
        self._seen = self._seen.found(Found(self.id, attempt, None, exit_))
        self.wake()

    async def _probe(self, attempt: int, process: Process, check: Check) -> None:
        clock, record = self._ports.clock, self._record
        started = record.started_at or clock.wall()
        state = record.health if record.health.status != "none" else health.HealthState("starting")
        pause = health.first_pause(state, check, clock.wall() - started, health.phase(self.id))
        while True:
            await clock.sleep(pause)
            age = max(0.0, clock.wall() - started)
            try:
                result = await self._ports.prober.probe(
                    self.id, attempt, process, check.spec, self._address(), check.timeout
                )
            except GoraeError as error:
                result = ProbeResult(False, error.message)
            probed = Probed(attempt, result, age, clock.wall())
            was, state = state, health.fold(state, check, result, age, probed.at)
            self._see(probes=(*self._seen.probes, probed))
            self.wake()
            pause = health.pause(state, check, clock.wall() - started)
            if result.ok and not was.proven:
                pause = health.first_pause(state, check, clock.wall() - started, health.phase(self.id))

    def _address(self) -> str:
        """Where the agent reaches it; "": nowhere."""
        record, task = self._record, self._task
        if task is not None and task.container.network_mode == "host":
            return effects.LOOPBACK
        return record.joined.address if record.joined else record.allocation.address

    def _name(self) -> str:
        record = self._record
        return f"{record.stack}/{record.service}.{record.slot} {record.id}"
