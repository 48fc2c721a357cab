"""A task's whole life against a toy host, whatever happens to it: exits, users, reboots, an agent that dies anywhere.

What must hold: never two live attempts; an exit's order (out of what it serves, its connections, pre_stop, the signal);
every rest is reached in bounded steps; backoff within its bounds; every event has a cause that exists.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.decide import hooks, states
from agent.decide.action import (
    Action,
    Clean,
    Count,
    Discard,
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
from agent.decide.depends import OPEN, Gate
from agent.decide.endpoints import leaves
from agent.decide.next_action import next_action
from agent.decide.record import Ending, dump, ending, load
from agent.decide.restart import CAP, JITTER
from agent.decide.view import Flows, Hooked, Probed, Seen, Trouble, World
from agent.ports import Exit, Found, ProbeResult, Process
from agent.wire.messages import Hook, Restart
from tests.agent.decide.make import IMAGE, NOW, PORT, allocation, check, record, task

CONDITIONS = ("default", "no", "on-failure", "always", "unless-stopped")
FAILING = ("Prepare", "Start", "Publish", "Clean", "Discard", "Signal", "Update", "Freeze", "Count")
HOOK = Hook(command=("true",))


class Life(RuleBasedStateMachine):
    @initialize(
        condition=st.sampled_from(CONDITIONS),
        limit=st.none() | st.integers(0, 3),
        stubborn=st.booleans(),
        checked=st.booleans(),
        stop_first=st.booleans(),
        policy=st.fixed_dictionaries(
            {
                "on_unhealthy": st.sampled_from([None, "restart", "recreate", "stop", "none"]),
                "drain": st.sampled_from([0.0, 5.0]),
                "post_start": st.sampled_from([(), (HOOK,), (HOOK, HOOK)]),
                "pre_stop": st.sampled_from([(), (HOOK,), (HOOK, HOOK, HOOK)]),
            }
        ),
    )
    def begin(
        self,
        condition: str,
        limit: int | None,
        stubborn: bool,
        checked: bool,
        stop_first: bool,
        policy: dict[str, Any],
    ) -> None:
        self.checked, self.stop_first = checked, stop_first
        self.task = task(
            restart=Restart(condition=condition, max_attempts=limit),  # type: ignore[arg-type]
            policy=policy,
        )
        self.assigned = True
        self.record = record(boot="", met="", allocation=allocation(ports=(PORT,)), cause="e0")
        self.told = {"e0"}
        self.connections, self.left, self.frozen = 0, 0.0, False
        self.hook_ends: bool | None = True  # None: it hangs
        self.dependency = 0
        self.now, self.boot, self.pid = NOW, 1, 100
        self.host: dict[int, Found] = {}  # attempts
        self.parts = self.served = False
        self.stubborn = stubborn
        self.failing: dict[str, bool] = {}  # action → for good
        self.gate = OPEN
        self.gone = False
        self.stopped_by_user = 0
        self.look()

    def look(self) -> None:
        """What an agent sees that has just started."""
        self.seen = Seen(attempts=tuple(self.host.values()), leftovers=self.parts)
        stop = self.record.stop  # what the agent before this one has waited for
        self.waited_hooks = stop is not None and stop.deadline is not None
        self.waited_flows = self.waited_hooks or (stop is not None and stop.hooked is not None)
        self.prepared = False  # by this agent: it has what a start needs in memory

    def world(self) -> World:
        return World(
            boot=f"boot-{self.boot}",
            gate=self.gate,
            check=check() if self.checked else None,
            virtual="10.181.4.16",
            peers=0,
            ending=self.ending,
            upstream={"db.1": f"d1/{self.dependency}"},
            renewed="db"
            if self.record.upstream.get("db.1", f"d1/{self.dependency}") != f"d1/{self.dependency}"
            else "",
        )

    @property
    def ending(self) -> Ending:
        return ending(self.task, IMAGE)

    # One step -----------------------------------------------------------------------------------------------------

    def next(self) -> Action:
        self.now += 0.0001  # no two looks in the same instant
        action = next_action(self.task if self.assigned else None, self.record, self.seen, self.world(), self.now)
        if isinstance(action, Move):
            states.check(self.record.state, action.record.state)
            assert load(dump(action.record)) == action.record
            if action.folded:
                self.seen = replace(self.seen, probes=self.seen.probes[1:])
            if hooks.progress(action.record) != hooks.progress(self.record):
                self.seen = replace(self.seen, hooked=None)
            if action.record.state != self.record.state:
                self.seen = self.seen.entered()
            self.record = action.record
            if action.event is not None:
                assert action.event.cause != "task" or self.record.cause in self.told, "a cause that does not exist"
                self.record = replace(self.record, cause=f"e{len(self.told)}")
                self.told.add(str(self.record.cause))
        elif (name := type(action).__name__) in self.failing:
            permanent = self.failing.pop(name)
            self.seen = self.seen.failed(Trouble(name, permanent, "code", "cannot", at=self.now))
            if isinstance(action, Start):
                self.host[action.attempt] = Found("t1", action.attempt, None, None)
                self.seen = self.seen.found(self.host[action.attempt])
        else:
            self.effect(action)
            self.seen = self.seen.worked(type(action))
        return action

    def effect(self, action: Action) -> None:
        match action:
            case Prepare():
                self.parts = self.prepared = True
                self.seen = replace(self.seen, prepared=True, leftovers=True, named=0)
            case Start(attempt):
                assert self.parts and self.prepared, "started without having been prepared"
                assert not self.alive, "two live attempts"
                assert attempt not in self.host, "an attempt's number was used again"
                self.pid += 1
                self.host[attempt] = Found("t1", attempt, Process(self.pid, self.pid, 1), None)
                self.seen = replace(
                    self.seen.found(self.host[attempt]), resources=self.task.policy.resources, frozen=False
                )
            case Publish(serving):
                takes = bool(serving.ports or serving.virtual)
                assert not takes or self.record.state == "running", "published without running"
                assert (serving.state != "gone") == bool(self.alive), (
                    "its flows are forgotten when it is gone, and only then"
                )
                self.left = self.now if self.served and not takes else self.left
                self.served = takes
                self.seen = replace(self.seen, published=serving)
            case Freeze(frozen):
                assert self.alive and not (frozen and self.served), "paused while it serves"
                self.frozen = frozen
                self.seen = replace(self.seen, frozen=frozen)
            case Count():
                assert not self.served, "its connections are counted while new ones come"
                self.seen = replace(self.seen, flows=Flows(self.connections, self.now))
            case Signal():
                assert self.alive, "signalled what does not run"
                assert not self.served, "signalled while it serves published ports"
                self.may_be_signalled()
                self.seen = replace(self.seen, signalled=True)
                if not self.stubborn:
                    assert not self.frozen, "a frozen process takes no signal"
                    self.end(Exit(143, 15, False, self.now))
            case Kill():
                assert self.alive, "killed what does not run"
                self.seen = replace(self.seen, killed_at=self.now)
                self.end(Exit(137, 9, False, self.now))
            case Tail():
                self.seen = replace(self.seen, tail=("last words",))
            case Clean(attempt):
                assert attempt != self.record.attempt or self.record.state != "running", "cleaned what should run"
                self.host.pop(attempt, None)
                self.seen = self.seen.cleaned(attempt)
            case Discard():
                assert not self.host, "discarded under a container"
                self.parts = self.served = False
                self.seen = replace(
                    self.seen, leftovers=False, prepared=False, published=leaves(self.record, alive=False)
                )
            case Rename(version):
                self.seen = replace(self.seen, named=version)
            case Update(resources):
                self.seen = replace(self.seen, resources=resources)
            case Gone():
                assert not self.host and not self.parts and not self.assigned
                self.gone = True
            case _:
                assert isinstance(action, Wait)

    def may_be_signalled(self) -> None:
        """Its connections and its pre_stop commands have ended, or had their time."""
        stop, how = self.record.stop, self.record.ending
        assert stop is not None and self.record.state == "stopping"
        if how.drain and not stop.quick:
            counted = self.seen.flows is not None and self.seen.flows.count == 0
            assert counted or stop.drained is None or self.now >= stop.drained or self.waited_flows, "it did not drain"
            assert stop.drained is not None
        if how.hooks:
            assert stop.hooked is not None, "its pre_stop commands were left out"
            last = self.seen.hooked is not None and (stop.ran == len(how.hooks) - 1 or not self.seen.hooked.ok)
            assert last or self.now >= stop.hooked or self.waited_hooks, "they were not waited for"

    @property
    def alive(self) -> list[Found]:
        return [found for found in self.host.values() if found.process is not None]

    def end(self, exit_: Exit) -> None:
        self.frozen = False
        for found in self.alive:
            self.host[found.attempt] = Found("t1", found.attempt, None, exit_)
            self.seen = self.seen.found(self.host[found.attempt])

    def rest(self, bound: int = 300) -> None:
        """Steps, and the waits it asks for, until it waits for the world; that many must do."""
        for _ in range(bound):
            if self.gone:
                return
            action = self.next()
            if isinstance(action, Wait):
                if self.hooks_end():
                    continue
                if action.until is None:
                    return
                assert action.until > self.now, "asked to wait for what is past"
                self.now = action.until
        raise AssertionError(f"no rest after {bound} steps in {self.record.state}")

    def hooks_end(self) -> bool:
        due = hooks.due(self.task if self.assigned else None, self.record)
        if due is None or not self.alive or self.hook_ends is None or self.seen.hooked is not None:
            return False
        self.seen = replace(self.seen, hooked=Hooked(self.hook_ends, "it said no"))
        self.hook_ends = True  # what fails for ever is tried for ever
        return True

    # What can happen ------------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 12))
    def some_steps(self, count: int) -> None:
        for _ in range(count):
            if not self.gone:
                self.next()

    @rule()
    def all_steps(self) -> None:
        self.rest()
        policy = self.task.policy.restart
        persistent = policy.condition in ("always", "unless-stopped") and policy.max_attempts is None
        possible = self.gate.open and self.record.reason not in ("cannot-start", "unhealthy") and not self.failing
        if persistent and possible and self.task.desired == "running" and self.hook_ends:
            assert self.alive and self.record.state == "running" and not self.frozen
        if self.record.state == "running" and not self.failing:
            assert self.frozen == self.record.paused == (self.task.desired == "paused")
        if not self.task.wanted and not self.failing:
            assert self.record.state in ("stopped", "completed", "failed") and not self.served

    @rule(code=st.sampled_from([0, 1, 137, None]), oom=st.booleans())
    def exits(self, code: int | None, oom: bool) -> None:
        self.end(Exit(code, None, oom and code == 137, self.now))

    @rule(seconds=st.sampled_from([0.05, 1.0, 30.0, 3600.0, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def agent_dies(self) -> None:
        pids = [found.process for found in self.alive]
        self.record = load(dump(self.record))
        self.look()
        running = self.record.state == "running" and self.assigned and self.task.desired == "running"
        quiet = running and self.record.health.status != "unhealthy" and not self.failing
        quiet = quiet and bool(self.hook_ends or not self.record.greeting) and not self.world().renewed
        if quiet and self.task.restart_request == self.record.restart_request and pids:
            self.rest()
            assert [found.process for found in self.alive] == pids, "adoption changed a process"

    @rule()
    def reboot(self) -> None:
        self.boot += 1
        self.host.clear()
        self.served = self.frozen = False
        self.record = load(dump(self.record))
        self.look()

    @rule(ok=st.booleans(), count=st.integers(1, 4))
    def probed(self, ok: bool, count: int) -> None:
        if not self.checked:
            return
        result = ProbeResult(ok, "said", 0 if ok else 1)
        probes = tuple(Probed(self.record.attempt, result, 60.0, self.now) for _ in range(count))
        self.seen = replace(self.seen, probes=(*self.seen.probes, *probes))

    @rule(action=st.sampled_from(FAILING), permanent=st.booleans())
    def something_will_fail(self, action: str, permanent: bool) -> None:
        self.failing[action] = permanent

    @rule(held=st.booleans())
    def dependency(self, held: bool) -> None:
        self.gate = Gate(False, "waiting for db") if held else OPEN

    @rule(count=st.integers(0, 3))
    def connected(self, count: int) -> None:
        self.connections = count

    @rule(ends=st.sampled_from([True, False, None]))
    def hooks_will(self, ends: bool | None) -> None:
        self.hook_ends = ends

    @rule()
    def dependency_is_restarted(self) -> None:
        self.dependency += 1

    @rule(desired=st.sampled_from(["running", "stopped", "paused", "drained"]), restart=st.booleans())
    def user(self, desired: str, restart: bool) -> None:
        changes: dict[str, Any] = {"desired": desired}
        if restart:
            changes["restart_request"] = self.task.restart_request + 1
        self.task = self.task.model_copy(update=changes)

    @rule(condition=st.sampled_from(CONDITIONS))
    def policy(self, condition: str) -> None:
        changed = self.task.policy.model_copy(update={"restart": Restart(condition=condition)})  # type: ignore[arg-type]
        self.task = self.task.model_copy(update={"policy": changed})

    # What always holds ----------------------------------------------------------------------------------------------

    @invariant()
    def one_at_most(self) -> None:
        assert len(self.alive) <= 1

    @invariant()
    def backoff_is_bounded(self) -> None:
        if self.record.state == "backoff" and self.record.until is not None:
            assert self.record.until - self.record.since <= CAP * (1 + JITTER) + 0.1

    @invariant()
    def states_fit_what_is(self) -> None:
        if self.record.state in ("stopped", "completed", "failed", "backoff", "pending", "removed"):
            assert not self.alive

    def teardown(self) -> None:
        """A stop always ends in stopped, a removal in removed, whatever came before."""
        if not hasattr(self, "task"):
            return
        self.failing.clear()
        if self.stop_first:
            self.task = self.task.model_copy(update={"desired": "stopped"})
            self.rest()
            assert self.record.state == "stopped"
            assert not self.served
        self.assigned = False
        self.rest()
        assert self.gone and self.record.state == "removed"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
