"""One step at a time: what is done next, by state and by what is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.decide.action import (
    Action,
    Clean,
    Discard,
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
from agent.decide.depends import Gate
from agent.decide.health import HealthState
from agent.decide.next_action import next_action
from agent.decide.record import Ending, Stop, TaskRecord
from agent.decide.view import Flows, Hooked, Probed, Seen, Trouble, World
from agent.ports import Exit, Found, ProbeResult, Process, Serving
from agent.wire.messages import Hook, Resources, Restart, Task
from tests.agent.decide.make import BOOT, NOW, PORT, PROCESS, alive, allocation, check, over, record, seen, task, world

HELD = Gate(False, "waiting for db to start (it is pending)")
SERVING = Serving("10.181.0.16", "ready", (PORT,))
NOT_READY, DRAINING, GONE = (Serving("10.181.0.16", state) for state in ("running", "draining", "gone"))


def act(
    record: TaskRecord, seen_: Seen | None = None, task_: Task | None = None, now: float = NOW, **of_world: Any
) -> Action:
    return next_action(task_, record, seen_ or seen(), world(**of_world), now)


def trouble(action: str, *, permanent: bool = False, at: float = NOW, count: int = 1) -> Trouble:
    return Trouble(action, permanent, "some-code", "cannot do it", {"path": "/x"}, count, at)


def told(action: Action) -> str:
    """An action in one line, to compare whole."""
    if not isinstance(action, Move):
        return type(action).__name__ if not hasattr(action, "attempt") else f"{type(action).__name__} {action.attempt}"
    event = f" [{action.event.kind}]" if action.event else ""
    return f"→ {action.record.state} {action.record.reason}".rstrip() + event


PUBLISHED = {"allocation": allocation(ports=(PORT,))}
DOWN, PAUSED, HOOK = task(desired="stopped"), task(desired="paused"), Hook(command=("true",))
DRAINED = task(desired="drained", restart="default")


def stopped(how: Ending | None = None, **stop: Any) -> TaskRecord:
    """Of a task that has served a port, and has left it."""
    return record(state="stopping", ending=how or Ending(), stop=Stop("stopped", **stop), virtual="", **PUBLISHED)


CASES: list[tuple[str, TaskRecord, Seen, Task | None, dict[str, Any], str]] = [
    # pending
    ("pending", record(), seen(), task(), {}, "→ preparing"),
    ("pending, dependencies missing", record(met=""), seen(), task(), {"gate": HELD}, "→ pending waiting"),
    ("pending, slot busy", record(), seen(), task(), {"slot_free": False}, "→ pending slot-busy"),
    ("pending, to be stopped", record(), seen(), task(desired="stopped"), {}, "→ stopped user-stopped"),
    ("pending, unassigned", record(), seen(), None, {}, "→ removed [task.removed]"),
    ("pending, unassigned, leftovers", record(), seen(leftovers=True), None, {}, "Discard"),
    # preparing
    ("preparing", record(state="preparing"), seen(), task(), {}, "Prepare"),
    ("prepared", record(state="preparing"), seen(prepared=True), task(), {}, "→ starting"),
    ("preparing, another attempt lives", record(state="preparing"), seen(alive(3)), task(), {}, "Clean 3"),
    ("preparing, dependencies at boot", record(state="preparing", met="old"), seen(), task(), {"gate": HELD}, "→ preparing waiting"),
    ("preparing failed for now", record(state="preparing"), seen(troubles=(trouble("Prepare"),)), task(), {}, "→ backoff start-failed [task.start-failed]"),
    ("preparing failed for good", record(state="preparing"), seen(troubles=(trouble("Prepare", permanent=True),)), task(), {}, "→ failed cannot-start [task.failed]"),
    ("preparing, unassigned", record(state="preparing"), seen(), None, {}, "→ stopping unassigned [task.stopping]"),
    # starting
    ("starting", record(state="starting", attempt=1), seen(prepared=True), task(), {}, "Start 1"),
    ("started", record(state="starting", attempt=1), seen(alive(), prepared=True), task(), {}, "→ running [task.started]"),
    ("started, and over at once", record(state="starting", attempt=1), seen(over(0), prepared=True), task(), {}, "→ running [task.started]"),
    ("starting, the agent ended meanwhile", record(state="starting", attempt=1), seen(), task(), {}, "→ backoff interrupted"),
    ("starting, a wreck is left", record(state="starting", attempt=1), seen(Found("t1", 1, None, None), prepared=True), task(), {}, "→ backoff interrupted"),
    ("starting failed for good: evidence first", record(state="starting", attempt=1), seen(prepared=True, troubles=(trouble("Start", permanent=True),)), task(), {}, "Tail"),
    ("starting failed for good", record(state="starting", attempt=1), seen(prepared=True, tail=(), troubles=(trouble("Start", permanent=True),)), task(), {}, "→ failed cannot-start [task.failed]"),
    ("starting, not wanted any more", record(state="starting", attempt=1), seen(prepared=True, troubles=(trouble("Start"),)), task(desired="stopped"), {}, "→ stopping user-stopped [task.stopping]"),
    ("starting failed for now", record(state="starting", attempt=1), seen(prepared=True, troubles=(trouble("Start"),)), task(restart="no"), {}, "→ backoff start-failed [task.start-failed]"),
    # running
    ("running", record(state="running"), seen(alive()), task(), {}, "Wait"),
    ("running, adopted: not published yet", record(state="running", **PUBLISHED), seen(alive()), task(), {}, "Publish"),
    ("running, published", record(state="running", **PUBLISHED), seen(alive(), published=SERVING), task(), {}, "Wait"),
    ("running, not healthy yet", record(state="running", health=HealthState("starting"), **PUBLISHED), seen(alive(), published=NOT_READY), task(), {"check": check()}, "Wait"),
    ("running, healthy", record(state="running", health=HealthState("healthy"), **PUBLISHED), seen(alive(), published=NOT_READY), task(), {"check": check()}, "Publish"),
    ("running, an old attempt is left", record(state="running", attempt=2), seen(alive(2), over(1, 1)), task(), {}, "Clean 1"),
    ("running, names have changed", record(state="running"), seen(alive(), named=0), task(), {"peers": 1}, "Rename"),
    ("running, limits have changed", record(state="running"), seen(alive()), task(resources=Resources(memory=1)), {}, "Update"),
    ("running, limits were changed", record(state="running"), seen(alive(), resources=Resources(memory=1)), task(resources=Resources(memory=1)), {}, "→ running [task.updated]"),
    ("running, stop signal has changed", record(state="running"), seen(alive()), task(), {"ending": Ending(signal=2)}, "→ running"),
    ("running, unassigned", record(state="running"), seen(alive()), None, {}, "→ stopping unassigned [task.stopping]"),
    ("running, unassigned, dependents first", record(state="running"), seen(alive()), None, {"holders": ("web",)}, "→ running stopping-later"),
    ("running, stopped by the user", record(state="running"), seen(alive()), task(desired="stopped"), {}, "→ stopping user-stopped [task.stopping]"),
    ("running, restart asked for", record(state="running"), seen(alive()), task(restart_request=1), {}, "→ stopping restart-request [task.stopping]"),
    ("running, restart already honoured", record(state="running", restart_request=1), seen(alive()), task(restart_request=1), {}, "Wait"),
    ("running, conmon lost", record(state="running", process=Process(100, 7, None)), seen(alive(process=Process(100, 7, None))), task(restart="no"), {}, "→ stopping conmon-lost [task.stopping]"),
    ("running, unhealthy", record(state="running", health=HealthState("unhealthy", 3)), seen(alive()), task(restart="default"), {"check": check()}, "→ stopping unhealthy [task.stopping]"),
    ("running, unhealthy, policy no", record(state="running", health=HealthState("unhealthy", 3)), seen(alive()), task(restart="no"), {"check": check()}, "Wait"),
    ("running, unhealthy, to be stopped", record(state="running", health=HealthState("unhealthy", 3)), seen(alive()), task(policy={"on_unhealthy": "stop"}), {"check": check()}, "→ stopping unhealthy [task.stopping]"),
    ("running, unhealthy, to be left", record(state="running", health=HealthState("unhealthy", 3)), seen(alive()), task(policy={"on_unhealthy": "none"}), {"check": check()}, "Wait"),
    ("running, its dependency was restarted", record(state="running"), seen(alive()), task(restart="no"), {"renewed": "db"}, "→ stopping dependency-restarted [task.stopping]"),
    ("running, a new dependency is noted", record(state="running"), seen(alive()), task(), {"upstream": {"db.1": "d1/0"}}, "→ running"),
    ("running, post_start runs", record(state="running", greeting=True), seen(alive()), task(policy={"post_start": (HOOK,)}), {}, "Wait"),
    ("running, post_start is done", record(state="running", greeting=True), seen(alive(), hooked=Hooked(True)), task(policy={"post_start": (HOOK,)}), {}, "→ running [task.hooked]"),
    ("running, the first of two post_start commands is done", record(state="running", greeting=True), seen(alive(), hooked=Hooked(True)), task(policy={"post_start": (HOOK, HOOK)}), {}, "→ running"),
    ("running, the second of two runs", record(state="running", greeting=True, greeted=1), seen(alive()), task(policy={"post_start": (HOOK, HOOK)}), {}, "Wait"),
    ("running, the second of two is done", record(state="running", greeting=True, greeted=1), seen(alive(), hooked=Hooked(True)), task(policy={"post_start": (HOOK, HOOK)}), {}, "→ running [task.hooked]"),
    ("running, more are done than the file has now", record(state="running", greeting=True, greeted=2), seen(alive()), task(policy={"post_start": (HOOK,)}), {}, "→ running [task.hooked]"),
    ("running, post_start failed", record(state="running", greeting=True), seen(alive(), hooked=Hooked(False, "no")), task(restart="no", policy={"post_start": (HOOK,)}), {}, "→ stopping start-failed [task.stopping]"),
    ("running, post_start is gone from the file", record(state="running", greeting=True), seen(alive()), task(), {}, "→ running [task.hooked]"),
    ("to be paused: out of the ports first", record(state="running", **PUBLISHED), seen(alive(), published=SERVING), PAUSED, {}, "Publish"),
    ("to be paused", record(state="running", **PUBLISHED), seen(alive(), published=DRAINING, frozen=None), PAUSED, {}, "Freeze"),
    ("paused", record(state="running"), seen(alive(), frozen=True), PAUSED, {}, "→ running [task.paused]"),
    ("paused, and nothing to do", record(state="running", paused=True, **PUBLISHED), seen(alive(), frozen=True, published=DRAINING), PAUSED, {}, "Wait"),
    ("paused, and the agent is new", record(state="running", paused=True), seen(alive(), frozen=None), PAUSED, {}, "Freeze"),
    ("not to be paused, and the agent is new", record(state="running"), seen(alive(), frozen=None), task(), {}, "Freeze"),
    ("to be resumed", record(state="running", paused=True), seen(alive(), frozen=True), task(), {}, "Freeze"),
    ("resumed", record(state="running", paused=True), seen(alive(), frozen=False), task(), {}, "→ running [task.resumed]"),
    ("paused, restart asked for", record(state="running", paused=True), seen(alive(), frozen=True), task(restart_request=1), {}, "→ stopping restart-request [task.stopping]"),
    ("paused, and killed", record(state="running", paused=True), seen(over(137), tail=()), PAUSED, {}, "→ backoff exit-error [task.exited]"),
    ("running, check came", record(state="running"), seen(alive()), task(), {"check": check()}, "→ running"),
    ("running, check went", record(state="running", health=HealthState("healthy")), seen(alive()), task(), {"check": None}, "→ running"),
    ("running, check not known", record(state="running", health=HealthState("healthy")), seen(alive()), task(), {"check": "unknown"}, "Wait"),
    ("crashed after a stable run: at once, no evidence awaited", record(state="running"), seen(over(1)), task(), {}, "→ backoff exit-error [task.exited]"),
    ("crashed soon: evidence first", record(state="running", started_at=NOW - 1), seen(over(1)), task(), {}, "Tail"),
    ("crashed soon", record(state="running", started_at=NOW - 1), seen(over(1), tail=("boom",)), task(), {}, "→ backoff exit-error [task.exited]"),
    ("completed", record(state="running"), seen(over(0), tail=()), task(restart="default"), {}, "→ completed exit-0 [task.exited]"),
    ("failed", record(state="running"), seen(over(3), tail=()), task(restart="no"), {}, "→ failed exit-error [task.exited]"),
    ("out of memory", record(state="running"), seen(over(137, oom=True), tail=()), task(restart="default"), {}, "→ failed oom [task.exited]"),
    ("ended unseen: again whatever its policy", record(state="running"), seen(over(None), tail=()), task(restart="no"), {}, "→ backoff conmon-lost [task.exited]"),
    ("ended while it was to be removed", record(state="running"), seen(over(0)), None, {}, "→ stopping unassigned [task.stopping]"),
    ("ended while a restart was asked for", record(state="running"), seen(over(0)), task(restart="no", restart_request=1), {}, "→ backoff restart-request [task.exited]"),
    ("rebooted", record(state="running", boot="old"), seen(), task(restart="default"), {}, "→ preparing host-rebooted [task.again]"),
    ("rebooted, and its cgroup is left", record(state="running", boot="old"), seen(Found("t1", 1, None, None)), task(restart="default"), {}, "→ preparing host-rebooted [task.again]"),
    ("rebooted, policy no", record(state="running", boot="old"), seen(), task(restart="no"), {}, "→ failed host-rebooted [task.failed]"),
    ("runtime directory replaced, but it runs: adopted", record(state="running", boot="old"), seen(alive()), task(), {}, "→ running"),
    # stopping
    ("stopping: out of the ports first", record(state="stopping", **PUBLISHED), seen(alive(), published=SERVING), task(desired="stopped"), {}, "Publish"),
    ("stopping: the ports cannot be left yet", record(state="stopping", since=NOW - 1, **PUBLISHED), seen(alive(), published=SERVING, troubles=(trouble("Publish", at=NOW - 1),)), task(desired="stopped"), {}, "Publish"),
    ("stopping: the ports cannot be left", record(state="stopping", since=NOW - 10, **PUBLISHED), seen(alive(), published=SERVING, frozen=False, troubles=(trouble("Publish", at=NOW - 1),)), task(desired="stopped"), {}, "→ stopping"),
    ("stopping: nor can it be thawed", record(state="stopping", since=NOW - 10, stop=Stop("stopped", deadline=NOW + 5)), seen(alive(), frozen=True, troubles=(trouble("Freeze", at=NOW - 1),)), task(desired="stopped"), {}, "Signal"),
    ("unhealthy: it answers until the ports are left", record(state="stopping", since=NOW - 99, stop=Stop("backoff"), **PUBLISHED), seen(alive(), published=SERVING, troubles=(trouble("Publish", at=NOW - 1),)), task(), {}, "Publish"),
    ("stopping: not known whether published", record(state="stopping", **PUBLISHED), seen(alive()), task(desired="stopped"), {}, "Publish"),
    ("stopping: the grace begins", record(state="stopping"), seen(alive()), task(desired="stopped"), {}, "→ stopping"),
    ("stopping: connections are counted", stopped(drained=NOW + 5), seen(alive(), published=DRAINING), DOWN, {}, "Count"),
    ("stopping: some are open", stopped(drained=NOW + 5), seen(alive(), published=DRAINING, flows=Flows(2, NOW)), DOWN, {}, "→ stopping draining"),
    ("stopping: they are counted again", stopped(drained=NOW + 5), seen(alive(), published=DRAINING, flows=Flows(2, NOW - 1)), DOWN, {}, "Count"),
    ("stopping: none is open", stopped(drained=NOW + 5), seen(alive(), published=DRAINING, flows=Flows(0, NOW - 1)), DOWN, {}, "→ stopping"),
    ("stopping: they had their time", stopped(drained=NOW), seen(alive(), published=DRAINING, flows=Flows(2, NOW)), DOWN, {}, "→ stopping"),
    ("stopping: they cannot be counted", stopped(drained=NOW), seen(alive(), published=DRAINING, troubles=(trouble("Count"),)), DOWN, {}, "→ stopping"),
    ("stopping in haste: none is waited for", stopped(quick=True), seen(alive(), published=DRAINING), task(), {}, "→ stopping"),
    ("stopping: pre_stop", stopped(Ending(hooks=(HOOK,)), drained=NOW), seen(alive(), published=DRAINING), DOWN, {}, "→ stopping"),
    ("stopping: pre_stop runs", stopped(Ending(hooks=(HOOK,)), drained=NOW, hooked=NOW + 9), seen(alive(), published=DRAINING), DOWN, {}, "Wait"),
    ("stopping: pre_stop is done", stopped(Ending(hooks=(HOOK,)), drained=NOW, hooked=NOW + 9), seen(alive(), published=DRAINING, hooked=Hooked(True)), DOWN, {}, "→ stopping"),
    ("stopping: the first of two pre_stop commands is done", stopped(Ending(hooks=(HOOK, HOOK)), drained=NOW, hooked=NOW + 9), seen(alive(), published=DRAINING, hooked=Hooked(True)), DOWN, {}, "→ stopping"),
    ("stopping: the second of two runs", stopped(Ending(hooks=(HOOK, HOOK)), drained=NOW, hooked=NOW + 9, ran=1), seen(alive(), published=DRAINING), DOWN, {}, "Wait"),
    ("stopping: the first of two failed", stopped(Ending(hooks=(HOOK, HOOK)), drained=NOW, hooked=NOW + 9), seen(alive(), published=DRAINING, hooked=Hooked(False, "no")), DOWN, {}, "→ stopping [task.hook-failed]"),
    ("stopping: pre_stop failed", stopped(Ending(hooks=(HOOK,)), drained=NOW, hooked=NOW + 9), seen(alive(), published=DRAINING, hooked=Hooked(False, "no")), DOWN, {}, "→ stopping [task.hook-failed]"),
    ("stopping: pre_stop had its time", stopped(Ending(hooks=(HOOK,)), drained=NOW, hooked=NOW), seen(alive(), published=DRAINING), DOWN, {}, "→ stopping [task.hook-failed]"),
    ("stopping what is paused: thaw", record(state="stopping", paused=True), seen(alive(), frozen=True), DOWN, {}, "Freeze"),
    ("stopping what was paused", record(state="stopping", paused=True), seen(alive(), frozen=False), DOWN, {}, "→ stopping"),
    ("unhealthy, to be made anew: nothing is kept", record(state="stopping", process=None, stop=Stop("backoff", fresh=True)), seen(leftovers=True), task(), {}, "Discard"),
    ("stopping: signal", record(state="stopping", stop=Stop("stopped", NOW + 10)), seen(alive()), task(desired="stopped"), {}, "Signal"),
    ("stopping: grace", record(state="stopping", stop=Stop("stopped", NOW + 10)), seen(alive(), signalled=True), task(desired="stopped"), {}, "Wait"),
    ("stopping: KILL", record(state="stopping", stop=Stop("stopped", NOW)), seen(alive(), signalled=True), task(desired="stopped"), {}, "Kill"),
    ("stopping: KILL even if the signal could not be sent", record(state="stopping", stop=Stop("stopped", NOW)), seen(alive(), troubles=(trouble("Signal"),)), task(desired="stopped"), {}, "Kill"),
    ("stopping: KILL takes its time", record(state="stopping", stop=Stop("stopped", NOW)), seen(alive(), killed_at=NOW - 1), task(desired="stopped"), {}, "Wait"),
    ("stopping: KILL did not help", record(state="stopping", stop=Stop("stopped", NOW)), seen(alive(), killed_at=NOW - 9), task(desired="stopped"), {}, "→ stopping unkillable"),
    ("stopping: it ended", record(state="stopping", stop=Stop("stopped", NOW + 10)), seen(over(0)), task(desired="stopped"), {}, "→ stopping [task.exited]"),
    ("stopped: clean", record(state="stopping", process=None, exit=over(0).exit), seen(over(0)), task(desired="stopped"), {}, "Clean 1"),
    ("stopped", record(state="stopping", process=None), seen(), task(desired="stopped"), {}, "→ stopped user-stopped [task.stopped]"),
    ("stopped to run again", record(state="stopping", process=None, reason="unhealthy", stop=Stop("backoff", delay=1.0)), seen(), task(), {}, "→ backoff unhealthy"),
    ("stopped for good", record(state="stopping", process=None, reason="unhealthy", stop=Stop("failed")), seen(), task(), {}, "→ failed unhealthy [task.failed]"),
    ("stopping to restart, but now to be stopped", record(state="stopping", stop=Stop("backoff")), seen(alive()), task(desired="stopped"), {}, "→ stopping user-stopped"),
    ("stopping to restart, but now unassigned", record(state="stopping", stop=Stop("backoff")), seen(alive()), None, {}, "→ stopping unassigned"),
    ("to be removed: leftovers", record(state="stopping", process=None, stop=Stop("removed")), seen(leftovers=True), None, {}, "Discard"),
    ("removed", record(state="stopping", process=None, stop=Stop("removed")), seen(), None, {}, "→ removed [task.removed]"),
    ("stopped by a reboot", record(state="stopping", boot="old", process=None), seen(), task(desired="stopped"), {}, "→ stopped user-stopped [task.stopped]"),
    # drained
    ("drained before it began", record(), seen(), DRAINED, {}, "→ stopped host-drained"),
    ("drained while it is prepared", record(state="preparing"), seen(), DRAINED, {}, "→ stopping host-drained [task.stopping]"),
    ("drained while it runs", record(state="running"), seen(alive()), DRAINED, {}, "→ stopping host-drained [task.stopping]"),
    ("drained, dependents first", record(state="running"), seen(alive()), DRAINED, {"holders": ("web",)}, "→ running stopping-later"),
    ("drained, and done before it is stopped", record(state="running"), seen(over(0), tail=()), DRAINED, {}, "→ completed exit-0 [task.exited]"),
    ("drained, and the host rebooted", record(state="running", boot="old"), seen(), DRAINED, {}, "→ stopping host-drained [task.stopping]"),
    ("drained while it stops to run again", record(state="stopping", stop=Stop("backoff")), seen(alive()), DRAINED, {}, "→ stopping host-drained"),
    ("drained: it has ended", record(state="stopping", process=None), seen(), DRAINED, {}, "→ stopped host-drained [task.stopped]"),
    ("drained, then unassigned", record(state="stopped", reason="host-drained"), seen(), None, {}, "→ removed [task.removed]"),
    ("drained while it waits to be restarted", record(state="backoff", until=NOW + 60), seen(), DRAINED, {}, "→ stopped host-drained [task.stopped]"),
    ("drained stays, also at boot", record(state="stopped", reason="host-drained", boot="old"), seen(), DRAINED, {}, "Wait"),
    ("drained: done stays done", record(state="completed"), seen(), DRAINED, {}, "Wait"),
    ("drained: failed stays failed, also at boot", record(state="failed", boot="old"), seen(), task(desired="drained"), {}, "Wait"),
    ("drained no more", record(state="stopped", reason="host-drained"), seen(), task(restart="no"), {}, "→ preparing host-undrained [task.again]"),
    ("drained no more, done stays done", record(state="completed", policy=Restart()), seen(), task(restart="default"), {}, "Wait"),
    ("stopped by the user while drained", record(state="stopped", reason="host-drained"), seen(), DOWN, {}, "→ stopped user-stopped"),
    ("stopped by the user before it was drained", record(state="stopped", reason="user-stopped"), seen(), DRAINED, {}, "Wait"),
    # backoff
    ("backoff", record(state="backoff", until=NOW + 1), seen(), task(), {}, "Wait"),
    ("backoff over", record(state="backoff", until=NOW), seen(), task(), {}, "→ preparing"),
    ("backoff, leaves the ports meanwhile", record(state="backoff", until=NOW + 1, **PUBLISHED), seen(published=SERVING), task(), {}, "Publish"),
    ("backoff, cleans meanwhile", record(state="backoff", until=NOW + 1), seen(over(1)), task(), {}, "Clean 1"),
    ("backoff over, others answer meanwhile", record(state="backoff", until=NOW, **PUBLISHED), seen(published=SERVING), task(), {"company": True}, "Publish"),
    ("backoff over, others answer: it has left", record(state="backoff", until=NOW, **PUBLISHED), seen(published=GONE), task(), {"company": True}, "→ preparing"),
    ("backoff over, alone", record(state="backoff", until=NOW, **PUBLISHED), seen(published=SERVING), task(), {}, "→ preparing"),
    ("backoff over at boot: dependencies first", record(state="backoff", until=NOW, met="old"), seen(), task(), {"gate": HELD}, "→ backoff waiting"),
    ("backoff, restart asked for", record(state="backoff", until=NOW + 60), seen(), task(restart_request=1), {}, "→ preparing restart-request [task.again]"),
    ("backoff, stopped", record(state="backoff", until=NOW + 60), seen(), task(desired="stopped"), {}, "→ stopped user-stopped [task.stopped]"),
    ("backoff, unassigned", record(state="backoff", until=NOW + 60), seen(leftovers=True), None, {}, "Discard"),
    # at rest
    ("stopped stays", record(state="stopped"), seen(), task(desired="stopped"), {}, "Wait"),
    ("stopped, started", record(state="stopped"), seen(), task(), {}, "→ preparing user-started [task.again]"),
    ("stopped at boot stays", record(state="stopped", boot="old"), seen(), task(desired="stopped"), {}, "Wait"),
    ("completed stays", record(state="completed", policy=Restart()), seen(), task(restart="default"), {}, "Wait"),
    ("completed, started again", record(state="completed"), seen(), task(restart="default", restart_request=1), {}, "→ preparing user-started [task.again]"),
    ("completed, stopped", record(state="completed"), seen(), task(desired="stopped"), {}, "→ stopped user-stopped [task.stopped]"),
    ("completed at boot stays", record(state="completed", boot="old"), seen(), task(restart="default"), {}, "→ completed"),
    ("completed at boot, always", record(state="completed", boot="old"), seen(), task(restart="always"), {}, "→ preparing host-rebooted [task.again]"),
    ("failed at boot stays", record(state="failed", boot="old"), seen(), task(restart="default"), {}, "→ failed"),
    ("failed at boot, on-failure", record(state="failed", boot="old"), seen(), task(restart="on-failure"), {}, "→ preparing host-rebooted [task.again]"),
    ("failed, policy changed", record(state="failed", policy=Restart(condition="no")), seen(), task(restart="always"), {}, "→ preparing policy-changed [task.again]"),
    ("failed, policy changed to no avail", record(state="failed", policy=Restart(condition="no")), seen(), task(restart="default"), {}, "→ failed"),
    ("cannot start, policy changed", record(state="failed", reason="cannot-start", policy=Restart(condition="no")), seen(), task(restart="always"), {}, "→ failed cannot-start"),
    ("failed, unassigned", record(state="failed"), seen(), None, {}, "→ removed [task.removed]"),
    ("failed, cleans", record(state="failed"), seen(over(1)), task(), {}, "Clean 1"),
    ("removed", record(state="removed"), seen(), None, {}, "Gone"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)])
def test_step(case: tuple[str, TaskRecord, Seen, Task | None, dict[str, Any], str]) -> None:
    _, before, seen_, task_, of_world, expected = case
    assert told(act(before, seen_, task_, **of_world)) == expected


def test_the_actions_are_told_apart() -> None:
    """The table above would not notice wrong arguments."""
    assert act(record(state="running", **PUBLISHED), seen(alive()), task()) == Publish(SERVING)
    assert act(record(state="stopping", **PUBLISHED), seen(alive()), task()) == Publish(DRAINING)
    stopping = record(state="stopping", stop=Stop("stopped", NOW + 3), ending=Ending(signal=2, grace=5.0))
    assert act(stopping, seen(alive()), task()) == Signal(2)
    assert act(stopping, seen(alive(), signalled=True), task()) == Wait(NOW + 3)
    assert act(record(state="running"), seen(alive()), task(), peers=4) == Rename(4)
    limits = Resources(memory=5)
    assert act(record(state="running"), seen(alive()), task(resources=limits)) == Update(limits)
    assert act(record(state="backoff", until=NOW + 7), seen(), task()) == Wait(NOW + 7)
    for action in (Prepare(), Kill(), Tail(), Discard(), Gone(), Clean(1), Start(1)):
        assert told(action).startswith(type(action).__name__)


def moved(action: Action) -> TaskRecord:
    assert isinstance(action, Move)
    return action.record


def test_a_new_attempt_counts_on_from_everything_seen() -> None:
    after = moved(act(record(state="preparing", attempt=2), seen(over(1, 5), prepared=True), task()))
    assert (after.attempt, after.restarts) == (6, 1)


def test_what_is_recorded_of_a_crash() -> None:
    before = record(state="running", started_at=NOW - 2, failures=1)
    action = act(before, seen(over(3), tail=("boom",)), task())
    after = moved(action)
    assert after.until == pytest.approx(NOW + 0.2)
    assert (after.failures, after.retries, after.exit, after.process) == (2, 1, over(3).exit, None)
    assert after.message == "exit 3, 2 times in a row"
    assert after.evidence["log_tail"] == ["boom"]
    assert after.evidence["rule"] == "exit-error → again (always)"
    assert isinstance(action, Move) and action.event is not None and action.event.cause == "world"


def test_the_grace_begins_once() -> None:
    before = record(state="stopping", ending=Ending(grace=4.0))
    assert moved(act(before, seen(alive()), task())).stop == Stop("stopped", NOW + 4)


def test_an_end_that_nobody_saw_is_told_once() -> None:
    wreck = seen(Found("t1", 1, None, None))
    after = moved(act(record(state="stopping"), wreck, task(desired="stopped")))
    assert after.exit == Exit(None, None, False, NOW)
    assert act(after, wreck, task(desired="stopped"), now=NOW + 1) == Clean(1)


def test_a_clock_set_back_does_not_stretch_waits() -> None:
    late = record(state="stopping", stop=Stop("stopped", NOW + 9999), ending=Ending(grace=4.0))
    sooner = moved(act(late, seen(alive(), signalled=True), task()))
    assert act(sooner, seen(alive(), signalled=True), task()) == Wait(NOW + 4)
    assert isinstance(act(sooner, seen(alive(), signalled=True), task(), now=NOW + 4), Kill)
    sooner = moved(act(record(state="backoff", until=NOW + 9999), seen(), task()))
    assert act(sooner, seen(), task()) == Wait(NOW + 66)
    killing = record(
        state="stopping", stop=Stop("stopped", NOW), message="cannot be killed yet: the kernel holds its process"
    )
    assert isinstance(act(killing, seen(alive(), killed_at=NOW + 99), task()), Kill)


def test_reboot_waits_for_dependencies_again() -> None:
    after = moved(act(record(state="running", boot="old", met="old"), seen(), task()))
    assert after.started_at is None
    held = act(after, seen(), task(), gate=HELD)
    assert moved(held).reason == "waiting"
    assert act(after, seen(), task()) == Prepare()


def test_a_plain_restart_does_not_wait_for_dependencies() -> None:
    after = moved(act(record(state="running"), seen(over(1)), task(), gate=HELD))
    assert told(act(after, seen(over(1), prepared=True), task(), gate=HELD)) == "→ preparing"


def test_the_same_start_failure_again_is_no_news() -> None:
    failing = seen(troubles=(trouble("Prepare"),))
    first = act(record(state="preparing"), failing, task())
    assert isinstance(first, Move) and first.event is not None
    waiting = moved(act(first.record, seen(), task(), now=NOW + 60))
    second = act(waiting, failing, task(), now=NOW + 60)
    assert isinstance(second, Move) and second.event is None
    assert second.record.failures == 2


def test_troubles_wait_before_they_are_tried_again() -> None:
    before = record(state="running", **PUBLISHED)
    failing = seen(alive(), troubles=(trouble("Publish", at=NOW),))
    held = act(before, failing, task())
    assert moved(held).message == "cannot do it"
    assert act(moved(held), failing, task()) == Wait(NOW + 0.2)
    assert isinstance(act(moved(held), failing, task(), now=NOW + 0.2), Publish)
    # and they do not keep it from being stopped
    assert told(act(moved(held), failing, None)) == "→ stopping unassigned [task.stopping]"


def test_health_is_folded_and_told_at_its_edges() -> None:
    bad = Probed(1, ProbeResult(False, "503", 503), 50.0, NOW)
    before = record(state="running", health=HealthState("starting", 1))
    quiet = act(before, seen(alive(), probes=(bad,)), task(), check=check())
    assert isinstance(quiet, Move) and quiet.folded and not quiet.durable and quiet.event is None
    loud = act(quiet.record, seen(alive(), probes=(bad,)), task(), check=check())
    assert isinstance(loud, Move) and loud.durable and loud.event is not None
    assert (loud.event.kind, loud.event.evidence["probe_output"]) == ("task.unhealthy", "503")


def test_a_probe_of_another_attempt_is_dropped() -> None:
    bad = Probed(7, ProbeResult(False, "late"), 50.0, NOW)
    before = record(state="running", health=HealthState("starting", 2))
    dropped = act(before, seen(alive(), probes=(bad,)), task(), check=check())
    assert isinstance(dropped, Move) and dropped.folded and dropped.record == before


def test_unhealthy_while_it_stops_changes_nothing() -> None:
    before = record(state="stopping", health=HealthState("unhealthy", 3), stop=Stop("stopped", NOW + 5))
    assert act(before, seen(alive(), signalled=True), task(desired="stopped"), check=check()) == Wait(NOW + 5)


def test_adoption_takes_the_process_that_is_seen() -> None:
    other = Process(200, 9, 199)
    after = moved(act(record(state="running"), seen(alive(process=other)), task()))
    assert (after.process, after.attempt) == (other, 1)


def test_exit_of_an_earlier_attempt_is_not_told_as_the_last() -> None:
    before = record(state="preparing", attempt=1, exit=Exit(3, None, False, NOW))
    going = moved(act(before, seen(), task(desired="stopped")))
    rested = moved(act(going, seen(), task(desired="stopped")))
    assert rested.message == "stopped: it did not run"


def test_nothing_is_decided_by_a_world_it_does_not_look_at() -> None:
    """Equal facts, equal decisions."""
    before = record(state="running")
    one, other = (act(before, seen(alive()), task(), roll=roll) for roll in (0.0, 0.9))
    assert one == other == Wait()
    assert replace(before) == before and World(BOOT) == World(BOOT) and Process(100, 7, 99) == PROCESS
