"""From a plan to a commit: admission, then one transaction of revision, generation, tasks and events. Where tasks take
the place of others, the first step of a rollout is part of it.

Which verb asked for what is the controller's business, the steps after the first are rolling's. Nothing waits here, so
that it can be called with `changing` held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.kit.ids import task_id
from agent.wire.messages import Event, Listener, Task
from orchestrator import refusals, rolling
from orchestrator.decide import expand, rollout
from orchestrator.decide.plan import Intent, Plan, Verb, plan
from orchestrator.decide.records import Counter, Phase, Revision, Rollout, StackRecord
from orchestrator.decide.refusal import Refusal
from orchestrator.decide.schedule import admit, fits
from orchestrator.decide.virtual import allot, networked
from orchestrator.store.ledger import Ledger
from orchestrator.store.port import Change

_ASIDE = frozenset({"run", "stop", "pause", "unpause"})  # verbs that say nothing of a change that is under way


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks: the credentials of the other end of the API's socket (SO_PEERCRED)."""

    uid: int
    gid: int = 0
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to a verb."""

    stack: str
    generation: int
    revision: int
    plan: Plan


class Applying:
    """Of one ledger. The controller's verbs have one."""

    def __init__(self, ledger: Ledger, new_id: Callable[[], str] = task_id) -> None:
        self._ledger = ledger
        self._new_id = new_id

    def plan(
        self,
        name: str,
        services: Sequence[str],
        desired: Mapping[str, expand.Desired],
        current: Sequence[Task],
        intent: Intent,
    ) -> Plan:
        if refusal := fits(name, desired, current, self._others(name)):
            raise refusal.error()
        return plan(desired, current, intent, order=services, new_id=self._new_id, over=self.resting(name, current))

    async def apply(
        self,
        name: str,
        model: dict[str, Any],
        planned: Plan,
        record: StackRecord | None,
        peer: Peer,
        verb: Verb,
        listeners: tuple[Listener, ...] | None = None,
        restored: int | None = None,
    ) -> Applied:
        """Admit, then commit; nothing to change commits nothing. Called with `changing` held."""
        same_model = record is not None and record.model == model
        before = record.virtual if record is not None else {}
        virtual = allot(name, networked(model), before, self._taken(name))
        if record is not None and same_model and not planned.changes and virtual == before and _goes_well(record):
            return Applied(name, record.generation, record.revision, planned)
        self._admit(name, planned.tasks, record, listeners)
        self.must_be_bound()
        counter = self.counter(name)
        generation = counter.generation + 1
        revision = record.revision if record is not None and same_model else restored or counter.revision + 1
        counts = _counts(planned)
        event = self.event(
            "stack.applied" if verb == "up" else f"user.{verb}",
            name,
            peer,
            f"{verb}: {counts}" if counts else f"{verb}: no task changes",
            verb=verb,
            revision=revision,
            generation=generation,
        )
        after = StackRecord(
            name,
            generation,
            revision,
            model,
            record.tasks if record is not None and not record.held else (),
            event.at,
            cause=event.id,
            virtual=virtual,
        )
        events = [event, *self._told(event, planned)]
        back = None if restored else _back(record, revision)
        phase: Phase = "rolling-back" if restored else "updating"
        under_way = record.rollout if record is not None and verb in _ASIDE else None
        after, acts = self._begin(after, planned, record, back, event, phase, under_way)
        events += acts
        revisions = [] if same_model or restored else [Revision(name, revision, event.at, peer.uid, model)]
        await self._ledger.commit(Change(stacks={name: after}, revisions=revisions, events=events))
        return Applied(name, generation, revision, planned)

    def _begin(
        self,
        after: StackRecord,
        planned: Plan,
        before: StackRecord | None,
        back: int | None,
        cause: Event,
        phase: Phase,
        under_way: Rollout | None,
    ) -> tuple[StackRecord, list[Event]]:
        """The first step from what is assigned to what is planned: all of it, where nothing takes another's place.
        `under_way`: a change that stands as it does, paused or on its way back, and is told of when it is over."""
        overtaken = before.rollout if before is not None else None
        goal = rollout.begin(planned.tasks, after.tasks, overtaken, back)
        goal = replace(goal, cause=cause.id, phase=phase)
        if under_way is not None:
            goal = replace(under_way, target=goal.target, moved=goal.moved)
        if goal.phase == "rolled-back":
            return replace(after, tasks=planned.tasks, rollout=replace(goal, target=())), []
        if not goal.moved:
            return replace(after, tasks=planned.tasks), []
        found = rolling.step(self._ledger, after, goal)
        events = rolling.told(self._ledger, after.name, found.acts, cause.id)
        return replace(after, tasks=found.tasks, rollout=found.rollout), events

    def _told(self, applied: Event, planned: Plan) -> list[Event]:
        """One event per task that changes, so that `why` finds who decided it."""
        return [
            self._ledger.event(
                f"plan.{action.kind}",
                action.cause,
                stack=applied.stack,
                service=action.service,
                slot=action.slot,
                task=action.task.id if action.task else None,
                reason=action.reason,
                cause=applied.id,
            )
            for action in planned.actions
            if action.kind != "keep"
        ]

    def event(self, kind: str, stack: str, peer: Peer, message: str, **evidence: object) -> Event:
        message = f"{message} (by uid {peer.uid})"
        return self._ledger.event(kind, message, stack=stack, reason="user", evidence={"uid": peer.uid, **evidence})

    def _admit(
        self, name: str, tasks: Sequence[Task], record: StackRecord | None, listeners: tuple[Listener, ...] | None
    ) -> None:
        if refusals := self.refused(name, tasks, record, listeners):
            error = refusals[0].error()
            error.evidence["refusals"] = [
                {"code": refusal.code, "service": refusal.service, "message": refusal.message} for refusal in refusals
            ]
            raise error

    def refused(
        self,
        name: str,
        tasks: Sequence[Task],
        record: StackRecord | None,
        listeners: tuple[Listener, ...] | None = None,
    ) -> tuple[Refusal, ...]:
        """Why these may not be the tasks of the stack, on this host."""
        current = record.tasks if record is not None and not record.held else ()
        host = self._ledger.host
        if host is not None and listeners is not None:
            host = host.model_copy(update={"listeners": listeners})
        reported = {task.id: task for status in self._ledger.statuses.values() for task in status.tasks}
        return admit(name, tasks, current, self._others(name), host, reported)

    def _others(self, name: str) -> dict[str, tuple[Task, ...]]:
        return {other: r.tasks for other, r in self._ledger.stacks.items() if other != name and not r.held}

    def _taken(self, name: str) -> frozenset[int]:
        """Numbers of virtual addresses that other stacks have, those on their way out among them."""
        others = (record for other, record in self._ledger.stacks.items() if other != name)
        return frozenset(number for record in others for number in record.virtual.values())

    def resting(self, name: str, current: Sequence[Task] | None = None) -> dict[str, str]:
        """Tasks that rest by themselves. One that was asked to run again, and has not answered yet, does not."""
        status, record = self._ledger.statuses.get(name), self._ledger.stacks.get(name)
        current = (record.goal if record else ()) if current is None else current
        asked = {task.id: task.restart_request for task in current}
        return {
            task.id: task.state
            for task in (status.tasks if status else ())
            if task.state in ("failed", "completed") and task.restart_request >= asked.get(task.id, 0)
        }

    def counter(self, name: str) -> Counter:
        return self._ledger.counters.get(name, Counter())

    def must_be_bound(self) -> None:
        """Asked again with `changing` held: a restored database may have been noticed meanwhile."""
        if not self._ledger.bound:
            raise refusals.agent_silent()


def _goes_well(record: StackRecord) -> bool:
    """Nothing of it waits for somebody to say the same again."""
    return not record.held and (record.rollout is None or record.rollout.phase in ("updating", "rolling-back"))


def _back(record: StackRecord | None, revision: int) -> int | None:
    """Where a failure of the change to `revision` leads back to: the last one that had come to its end."""
    under_way: Rollout | None = record.rollout if record is not None else None
    if under_way is not None and under_way.phase in ("updating", "paused") and under_way.back is not None:
        return under_way.back if under_way.back != revision else None
    return record.revision if record is not None and record.revision != revision else None


def _counts(planned: Plan) -> str:
    """ "2 create, 1 replace": in the order of the plan, kept tasks left out."""
    counts: dict[str, int] = {}
    for action in planned.actions:
        if action.kind != "keep":
            counts[action.kind] = counts.get(action.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
