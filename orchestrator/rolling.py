"""Changes that happen step by step: each step decided from what is stored and reported, committed, then seen again.

decide/rollout.py decides; this is the loop around it, and the way back to an earlier revision. Killing it changes
nothing: the next life reads the same rows and goes on. Must not talk to the bus: what it commits, the link publishes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from agent.kit.errors import GoraeError, Temporary
from agent.kit.ids import task_id
from agent.wire.messages import Event, TaskStatus
from orchestrator.compose.model import Stack
from orchestrator.decide import expand, rollout, runs
from orchestrator.decide.order import order
from orchestrator.decide.plan import Intent, Plan, plan
from orchestrator.decide.records import Revision, Rollout, StackRecord
from orchestrator.decide.rollout import Step
from orchestrator.decide.turn import Act
from orchestrator.decide.update import Settings, settings
from orchestrator.decide.virtual import allot, networked
from orchestrator.store.ledger import Ledger
from orchestrator.store.port import Change

log = logging.getLogger(__name__)

AGAIN = 1.0  # seconds until what could not be stored is tried again

_Rules = tuple[Mapping[str, Settings], Mapping[str, Collection[str]]]


def step(ledger: Ledger, record: StackRecord, under_way: Rollout, rules: _Rules | None = None) -> Step:
    """The next step of the record's stack, by what is known now."""
    status = ledger.statuses.get(record.name)
    reported: dict[str, TaskStatus] = {task.id: task for task in status.tasks} if status else {}
    how, needs = rules or _rules(record, under_way)
    return rollout.step(under_way, record.tasks, reported, how, needs, ledger.clock.wall())


def _rules(record: StackRecord, under_way: Rollout) -> _Rules:
    stack = Stack.model_validate(record.model)
    back = under_way.phase == "rolling-back"
    return settings(stack, back=back), {name: service.depends_on.keys() for name, service in stack.services.items()}


def told(ledger: Ledger, stack: str, acts: Collection[Act], cause: str | None) -> list[Event]:
    """Each act as an event."""
    return [
        ledger.event(
            f"update.{act.kind}",
            act.message,
            stack=stack,
            service=act.service or None,
            slot=act.slot,
            task=act.task,
            reason=act.kind,
            cause=cause,
        )
        for act in acts
    ]


def restoring(ledger: Ledger, record: StackRecord, revision: Revision, new_id: Callable[[], str]) -> Plan:
    """The plan that makes the stack as the revision says. A service that the user has stopped stays stopped."""
    stack = Stack.model_validate(revision.model)
    desired = expand.expand(stack, {name: lock.id for name, lock in stack.images.items()})
    desired |= runs.under_way(record, ())
    templates = {name: want.template for name, want in desired.items()}
    current = rollout.basis(record.goal, record.tasks, templates)
    return plan(desired, current, Intent("rollback"), order=order(stack.services), new_id=new_id)


class Rolling:
    """`run` for life. One Ledger. `have_images`: fetches what is gone of a revision's images; GoraeError: it cannot."""

    def __init__(
        self, ledger: Ledger, have_images: Callable[[Stack], Awaitable[None]], *, new_id: Callable[[], str] = task_id
    ) -> None:
        self._ledger = ledger
        self._have_images = have_images
        self._new_id = new_id
        self._fetching: dict[tuple[str, int], asyncio.Task[GoraeError | None]] = {}  # stack, revision to go back to
        self._known: dict[str, tuple[object, _Rules]] = {}  # stack → (model and phase they were read from, rules)
        self._failing: set[str] = set()  # stacks of which that was said

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            with self._ledger.listen() as bell:
                while True:
                    bell.clear()
                    again = await self._look()
                    left = None if again is None else max(0.0, again - self._ledger.clock.wall())
                    try:
                        async with asyncio.timeout(left):
                            await bell.wait()
                    except TimeoutError:
                        pass

    async def _look(self) -> float | None:
        """One step of every stack that has one to take; Unix seconds at which to look again."""
        due = []
        for name in self._failing - self._ledger.stacks.keys():
            self._goes_on(name)
        for name, number in [key for key in self._fetching if not self._may_go_back(*key)]:
            self._fetching.pop((name, number)).cancel()
        for name, record in list(self._ledger.stacks.items()):
            if record.rollout is None or not self._may(record):
                self._known.pop(name, None)
                self._goes_on(name)
                continue
            try:
                due.append(await self._advance(name))
                self._goes_on(name)
            except (GoraeError, ValueError) as error:  # ValueError: another version stored what this one cannot read
                if name not in self._failing:
                    log.warning("cannot carry on with the update of %s: %s", name, error)
                self._failing.add(name)
                if isinstance(error, GoraeError):
                    self._ledger.troubles.found(("update", name), error, self._ledger.clock.wall(), name)
                due.append(self._ledger.clock.wall() + AGAIN)
        return min((at for at in due if at is not None), default=None)

    def _goes_on(self, name: str) -> None:
        self._failing.discard(name)
        self._ledger.troubles.over(("update", name))

    def _may(self, record: StackRecord) -> bool:
        """What the agent said is only worth something while it is there to say more, and may run what is new."""
        ledger = self._ledger
        return not (record.removed or record.held or ledger.drained) and ledger.bound and ledger.online

    def _may_go_back(self, name: str, number: int) -> bool:
        record = self._ledger.stacks.get(name)
        return record is not None and record.rollout is not None and record.rollout.back == number

    async def _advance(self, name: str) -> float | None:
        ledger = self._ledger
        record = ledger.stacks[name]
        if record.rollout is None or not self._changes(record, found := self._step(record, record.rollout)):
            return found.again if record.rollout else None
        back = record.rollout.back if found.back else None
        revision = None if back is None else await ledger.store.revision(name, back)
        missing: GoraeError | None = None
        if revision is not None:
            fetching = self._images_of(revision)
            if not fetching.done():
                return None  # it rings when it is
            missing = self._fetching.pop((name, revision.number)).result()
            if isinstance(missing, Temporary):
                raise missing
        async with ledger.changing:
            record = ledger.stacks.get(name, record)
            if record.rollout is None or not self._may(record):
                return None
            found = self._step(record, record.rollout)
            if found.back and record.rollout.back != back:
                return ledger.clock.wall()
            if self._changes(record, found):
                await self._commit(record, record.rollout, found, revision, missing)
        return found.again

    def _images_of(self, revision: Revision) -> asyncio.Task[GoraeError | None]:
        """That its images are there, beside the changes of other stacks: they may have to be fetched."""
        key = (revision.stack, revision.number)
        if key not in self._fetching:
            self._fetching[key] = self._group.create_task(self._missing(revision), name=f"images of {key}")
            self._fetching[key].add_done_callback(lambda _: self._ledger.ring())
        return self._fetching[key]

    async def _missing(self, revision: Revision) -> GoraeError | None:
        try:
            await self._have_images(Stack.model_validate(revision.model))
        except GoraeError as error:
            return error
        return None

    def _step(self, record: StackRecord, under_way: Rollout) -> Step:
        key = (record.model, under_way.phase)
        known = self._known.get(record.name)
        if known is None or known[0] != key:
            known = self._known[record.name] = (key, _rules(record, under_way))
        return step(self._ledger, record, under_way, known[1])

    @staticmethod
    def _changes(record: StackRecord, found: Step) -> bool:
        return found.back or (found.tasks, found.rollout) != (record.tasks, record.rollout)

    async def _commit(
        self,
        record: StackRecord,
        under_way: Rollout,
        found: Step,
        revision: Revision | None,
        missing: GoraeError | None,
    ) -> None:
        ledger = self._ledger
        events = told(ledger, record.name, found.acts, under_way.cause)
        after = replace(record, tasks=found.tasks, rollout=found.rollout)
        if found.back:
            after, more = self._back(after, under_way, events, revision, missing)
            events += more
        if after.tasks != record.tasks:
            cause = events[-1].id if events else record.cause
            after = replace(after, generation=ledger.counters[record.name].generation + 1, cause=cause)
        await ledger.commit(Change(stacks={record.name: after}, events=events))

    def _back(
        self,
        record: StackRecord,
        under_way: Rollout,
        events: list[Event],
        revision: Revision | None,
        missing: GoraeError | None,
    ) -> tuple[StackRecord, list[Event]]:
        """The record on its way back to `revision`. One that is not kept any more, or whose images cannot be had,
        leaves it paused: what serves goes on."""
        ledger, why = self._ledger, record.rollout.message if record.rollout else ""
        cause = events[-1].id if events else under_way.cause
        if revision is None or record.rollout is None:
            return replace(record, rollout=replace(under_way, phase="paused", message=why)), []
        if missing is not None:
            why = f"{why}; not back to revision {revision.number}: {missing.message}"
            acts = told(ledger, record.name, [Act("paused", "", None, None, why)], cause)
            return replace(record, rollout=replace(under_way, phase="paused", message=why)), acts
        planned = restoring(ledger, record, revision, self._new_id)
        said = f"{why}; back to revision {revision.number}"
        event = ledger.event("update.rolling-back", said, stack=record.name, reason="failed", cause=cause)
        goal = rollout.begin(planned.tasks, record.tasks, None, None)
        goal = replace(goal, phase="rolling-back", message=said, cause=event.id)
        others = (other for name, other in ledger.stacks.items() if name != record.name)
        taken = frozenset(number for other in others for number in other.virtual.values())
        virtual = allot(record.name, networked(revision.model), record.virtual, taken)
        after = replace(
            record, revision=revision.number, model=revision.model, rollout=goal, virtual=virtual, cause=event.id
        )
        found = step(ledger, after, goal)
        acts = told(ledger, record.name, found.acts, event.id)
        return replace(after, tasks=found.tasks, rollout=found.rollout), [event, *acts]
