"""One service's part in a rollout's step: which of its slots change hands now, and what is said of it. Pure.

Two promises: with start-first an old task goes only after its successor is ready; else at most `parallelism` ready ones
are taken away, and the next ones only after their successors are ready. What is not ready has nothing to lose, and is
replaced at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.wire.messages import Task, TaskStatus
from orchestrator.decide.records import Rollout
from orchestrator.decide.update import UNCHECKED, FailureAction, Settings

# Why a task waits in backoff without having failed: the agent or the host ended while it was started, and now it may
# have to wait for others (agent/decide/next_action.py).
NO_FAULT = frozenset({"interrupted", "waiting", "slot-busy", "network-awaited", "mount-missing"})
TRIES = 5  # ends in a row after which a job counts as failed, though it is tried again
Place = tuple[str, int]  # service, slot
Statuses = Mapping[str, TaskStatus]


@dataclass(frozen=True, slots=True)
class Act:
    """`message`: one sentence."""

    kind: Literal["begun", "retired", "failed", "paused", "rolled-back", "done"]
    service: str
    slot: int | None
    task: str | None
    message: str


class Turn:
    """`slots`: each target, with those of its slot that are assigned. `pending`: targets that have not begun; `busy`:
    those that have, and are not ready yet."""

    def __init__(
        self,
        name: str,
        rollout: Rollout,
        slots: Sequence[tuple[Task, Sequence[Task]]],
        statuses: Statuses,
        settings: Settings,
        now: float,
    ) -> None:
        self._name, self._slots, self._statuses, self._settings, self._now = name, slots, statuses, settings, now
        self._moved = frozenset(rollout.moved)
        self.due: list[float] = []  # when a new task will have run for long enough, if it goes on so
        self.pending = [target for target, mates in slots if target.id in self._moved and not _begun(target, mates)]
        self.failures: list[Act] = []
        self._settled: set[str] = set()
        self.busy: list[Task] = []
        for target, mates in slots:
            if self._stands_in(target, mates):
                self.busy.append(target)
            if target.id not in self._moved or not _begun(target, mates):
                continue
            if why := self._trouble(target, mates):
                if target.id not in rollout.failed:
                    self.failures.append(Act("failed", name, target.slot, target.id, why))
            elif self._is_settled(target):
                self._settled.add(target.id)
            elif target.id not in rollout.failed:
                self.busy.append(target)
        self.open = bool(self.pending or self.busy) or any(len(mates) > 1 for _, mates in slots)

    def action(self, failed: Mapping[str, str]) -> FailureAction:
        """What is to be done, given all that have failed: `continue` while they are no more than may."""
        own = [target.id for target, _ in self._slots if target.id in self._moved]
        count = sum(task in failed for task in own)
        return self._settings.failure_action if count and count / len(own) > self._settings.ratio else "continue"

    def why(self, failed: Mapping[str, str]) -> str:
        """The first failure, for people."""
        found = next((target for target, _ in self._slots if target.id in failed), None)
        return f"{found.service}.{found.slot} failed: {failed[found.id]}" if found else ""

    def rested(self, since: float | None) -> float | None:
        """When the last batch was done, for the delay before the next."""
        began = len(self.pending) < sum(target.id in self._moved for target, _ in self._slots)
        if not self._settings.delay or self.busy or not self.pending or not began:
            return None
        return self._now if since is None or since > self._now else since

    def next(self, waits: bool, rested: float | None) -> tuple[list[Task], list[Act]]:
        """The service's tasks from now on, and what is told of them. `waits`: nothing may begin."""
        resting = rested is not None and self._now < rested + self._settings.delay
        if resting and rested is not None and not waits:
            self.due.append(rested + self._settings.delay)
        free = [] if waits else [target.id for target in self.pending]
        poor = {t.id for t, mates in self._slots if t.id in free and not any(self._serves(m) for m in mates)}
        most = self._settings.parallelism or len(self._slots)
        begin = poor or ({*free[:most]} if not self.busy and not resting else set())
        kept: list[Task] = []
        acts: list[Act] = []
        for target, mates in self._slots:
            if target.id in begin:
                stay = None if target.id in poor else self._stays(target, mates)
                kept += [stay] if stay else []
                kept.append(target.model_copy(update={"beside": stay.id if stay else ""}))
                acts.append(self._told(target, mates, stay))
            elif target in self.pending:
                kept.append(_one(mates, self._serves))
            else:
                own, told = self._finish(target, mates)
                kept += own
                acts += told
        return kept, acts

    def _stays(self, target: Task, mates: Sequence[Task]) -> Task | None:
        """Who serves on beside the new task until that is ready; None: it takes the place of all of them."""
        if self._settings.order == "stop-first" or any(mate.id == target.id for mate in mates):
            return None
        return _one(mates, self._serves)

    def _told(self, target: Task, mates: Sequence[Task], stay: Task | None) -> Act:
        name, order = f"{target.service}.{target.slot}", f"({self._settings.order}: {self._settings.why})"
        if any(mate.id == target.id for mate in mates):
            message = f"{name} is restarted"
        elif stay is not None:
            message = f"{name} gets a new container beside the old one {order}"
        elif self._settings.order == "stop-first":
            message = f"{name} gets a new container in place of the old one {order}"
        else:
            message = f"{name} gets a new container in place of the old one, which was not ready"
        return Act("begun", target.service, target.slot, target.id, message)

    def _finish(self, target: Task, mates: Sequence[Task]) -> tuple[list[Task], list[Act]]:
        """The target and, until it is ready, whom it comes after. What came after the target itself is given up."""
        mate = next((mate for mate in mates if mate.id == target.id), None)
        now = target if mate is None else target.model_copy(update={"beside": mate.beside})
        stay: list[Task] = []
        if target.desired == "running" and target.id in self._moved - self._settled:
            stay = [other for other in mates if other.id != target.id and other.beside != target.id]
        stay += self._stands_in(target, mates)
        gone = [other for other in mates if other.id != target.id and other not in stay]
        name = f"{target.service}.{target.slot}"
        return [*stay, now], [
            Act("retired", o.service, o.slot, o.id, f"{name}: its {self._age(o, target)} container goes") for o in gone
        ]

    def _stands_in(self, target: Task, mates: Sequence[Task]) -> list[Task]:
        """Who came after a target that was there before, and serves while that does not: on the way back, too, nothing
        that serves goes before what it leaves its place to."""
        if target.id in self._moved or target.desired != "running" or self._serves(target):
            return []
        return [mate for mate in mates if mate.beside == target.id and self._serves(mate)]

    @staticmethod
    def _age(other: Task, target: Task) -> str:
        return "new" if other.beside == target.id else "old"

    def _serves(self, task: Task) -> bool:
        """Whether something is lost with it: a one-shot that is done answers nobody any more."""
        status = self._statuses.get(task.id)
        return status is not None and status.state == "running" and ready(task, status) and not self._settings.job

    def _trouble(self, target: Task, mates: Sequence[Task]) -> str:
        status = self._statuses.get(target.id)
        if status is None or status.restart_request < target.restart_request:
            return ""
        if status.state == "completed":
            lives = any(self._serves(mate) for mate in mates if mate.id != target.id)
            return "it has ended, and the one before runs on" if lives else ""
        if status.reason in NO_FAULT and not status.failures:
            return ""
        ill = "unhealthy" in (status.health, status.reason)
        again = status.failures >= TRIES if self._settings.job else status.failures or status.state == "backoff"
        if ill or again or status.state == "failed":
            return status.message or status.reason or status.state
        return ""

    def _is_settled(self, task: Task) -> bool:
        """Ready, and for long enough."""
        status = self._statuses.get(task.id)
        if status is None or not ready(task, status) or (self._settings.job and status.state != "completed"):
            return False
        monitor = self._settings.monitor
        if monitor is None:
            monitor = UNCHECKED if status.health == "none" else 0.0
        if status.state == "completed" or status.started_at is None or status.started_at > self._now:
            return True
        if self._now >= status.started_at + monitor:
            return True
        self.due.append(status.started_at + monitor)
        return False


def ready(task: Task, status: TaskStatus | None) -> bool:
    """Whether it answers; a one-shot that is done counts."""
    if status is None or status.restart_request < task.restart_request:
        return False
    return status.state == "completed" or (status.state == "running" and status.health in ("none", "healthy"))


def _begun(target: Task, mates: Sequence[Task]) -> bool:
    return any(mate.id == target.id and mate.restart_request >= target.restart_request for mate in mates)


def _one(mates: Sequence[Task], good: Callable[[Task], bool]) -> Task:
    """Of two that share a slot the one that serves, else the older one."""
    ids = {mate.id for mate in mates}
    ordered = sorted(mates, key=lambda task: task.beside in ids)
    return next(filter(good, ordered), ordered[0])
