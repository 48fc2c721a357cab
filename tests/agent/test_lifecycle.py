"""Hooks, draining, pausing, followed restarts and what becomes of a sick task, through the whole agent on fakes."""

from __future__ import annotations

import asyncio
import random

import pytest

from agent.kit.errors import UserError
from agent.ports import ProbeResult
from agent.wire.messages import Dependency, Healthcheck, Hook, Membership, Port, Restart, Task, TaskStatus
from tests.agent.test_worker import task
from tests.agent.world import World, running

CHECK = Healthcheck(kind="exec", test=("CMD", "true"), interval=1.0, retries=2)
SICK = ProbeResult(False, "no", 1)
PORTS = {"ports": (Port(target=80, published=8080),)}


def hook(word: str, **fields: object) -> Hook:
    return Hook.model_validate({"command": (word,), **fields})


def status(world: World, id_: str = "t1") -> TaskStatus:
    found = world.task(id_)
    assert found is not None
    return found


# Hooks


async def test_pre_start_runs_before_the_program_and_once_for_a_task() -> None:
    async with running() as world:
        container = {"pre_start": (hook("chown"), hook("migrate"))}
        await world.assign(task(world, container=container))
        await world.until(lambda: world.state() == "running")
        assert world.prober.hooks == [("t1", 1, ("chown",)), ("t1", 1, ("migrate",))]
        world.runtime.finish("t1", 1)
        await world.until(lambda: status(world).attempt == 2 and world.state() == "running")
        assert len(world.prober.hooks) == 2


async def test_a_pre_start_that_fails_is_a_start_that_failed() -> None:
    async with running() as world:
        world.prober.outcomes[("migrate",)] = ProbeResult(False, "no such table", 3)
        await world.assign(task(world, restart="no", container={"pre_start": (hook("migrate"), hook("never"))}))
        await world.until(lambda: world.state() == "backoff")
        assert "pre_start command 'migrate' ended with 3" in status(world).message
        assert status(world).evidence["hook_output"] == "no such table"
        assert world.runtime.started == []
        world.prober.outcomes.clear()
        await world.until(lambda: world.state() == "running")
        assert [words for _, _, words in world.prober.hooks][-2:] == [("migrate",), ("never",)]


@pytest.mark.parametrize("removed", [False, True], ids=["stopped", "removed"])
async def test_a_pre_start_that_takes_long_holds_nobody_up(removed: bool) -> None:
    async with running() as world:
        world.prober.outcomes[("sleep",)] = asyncio.get_running_loop().create_future()
        made = task(world, container={"pre_start": (hook("sleep"),)})
        await world.assign(made)
        await world.until(lambda: world.state() == "starting")
        rest = () if removed else (made.model_copy(update={"desired": "stopped"}),)
        await world.assign(*rest, generation=2)
        await world.until(lambda: world.state() == ("absent" if removed else "stopped"))
        assert world.runtime.started == []
        assert not world.events("task.start-failed", "task.failed")


async def test_pre_start_once_for_all_replicas() -> None:
    async with running() as world:
        going = world.prober.outcomes[("migrate",)] = asyncio.get_running_loop().create_future()
        container = {"pre_start": (hook("migrate", per_replica=False),)}
        await world.assign(*(task(world, f"t{slot}", slot=slot, container=container) for slot in (1, 2)))
        await world.until(lambda: world.state() == "starting")
        assert (world.state("t2"), status(world, "t2").reason) == ("pending", "waiting")
        going.set_result(ProbeResult(True, "", 0))
        await world.until(lambda: world.state("t2") == "running")
        assert world.prober.hooks == [("t1", 1, ("migrate",))]


async def test_nobody_counts_on_a_task_whose_post_start_runs() -> None:
    async with running() as world:
        going = world.prober.outcomes[("warm",)] = asyncio.get_running_loop().create_future()
        web = task(world, "w", needs=(Dependency(service="db"),))
        await world.assign(task(world, "d", "db", container=PORTS, policy={"post_start": (hook("warm"),)}), web)
        await world.until(lambda: world.state("d") == "running")
        await world.settle(5)
        assert (status(world, "d").health, world.state("w")) == ("starting", "pending")
        assert world.network.published.get("d") is None or not world.network.published["d"].ports
        going.set_result(ProbeResult(True, "", 0))
        await world.until(lambda: world.state("w") == "running")
        assert status(world, "d").health == "none" and world.network.published["d"].state == "ready"


async def test_a_post_start_that_fails_starts_the_task_anew() -> None:
    async with running() as world:
        world.prober.outcomes[("warm",)] = ProbeResult(False, "cold", 1)
        await world.assign(task(world, restart="no", policy={"post_start": (hook("warm"),)}))
        await world.until(lambda: len(world.runtime.started) == 3)
        assert "post_start command 'warm' ended with 1" in world.events("task.stopping")[-1].message
        world.prober.outcomes.clear()
        await world.until(lambda: world.state() == "running" and bool(world.events("task.hooked")))


async def test_post_start_is_run_again_by_the_next_agent() -> None:
    async with running() as world:
        world.prober.outcomes[("warm",)] = asyncio.get_running_loop().create_future()
        await world.assign(task(world, policy={"post_start": (hook("warm"),)}))
        await world.until(lambda: len(world.prober.hooks) == 1)
        world.prober.outcomes.clear()
        await world.restart()
        await world.until(lambda: bool(world.events("task.hooked")))
        assert (len(world.prober.hooks), len(world.runtime.started)) == (2, 1)


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_hook_that_is_done_is_not_run_again_by_the_next_agent(steps: int) -> None:
    async with running() as world:
        going = world.prober.outcomes[("second",)] = asyncio.get_running_loop().create_future()
        await world.assign(task(world, policy={"post_start": (hook("first"), hook("second"), hook("third"))}))
        await world.until(lambda: len(world.prober.hooks) == 2)
        await world.restart()
        await world.until(lambda: len(world.prober.hooks) == 3)
        del world.prober.outcomes[("second",)]
        going.cancel()
        await world.restart()
        await world.clock.settle(
            steps
        )  # wherever the next one dies, of those that were done before it none comes again
        await world.restart()
        await world.until(lambda: bool(world.events("task.hooked")))
        names = [words[0] for _, _, words in world.prober.hooks]
        assert names.count("first") == 1 and names == sorted(names) and set(names) == {"first", "second", "third"}


async def test_pre_stop_goes_on_where_it_was() -> None:
    async with running() as world:
        world.prober.outcomes[("two",)] = asyncio.get_running_loop().create_future()
        await world.assign(task(world, grace=30.0, policy={"pre_stop": (hook("one"), hook("two"))}))
        await world.until(lambda: world.state() == "running")
        await world.assign(generation=2)
        await world.until(lambda: len(world.prober.hooks) == 2)
        world.prober.outcomes.clear()
        await world.restart()
        await world.until(lambda: world.state() == "absent")
        assert [words[0] for _, _, words in world.prober.hooks] == ["one", "two", "two"]
        assert world.runtime.signals == [("t1", 1, 15)]


# The order of an exit


async def test_map_then_connections_then_pre_stop_then_the_signal() -> None:
    async with running() as world:
        made = task(world, container=PORTS, policy={"pre_stop": (hook("flush"),)})
        await world.assign(made)
        await world.until(lambda: world.state() == "running" and "t1" in world.network.published)
        world.network.connections["10.181.0.16"] = 2
        await world.assign(generation=2)
        await world.settle(1)
        assert "t1" not in world.network.published, "it has left the map"
        assert (world.state(), status(world).reason) == ("stopping", "draining")
        assert world.prober.hooks == [] and world.runtime.signals == []
        going = world.prober.outcomes[("flush",)] = asyncio.get_running_loop().create_future()
        world.network.connections.clear()
        await world.until(lambda: world.prober.hooks == [("t1", 1, ("flush",))])
        assert world.runtime.signals == []
        going.set_result(ProbeResult(True, "", 0))
        await world.until(lambda: world.state() == "absent")
        assert world.runtime.signals == [("t1", 1, 15)]


@pytest.mark.parametrize("drain", [0.0, 2.0, 5.0])
async def test_connections_have_their_time_and_no_more(drain: float) -> None:
    async with running() as world:
        await world.assign(task(world, container=PORTS, policy={"drain": drain}))
        await world.until(lambda: world.state() == "running" and "t1" in world.network.published)
        world.network.connections["10.181.0.16"] = 1
        began = world.clock.wall()
        await world.assign(generation=2)
        await world.until(lambda: bool(world.runtime.signals))
        assert drain <= world.clock.wall() - began < drain + 0.5


async def test_connections_of_both_families_are_waited_for() -> None:
    async with running() as world:
        dual = {**PORTS, "networks": (Membership(network="shop_front", ipv6=True),)}
        await world.assign(task(world, container=dual))
        await world.until(lambda: world.state() == "running" and "t1" in world.network.published)
        assert world.agent is not None
        seat = world.agent._board.records["t1"].allocation.address_6
        world.network.connections[seat] = 1
        await world.assign(generation=2)
        await world.settle(2)
        assert seat and world.runtime.signals == []
        world.network.connections.clear()
        await world.until(lambda: bool(world.runtime.signals), seconds=1.0)


async def test_connections_that_cannot_be_counted_hold_nothing_up() -> None:
    async with running() as world:
        await world.assign(task(world, container=PORTS, policy={"drain": 1.0}))
        await world.until(lambda: world.state() == "running" and "t1" in world.network.published)
        world.network.failures["open"] = UserError("cannot count")
        await world.assign(generation=2)
        await world.until(lambda: world.state() == "absent", seconds=3.0)


async def test_a_pre_stop_that_hangs_has_the_grace_and_no_more() -> None:
    async with running() as world:
        world.prober.outcomes[("flush",)] = asyncio.get_running_loop().create_future()
        await world.assign(task(world, grace=3.0, policy={"pre_stop": (hook("flush"),)}))
        await world.until(lambda: world.state() == "running")
        began = world.clock.wall()
        await world.assign(generation=2)
        await world.until(lambda: bool(world.runtime.signals))
        assert 3.0 <= world.clock.wall() - began < 3.5
        assert world.events("task.hook-failed")[0].reason == "pre-stop"


# What becomes of a sick task


@pytest.mark.parametrize(
    ("said", "outcome", "writable"),
    [("restart", "running", True), ("recreate", "running", False), ("stop", "failed", True), ("none", "running", True)],
)
async def test_x_gorae_on_unhealthy(said: str, outcome: str, writable: bool) -> None:
    async with running() as world:
        await world.assign(task(world, restart="no", check=CHECK, policy={"on_unhealthy": said}))
        await world.until(lambda: status(world).health == "healthy")
        before = world.rootfs.writable.copy()
        world.prober.answers["t1"] = [SICK]
        discarded: list[bool] = []
        await world.until(lambda: bool(world.events("task.unhealthy")))
        for _ in range(40):
            await world.settle(0.05)
            discarded.append(not world.rootfs.writable)
        assert any(discarded) is not writable and before
        assert world.state() == outcome or said == "restart"
        if said == "none":
            assert (status(world).health, status(world).attempt) == ("unhealthy", 1)
        if said in ("restart", "recreate"):
            world.prober.answers.clear()
            await world.until(lambda: status(world).health == "healthy")
            assert status(world).address == "10.181.0.16" and world.rootfs.writable


async def test_what_was_healthy_for_long_is_restarted_at_once() -> None:
    async with running() as world:
        await world.assign(task(world, check=CHECK))
        await world.until(lambda: status(world).health == "healthy")
        await world.settle(20)
        world.prober.answers["t1"] = [SICK]
        await world.until(lambda: bool(world.events("task.unhealthy")))
        world.prober.answers.clear()
        await world.until(lambda: len(world.runtime.started) == 2, seconds=0.1)
        assert status(world).failures == 0


async def test_what_never_was_healthy_is_given_more_and_more_time() -> None:
    async with running() as world:
        world.prober.answers["t1"] = [SICK]
        await world.assign(task(world, check=CHECK.model_copy(update={"interval": 12.0})))
        await world.until(lambda: len(world.runtime.started) == 4)
        assert status(world).failures == 3
        delays = [event.evidence["rule"] for event in world.events("task.stopping")]
        assert len(delays) == 3


# Pausing


async def test_pause_and_unpause() -> None:
    async with running() as world:
        made = task(world, container=PORTS, check=CHECK)
        await world.assign(made)
        await world.until(lambda: world.network.published.get("t1") is not None and status(world).health == "healthy")
        await world.assign(made.model_copy(update={"desired": "paused"}), generation=2)
        await world.until(lambda: status(world).paused)
        assert world.runtime.frozen == {"t1"} and "t1" not in world.network.published
        asked = len(world.prober.probes)
        await world.settle(30)
        assert len(world.prober.probes) == asked, "nobody asks a paused one for its health"
        await world.restart()
        await world.settle(5)
        assert world.runtime.frozen == {"t1"} and status(world).paused and status(world).health == "healthy"
        await world.assign(made, generation=3)
        await world.until(lambda: not status(world).paused and "t1" in world.network.published)
        assert world.runtime.frozen == set() and len(world.runtime.started) == 1
        assert [event.reason for event in world.events("task.paused", "task.resumed")] == [
            "user-paused",
            "user-resumed",
        ]


async def test_a_paused_task_is_thawed_before_it_is_stopped() -> None:
    async with running() as world:
        made = task(world)
        await world.assign(made)
        await world.until(lambda: world.state() == "running")
        await world.assign(made.model_copy(update={"desired": "paused"}), generation=2)
        await world.until(lambda: status(world).paused)
        await world.assign(generation=3)
        await world.until(lambda: world.state() == "absent", seconds=1.0)
        assert world.runtime.signals == [("t1", 1, 15)] and world.runtime.frozen == set()


# Dependencies


async def test_a_restart_of_a_dependency_is_followed_but_no_crash() -> None:
    async with running() as world:
        need = (Dependency(service="db", restart=True, condition="service_healthy"),)
        db, web = task(world, "d", "db", check=CHECK), task(world, "w", needs=need, restart="no")
        await world.assign(db, web)
        await world.until(lambda: world.state("w") == "running")
        world.runtime.finish("d", 1)
        await world.until(lambda: status(world, "d").attempt == 2 and status(world, "d").health == "healthy")
        await world.settle(2)
        assert status(world, "w").attempt == 1
        await world.assign(db.model_copy(update={"restart_request": 1}), web, generation=2)
        await world.until(lambda: status(world, "w").attempt == 2)
        assert status(world, "d").health == "healthy", "not before it is well again"
        stopping = world.events("task.stopping")[-1]
        assert (stopping.reason, stopping.service) == ("dependency-restarted", "web")
        await world.assign(task(world, "e", "db", check=CHECK), web, generation=3)
        await world.until(lambda: status(world, "w").attempt == 3)
        await world.restart()
        await world.settle(5)
        assert status(world, "w").attempt == 3


# Signals


async def test_a_signal_on_request() -> None:
    async with running() as world:
        assert world.agent is not None
        await world.assign(task(world), task(world, "d", "db"), task(world, "e", "db", 2))
        await world.until(lambda: all(world.state(id_) == "running" for id_ in ("t1", "d", "e")))
        assert await world.agent.kill("shop", ("db",), 9, "E1") == 2
        assert world.runtime.signals == [("d", 1, 9), ("e", 1, 9)]
        assert [event.cause for event in world.events("task.signalled")] == ["E1", "E1"]
        await world.until(lambda: status(world, "d").attempt == 2)
        with pytest.raises(UserError, match="cannot send a signal to shop/nobody"):
            await world.agent.kill("shop", ("nobody",), 9, None)


# Reboots


@pytest.mark.parametrize("seed", range(20))
async def test_a_reboot_at_any_moment_keeps_the_order_and_doubles_nothing(seed: int) -> None:
    dice = random.Random(seed)
    async with running() as world:
        healthy = (Dependency(service="db", condition="service_healthy", restart=True),)
        tasks = [
            task(world, "d", "db", check=CHECK),
            *(task(world, f"w{slot}", "web", slot, needs=healthy, container=PORTS) for slot in (1, 2)),
            task(world, "c", "cache", policy={"post_start": (hook("warm"),)}, restart="default"),
        ]
        desired = [dice.choice(["running", "running", "paused", "stopped"]) for _ in tasks]
        await world.assign(*tasks)
        await world.settle(dice.uniform(0, 6))
        wanted = [made.model_copy(update={"desired": how}) for made, how in zip(tasks, desired, strict=True)]
        await world.assign(*wanted, generation=2)
        for _ in range(dice.randrange(60)):
            await world.clock.settle(1)
        await world.reboot()
        world.runtime.started.clear()
        world.start()
        await world.until(
            lambda: all(
                world.state(made.id) == ("stopped" if made.desired == "stopped" else "running")
                or (made.service == "web" and wanted[0].desired != "running")  # nothing gets healthy that stands still
                for made in wanted
            )
        )
        await world.settle(5)
        order = [id_ for id_, _ in world.runtime.started]
        assert len(order) == len(set(order)), "one attempt each"
        if {"d", "w1"} <= set(order):
            assert order.index("d") < order.index("w1")
        assert all(len([c for c in world.runtime._containers if c[0] == id_]) == 1 for id_ in order)


# A host that is drained


def drained(*tasks: Task) -> tuple[Task, ...]:
    return tuple(one.model_copy(update={"desired": "drained"}) for one in tasks)


async def test_a_drained_host_stops_in_reverse_order_and_starts_nothing_until_it_is_drained_no_more() -> None:
    async with running() as world:
        web, db = task(world, "w", needs=(Dependency(service="db"),), restart="no"), task(world, "d", "db")
        job = task(world, "j", "job", restart="default")
        await world.assign(web, db, job)
        await world.until(lambda: world.state("w") == "running" and world.state("j") == "running")
        world.runtime.finish("j", 0)
        await world.until(lambda: world.state("j") == "completed")
        await world.assign(*drained(web, db, job), generation=2)
        await world.until(lambda: (world.state("w"), world.state("d")) == ("stopped", "stopped"))
        assert [id_ for id_, _, _ in world.runtime.signals] == ["w", "d"]
        assert status(world, "d").reason == "host-drained"
        assert status(world, "d").message == "stopped: the host is drained, killed by signal 15"
        await world.restart()
        await world.settle(60)
        await world.reboot()
        world.start()
        await world.settle(60)
        late = task(world, "l", "late")
        await world.assign(*drained(web, db, job, late), generation=3)
        await world.until(lambda: world.state("l") == "stopped")
        assert [world.state(id_) for id_ in "wdj"] == ["stopped", "stopped", "completed"]
        assert not world.network.published
        await world.assign(web, db, job, late, generation=4)
        await world.until(lambda: all(world.state(id_) == "running" for id_ in "wdl"))
        assert world.state("j") == "completed", "what is done is not done again"
        order = [e.task for e in world.events("task.started")][-3:]
        assert order.index("d") < order.index("w")
        assert len(world.runtime.started) == 3, "the runtime counts since its boot"


# Jobs


async def test_a_job_is_tried_again_until_it_is_done_and_then_stays_done_until_it_changes() -> None:
    async with running() as world:
        job = task(world, "j", "job", restart="on-failure")
        await world.assign(job)
        for attempt in (1, 2):
            await world.until(lambda attempt=attempt: status(world, "j").attempt == attempt)  # type: ignore[misc]
            await world.until(lambda: world.state("j") == "running")
            world.runtime.finish("j", 1)
        await world.until(lambda: status(world, "j").attempt == 3 and world.state("j") == "running")
        world.runtime.finish("j", 0)
        await world.until(lambda: world.state("j") == "completed")
        await world.restart()
        await world.reboot()
        world.start()
        await world.settle(120)
        assert (world.state("j"), world.runtime.started) == ("completed", [])
        again = task(world, "k", "job", restart="on-failure")  # its template has changed
        await world.assign(again, generation=2)
        await world.until(lambda: world.state("k") == "running")
        assert world.state("j") == "absent"


async def test_a_job_that_may_fail_so_often_fails_then_and_is_run_again_when_asked_for() -> None:
    async with running() as world:
        policy = Restart(condition="on-failure", max_attempts=1)
        job = task(world, "j", "job", restart=policy)
        await world.assign(job)
        for attempt in (1, 2):
            await world.until(lambda attempt=attempt: status(world, "j").attempt == attempt)  # type: ignore[misc]
            await world.until(lambda: world.state("j") == "running")
            world.runtime.finish("j", 7)
        await world.until(lambda: world.state("j") == "failed")
        assert status(world, "j").exit_code == 7
        await world.settle(120)
        assert status(world, "j").attempt == 2, "given up, and said so"
        await world.assign(job.model_copy(update={"restart_request": 1}), generation=2)
        await world.until(lambda: status(world, "j").attempt == 3 and world.state("j") == "running")


# Boots


async def test_after_a_reboot_nobody_counts_on_how_a_dependency_was_before() -> None:
    async with running() as world:
        needs = (Dependency(service="db", condition="service_healthy"),)
        check = CHECK.model_copy(update={"retries": 100})
        await world.assign(task(world, "a", "web", needs=needs), task(world, "d", "db", check=check))
        await world.until(lambda: world.state("a") == "running")
        world.runtime.finish("a", 1)
        await world.settle(0)
        assert world.agent is not None
        assert world.agent._board.records["a"].state == "backoff", "so that its next step is the start"
        await world.reboot()
        await world.clock.advance(60)
        world.prober.answers["d"] = [SICK]
        world.start()
        await world.until(lambda: world.state("d") == "running")
        await world.settle(5)
        assert (world.state("a"), world.runtime.started) == ("backoff", [("d", 2)])
        world.prober.answers.clear()
        await world.until(lambda: world.state("a") == "running")
