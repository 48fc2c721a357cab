"""The host loop: adoption, sweeping, identity, order, and the end of stacks; over fakes that outlive the agent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.decide.mounts import anonymous
from agent.fakes.journal import FakeJournal
from agent.kit.errors import Temporary
from agent.kit.ids import Ulids
from agent.ports import Attachment, ProbeResult, Sandbox, VolumeInfo
from agent.wire import topics
from agent.wire.messages import Assignment, Dependency, Healthcheck, Membership, Mount, Online, Port, Subnet, Task
from tests.agent.test_worker import CHECK, hosts_of, task
from tests.agent.world import World, running

FULL = Temporary("cannot write the journal: no space left on its disk", code="journal-full")
DB_FIRST = (Dependency(service="db", condition="service_healthy"),)


def pids(world: World) -> dict[str, int]:
    return {task: c.process.pid for (task, _), c in world.runtime._containers.items() if not c.exit.done()}


async def up(world: World, *tasks: Task, generation: int = 1) -> None:
    await world.assign(*(tasks or (task(world),)), generation=generation)
    await world.until(lambda: all(world.state(t.id) == "running" for t in (tasks or (task(world),))))


# Adoption -----------------------------------------------------------------------------------------------------------


async def test_a_restarted_agent_adopts_what_runs() -> None:
    async with running() as world:
        web = task(world, container={"ports": (Port(target=80, published=8080),)})
        await up(world, web, task(world, "d1", "db"))
        before, published = pids(world), dict(world.network.published)
        for _ in range(3):
            await world.restart()
            assert pids(world) == before
            assert world.network.published == published
        assert world.runtime.started == [("t1", 1), ("d1", 1)]
        assert world.hosts().epoch == 4
        world.runtime.finish("d1", 1)
        await world.until(lambda: world.state("d1") == "running")
        assert world.runtime.started[-1] == ("d1", 2)


@pytest.mark.parametrize("steps", range(0, 160, 7))
async def test_an_agent_that_dies_anywhere_while_it_starts_a_stack(steps: int) -> None:
    """Whatever line it dies at, the next one ends with each task running once."""
    async with running() as world:
        body = Assignment(store_id="S1", stack="shop", generation=1, tasks=(task(world), task(world, "d1", "db")))
        assert world.agent is not None
        async with world.broker.bus("orchestrator").session(()) as session:
            await session.publish(topics.assignment("shop"), body.model_dump_json().encode(), retain=True)
        await world.clock.settle(steps)
        await world.restart()
        await world.until(lambda: (world.state("t1"), world.state("d1")) == ("running", "running"))
        assert sorted(pids(world)) == ["d1", "t1"]


@pytest.mark.parametrize("steps", range(0, 120, 7))
async def test_an_agent_that_dies_anywhere_while_it_removes_a_stack(steps: int) -> None:
    async with running() as world:
        await up(world, task(world, needs=DB_FIRST), task(world, "d1", "db", check=CHECK))
        tombstone = Assignment(store_id="S1", stack="shop", generation=2, removed=True)
        async with world.broker.bus("orchestrator").session(()) as session:
            await session.publish(topics.assignment("shop"), tombstone.model_dump_json().encode(), retain=True)
        await world.clock.settle(steps)
        await world.restart()
        await world.until(lambda: (s := world.stack()) is not None and s.removed)
        assert world.nothing_left() and world.network.closed


async def test_the_resolver_knows_every_task_and_keeps_what_one_on_its_way_out_sees() -> None:
    """It may need its database to end in order; and an agent that starts takes nobody's names away."""

    def seen(task: str) -> dict[str, list[str]] | None:
        document = json.loads(world.resolver.zone)
        entry = document["tasks"].get(task)
        return entry and document["views"][entry["view"]]["names"]

    async with running() as world:
        await up(
            world, task(world), task(world, "d1", "db"), task(world, "n1", "alone", container={"network_mode": "none"})
        )
        assert world.resolver.served == {"t1", "d1"}
        names = seen("t1")
        assert names is not None and {"web", "db", "tasks.db", "shop-db-1"} <= names.keys()
        assert seen("n1") is None
        world.runtime.stubborn = {"t1"}
        world.resolver.served.clear()  # agent and resolver both died
        await world.restart()
        assert world.resolver.served == {"t1", "d1"}
        assert seen("t1") == names
        await world.assign(task(world, "d1", "db"), generation=2)
        await world.until(lambda: world.state("t1") == "stopping")
        assert seen("t1") == names
        now = seen("d1")
        assert now is not None and "web" not in now
        world.runtime.finish("t1", 1)
        await world.until(lambda: world.state("t1") == "absent")
        await world.assign(task(world, "d1", "db"), generation=3)
        assert seen("t1") is None and world.resolver.served == {"d1"}


async def test_exits_during_the_agents_absence_are_honoured() -> None:
    async with running() as world:
        await up(world, task(world), task(world, "d1", "db", restart="default"))
        await world.kill()
        world.runtime.finish("t1", 1)
        world.runtime.finish("d1", 0)
        world.start()
        await world.until(lambda: world.state("d1") == "completed")
        await world.until(lambda: world.state("t1") == "running")
        assert world.runtime.started[-1] == ("t1", 2)
        assert sorted(event.reason for event in world.events("task.exited")) == ["exit-0", "exit-error"]


async def test_it_works_alone() -> None:
    """Orchestrator and broker are down: what crashes is restarted."""
    async with running() as world:
        await up(world)
        world.broker.stop()
        await world.settle(20)
        world.runtime.finish("t1", 1)
        await world.settle()
        assert world.runtime.started == [("t1", 1), ("t1", 2)]
        await world.restart()
        assert pids(world).keys() == {"t1"}
        world.broker.start()
        await world.settle(2)
        assert world.state() == "running"


# Reboot -------------------------------------------------------------------------------------------------------------


async def test_a_reboot_brings_everything_back_in_order() -> None:
    async with running() as world:
        tasks = (
            task(world, needs=DB_FIRST, restart="default"),
            task(world, "d1", "db", check=CHECK, restart="default"),
            task(world, "j1", "job", restart="default"),
            task(world, "s1", "spare", restart="default"),
            task(world, "n1", "once", restart="no"),
        )
        await up(world, *tasks)
        world.runtime.finish("j1", 0)
        tasks = (*tasks[:3], tasks[3].model_copy(update={"desired": "stopped"}), tasks[4])
        await world.assign(*tasks, generation=2)
        await world.until(lambda: world.state("s1") == "stopped")
        await world.reboot()
        world.broker.stop()  # nobody is there to ask
        world.runtime.started.clear()
        world.start()
        await world.settle(5)
        assert world.runtime.started == [("d1", 2), ("t1", 2)]
        world.broker.start()
        await world.until(lambda: world.state() == "running")
        states = {t: world.state(t) for t in ("j1", "s1", "n1")}
        assert states == {"j1": "completed", "s1": "stopped", "n1": "failed"}


async def test_a_reboot_while_a_task_backs_off() -> None:
    async with running() as world:
        world.runtime.codes["t1"] = 1
        await world.assign(task(world))
        await world.until(lambda: world.state() == "backoff")
        await world.reboot()
        world.runtime.codes.clear()
        world.start()
        await world.until(lambda: world.state() == "running", seconds=70)


# Sweeping -----------------------------------------------------------------------------------------------------------


async def litter(world: World, name: str) -> None:
    world.sandboxes.made[name] = Sandbox(name, Path("/u"), Path("/n"), 1)
    world.rootfs.writable.add(name)
    await world.network.attach(Attachment(name, "x", Path("/n"), 9, "10.181.0.25", frozenset({"x_default"})))


async def test_orphans_are_swept_at_the_start_and_later() -> None:
    async with running() as world:
        await up(world)
        await world.kill()
        await litter(world, "torphan")
        world.start()
        await world.settle()
        assert set(world.sandboxes.made) == {"t1"} and world.rootfs.writable == {"t1"}
        assert [event.message for event in world.events("task.swept")] == ["torphan belonged to nobody and was removed"]
        await litter(world, "tlater")
        await world.settle(31)
        assert set(world.network.attached) == {"t1"} and world.state() == "running"


async def test_what_went_while_the_host_was_looked_at_is_nobodys_orphan() -> None:
    async with running() as world:
        await up(world)
        looked, plain = asyncio.Event(), world.network.list

        async def slow() -> frozenset[str]:
            found = await plain()
            await looked.wait()
            return found

        world.network.list = slow  # type: ignore[method-assign]
        await world.settle(35)
        await world.assign(generation=2)
        await world.until(world.nothing_left)
        looked.set()
        await world.settle()
        assert world.events("task.removed") and not world.events("task.swept")


async def test_a_failed_sweep_is_tried_again() -> None:
    async with running() as world:
        await litter(world, "torphan")
        world.network.failures["detach"] = Temporary("cannot detach", code="busy")
        await world.settle(31)
        assert "torphan" in world.sandboxes.made
        await world.settle(31)
        assert world.nothing_left()


# The journal is lost ------------------------------------------------------------------------------------------------


async def test_without_a_journal_what_runs_is_left_alone_and_then_adopted() -> None:
    async with running() as world:
        tasks = (task(world), task(world, "d1", "db"))
        await up(world, *tasks)
        before = pids(world)
        await world.kill()
        world.broker.stop()
        world.journal = FakeJournal()
        world.host.traces = {"t1": ("shop", 0), "d1": ("shop", 1)}
        world.start()
        await world.settle(100)
        await world.restart()
        assert pids(world) == before, "absence never means remove, the second time neither"
        world.broker.start()
        await world.settle(2)
        await world.assign(task(world, "n1", "new"), stack="other")
        await world.settle()
        other = world.task("n1", "other")
        assert other is not None and other.address == "10.181.0.18", "what runs keeps its address"
        await world.assign(*tasks)
        await world.settle()
        assert pids(world).items() >= before.items() and world.runtime.started == [("t1", 1), ("d1", 1), ("n1", 1)]
        status = world.task("d1")
        assert status is not None and (status.state, status.address) == ("running", "10.181.0.17")


async def test_an_agent_that_dies_before_it_has_written_down_what_it_found_leaves_it_unknown() -> None:
    async with running() as world:
        await up(world)
        before = pids(world)
        await world.kill()
        world.broker.stop()
        world.journal = FakeJournal()
        world.journal.failures = [Temporary("cannot write the journal: the disk is full")] * 1000
        world.host.traces = {"t1": ("shop", 0)}
        world.start()
        await world.settle(10)
        await world.kill()
        world.journal.failures.clear()
        world.start()
        await world.settle(100)
        assert pids(world) == before


@pytest.mark.parametrize("lost", ["assignment", "both"])
async def test_what_the_journal_says_in_a_way_that_cannot_be_read_is_not_an_order(lost: str) -> None:
    """As after going back to an older version: the assignment has fields that this one does not know."""
    async with running() as world:
        await up(world, task(world), task(world, "d1", "db"))
        before = pids(world)
        await world.kill()
        world.broker.stop()
        world.journal.assignments["shop"] = '{"stack": "shop", "a_later_field": 1}'
        world.start()
        await world.settle(100)
        assert pids(world) == before
        world.broker.start()
        await world.settle(2)
        await world.assign(*(task(world), task(world, "n1", "new"))[lost == "both" :], generation=1)
        await world.settle(1)
        kept = {} if lost == "both" else {"t1": before["t1"]}
        assert {i: pid for i, pid in pids(world).items() if i != "n1"} == kept, "its own assignment is one again"
        assert world.state("n1") == "running"


async def test_ids_of_events_go_on_growing_though_the_clock_was_set_back() -> None:
    async with running() as world:
        await up(world)
        last = world.journal.events[-1][1].id
        world.clock._offset -= 86400.0
        world._ulids = Ulids()
        await world.restart()
        assert all(told.id > last for _, told in world.journal.events if told.at < world.clock.wall() + 1)


async def test_without_a_journal_an_assignment_removes_what_it_does_not_name() -> None:
    async with running() as world:
        await up(world, task(world), task(world, "d1", "db"))
        await world.kill()
        world.journal = FakeJournal()
        world.host.traces = {"t1": ("shop", 0), "d1": ("shop", 1)}
        world.broker.retained.clear()
        world.start()
        await world.settle(2)
        await world.assign(task(world, "d1", "db"), generation=7)
        await world.settle()
        assert list(pids(world)) == ["d1"]


async def test_a_whole_journal_accounts_for_everything() -> None:
    """What it does not name is an orphan, though its log file names a stack."""
    async with running() as world:
        await up(world)
        await world.kill()
        world.journal.records, world.journal.assignments = {}, {}
        world.host.traces = {"t1": ("shop", 0)}
        world.broker.stop()
        world.start()
        await world.settle()
        assert world.nothing_left()


async def test_an_older_journal_yields_to_what_runs() -> None:
    async with running() as world:
        await up(world)
        older = dict(world.journal.records)
        await world.settle(20)
        world.runtime.finish("t1", 1)
        await world.settle(1)
        before = pids(world)
        await world.kill()
        world.journal.records = older
        world.start()
        await world.settle(1)
        status = world.task()
        assert pids(world) == before and status is not None and status.attempt == 2


# Identity -----------------------------------------------------------------------------------------------------------


async def test_the_first_store_wins_and_older_generations_are_dropped() -> None:
    async with running() as world:
        await up(world, generation=5)
        assert world.hosts().bound_store_id == "S1"
        for generation in (5, 4):
            await world.assign(generation=generation)
            await world.settle(1)
            assert world.state() == "running"
        status = world.stack()
        assert status is not None and status.observed_generation == 5
        assert world.hosts().stacks == {"shop": 5}


async def test_an_unknown_store_changes_nothing_until_it_has_adopted() -> None:
    async with running() as world:
        await up(world)
        before = pids(world)
        await world.store("S2")
        report = world.report()
        assert report is not None and report.bound_store_id == "S1" and report.assignment.tasks[0].id == "t1"
        await world.assign(generation=1, store="S2")
        await world.settle(5)
        assert pids(world) == before and world.state() == "running"
        # It takes over; what it had sent before is looked at again, and generations begin anew.
        await world.store("S2", "S1")
        await world.settle(1)
        assert world.hosts().bound_store_id == "S2"
        assert world.report() is None
        assert pids(world) == {} and world.state() == "absent"


async def test_adoption_with_the_same_tasks_touches_nothing() -> None:
    async with running() as world:
        await up(world, generation=9)
        before = pids(world)
        await world.store("S2")
        await world.store("S2", "S1")
        await world.assign(task(world), generation=1, store="S2")
        await world.settle(2)
        status = world.stack()
        assert status is not None and (status.store_id, status.observed_generation) == ("S2", 1)
        assert pids(world) == before


async def test_an_operator_can_bind_by_hand() -> None:
    async with running() as world:
        await up(world)
        await world.store("S2")
        assert world.agent is not None
        await world.agent.adopt("S2")
        await world.settle()
        assert world.hosts().bound_store_id == "S2" and world.report() is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(b"{", "bad-assignment", id="no JSON"),
        pytest.param(
            b'{"store_id": "S1", "stack": "shop", "generation": 2, "model": {"x": "\\ud800"}}',
            "bad-assignment",
            id="half a character",
        ),
        pytest.param(b'{"a": ' + b"[" * 10**5, "bad-assignment", id="endless nesting"),
        pytest.param(b'{"wire_version": 99, "store_id": "S1"}', "wire-version", id="another wire version"),
        pytest.param(
            b'{"store_id": "S1", "stack": "shop", "generation": 2, "extra": 1}', "bad-assignment", id="unknown field"
        ),
        pytest.param(b'{"store_id": "S1", "stack": "other", "generation": 2}', "bad-assignment", id="another stack's"),
    ],
)
async def test_a_bad_assignment_changes_nothing(payload: bytes, reason: str) -> None:
    async with running() as world:
        await up(world)
        before = pids(world)
        for _ in range(3):
            await world.say_raw(topics.assignment("shop"), payload)
        await world.settle(2)
        assert pids(world) == before
        assert [event.reason for event in world.events("stack.refused")] == [reason], "once, not at every repetition"
        await world.assign(generation=2)
        await world.until(lambda: world.state() == "absent")


async def test_one_stack_cannot_take_another_ones_task() -> None:
    async with running() as world:
        await up(world)
        await world.assign(task(world), stack="thief", generation=1)
        await world.settle(1)
        assert world.state() == "running" and world.stack("thief") is None
        assert [event.stack for event in world.events("stack.refused")] == ["thief"]


async def test_an_empty_topic_is_not_an_order() -> None:
    async with running() as world:
        await up(world)
        await world.say(topics.assignment("shop"), None)
        await world.settle(5)
        assert world.state() == "running" and world.stack() is not None


# Mounts of the host ---------------------------------------------------------------------------------------------------


def on_disk(world: World, id_: str = "t1", **container: object) -> Task:
    bind = Mount(kind="bind", source="/mnt/disk/data", target="/data")
    return task(world, id_, container={"mounts": (bind,), **container})


async def test_a_task_waits_for_the_disk_it_had_at_up() -> None:
    async with running() as world:
        world.mounts.mount("/mnt/disk")
        await up(world, on_disk(world), task(world, "d1", "db"))
        world.mounts.unmount("/mnt/disk")
        await world.settle(1)
        assert world.state() == "running", "what runs has the disk still"
        await world.reboot()
        world.start()
        await world.until(lambda: world.state("d1") == "running")
        status = world.task()
        assert status is not None and (status.state, status.reason) == ("preparing", "mount-missing")
        assert status.message.startswith("mount missing: /mnt/disk, where /mnt/disk/data was at up")
        await world.settle(60)
        assert [t for t, _ in world.runtime.started].count("t1") == 0 and "t1" not in world.volumes.tasks
        assert [e.reason for e in world.events() if e.kind == "task.waiting"] == ["mount-missing"]
        world.mounts.mount("/mnt/disk")
        await world.until(lambda: world.state() == "running")


async def test_a_crash_while_the_disk_is_away() -> None:
    async with running() as world:
        world.mounts.mount("/mnt/disk")
        await up(world, on_disk(world))
        world.mounts.unmount("/mnt/disk")
        await world.settle(1)
        world.runtime.finish("t1", 1)
        await world.settle(60)
        assert world.state() == "backoff" and world.runtime.started == [("t1", 1)]
        world.mounts.mount("/mnt/disk")
        await world.until(lambda: world.state() == "running")
        assert world.runtime.started == [("t1", 1), ("t1", 2)]


async def test_an_update_does_not_take_an_empty_directory_for_the_disk() -> None:
    async with running() as world:
        world.mounts.mount("/mnt/disk")
        await up(world, on_disk(world))
        world.mounts.unmount("/mnt/disk")
        await world.assign(on_disk(world, "t2", environment={"A": "b"}), generation=2)
        await world.settle(30)
        status = world.task("t2")
        assert status is not None and status.reason == "mount-missing"
        await world.assign(generation=3, removed=True)
        await world.until(lambda: (s := world.stack()) is not None and s.removed)
        assert world.nothing_left()
        await world.assign(on_disk(world, "t3"), generation=4)
        await world.until(lambda: world.state("t3") == "running")


async def test_a_disk_that_was_away_at_up_is_not_awaited() -> None:
    async with running() as world:
        await up(world, on_disk(world))
        await world.restart()
        assert world.state() == "running"


# Endings ------------------------------------------------------------------------------------------------------------


async def test_a_stack_goes_down_in_reverse_order_and_leaves_nothing() -> None:
    async with running() as world:
        data = (Mount(kind="volume", target="/data", source="shop_data"),)
        model = {"volumes": {"data": {"name": "shop_data"}, "ext": {"name": "shop_ext", "external": True}}}
        web = task(world, needs=DB_FIRST)
        mounts = (*data, Mount(kind="volume", target="/cache"))
        db = task(world, "d1", "db", check=CHECK, container={"mounts": mounts})
        await world.assign(web, db, model=model)
        await world.until(lambda: world.state() == "running")
        assert set(world.volumes.volumes) == {"shop_data", anonymous(db, "/cache")}
        world.volumes.volumes["shop_ext"] = VolumeInfo("shop_ext", stack="shop")
        world.logs.write("shop", "web", 1, "t1", "hello")
        await world.assign(generation=2, removed=True, remove_volumes=True)
        await world.until(lambda: (s := world.stack()) is not None and s.removed)
        assert [task for task, _, signal in world.runtime.signals] == ["t1", "d1"]
        assert world.nothing_left() and world.network.closed
        assert set(world.volumes.volumes) == {"shop_ext"}, "an external volume is not the stack's"
        assert await world.logs.tail("shop", "web", 1, "t1", 5) == ()
        await world.say(topics.assignment("shop"), None)
        await world.settle(1)
        assert world.stack() is None and world.hosts().stacks == {}
        assert world.journal.assignments == {} == world.journal.records


async def test_whatever_goes_is_told_why() -> None:
    async with running() as world:
        web = [task(world, f"w{slot}", slot=slot) for slot in (1, 2, 3)]
        model = {"services": {"web": {}}}
        await world.assign(*web, task(world, "d1", "db"), revision=1, model=model)
        await world.until(lambda: all(world.state(id) == "running" for id in ("w1", "w2", "w3", "d1")))
        await world.assign(web[0], task(world, "n2", slot=2), generation=2, revision=2, model=model)
        await world.until(lambda: world.state("n2") == "running" and world.state("d1") == "absent")
        await world.assign(generation=3, removed=True)
        await world.until(lambda: (s := world.stack()) is not None and s.removed)
        told = {event.task: event.message for event in world.events("task.stopping")}
        down = "the stack is taken down"
        assert told == {
            **{"w1": down, "n2": down, "w2": "another container has its place, by revision 2"},
            **{"w3": "web is scaled to 2", "d1": "there is no db in revision 2"},
        }


async def test_volumes_stay_unless_asked_for() -> None:
    async with running() as world:
        data = (Mount(kind="volume", target="/data", source="shop_data"), Mount(kind="volume", target="/cache"))
        web = task(world, container={"mounts": data})
        await up(world, web)
        await world.assign(generation=2, removed=True)
        await world.until(lambda: (s := world.stack()) is not None and s.removed)
        assert set(world.volumes.volumes) == {"shop_data", anonymous(web, "/cache")}


async def test_who_uses_a_volume_and_who_runs_on_it() -> None:
    async with running() as world:
        data = Mount(kind="volume", target="/data", source="shop_data")
        web = task(world, container={"mounts": (data,)})
        await up(world, web)
        assert world.agent is not None
        both = {"shop_data": "shop/web", "lineage:t1": "shop/web"}
        assert world.agent.volume_users() == world.agent.volume_users(running=True) == both
        await world.assign(web.model_copy(update={"desired": "stopped"}), generation=2)
        await world.until(lambda: world.state() == "stopped")
        assert world.agent.volume_users() == both and world.agent.volume_users(running=True) == {}
        await world.assign(generation=3, removed=True)
        await world.until(lambda: (s := world.stack()) is not None and s.removed)
        assert world.agent.volume_users() == {}


async def test_a_stack_can_come_back_after_its_tombstone() -> None:
    async with running() as world:
        await up(world)
        await world.assign(generation=2, removed=True)
        await world.settle(1)
        await world.assign(task(world, "t2"), generation=3)
        await world.until(lambda: world.state("t2") == "running")
        status = world.stack()
        assert status is not None and not status.removed


async def test_a_tombstone_on_a_full_disk_is_obeyed_later() -> None:
    async with running() as world:
        await up(world)
        world.journal.failures = [Temporary("cannot write: disk is full", code="journal-full")] * 4
        await world.assign(generation=2, removed=True)
        status = world.stack()
        assert status is not None and status.observed_generation == 1 and world.state() == "running"
        await world.until(lambda: (s := world.stack()) is not None and s.removed)


async def test_an_assignment_that_cannot_be_written_is_said_to_hold_up_everybody() -> None:
    async with running() as world:
        await up(world)
        world.journal.failures = [FULL] * 4
        await world.assign(task(world), task(world, "t2", "db"), generation=2)
        await world.settle()
        (trouble,) = world.said(topics.ONLINE, Online).troubles
        assert (trouble.message, trouble.stack) == (FULL.message, "") and world.state("t2") == "absent"
        await world.until(lambda: world.state("t2") == "running")
        await world.settle(1)
        assert world.said(topics.ONLINE, Online).troubles == ()


async def test_an_agent_that_cannot_read_its_journal_says_so_until_it_can() -> None:
    async with running() as world:
        await up(world)
        await world.kill()
        world.journal.unreadable = [FULL] * 6
        world.start()
        await world.settle(1)
        said = world.said(topics.ONLINE, Online)
        assert (said.online, [trouble.message for trouble in said.troubles]) == (False, [FULL.message])
        assert world.runtime.started == [("t1", 1)]
        await world.until(lambda: world.said(topics.ONLINE, Online) == Online(online=True, epoch=2))
        assert world.runtime.started == [("t1", 1)]


async def test_a_stack_that_cannot_end_holds_up_no_other() -> None:
    async with running() as world:
        data = Mount(kind="volume", target="/data", source="shop_data")
        model = {"volumes": {"data": {"name": "shop_data"}, "odd": {"name": "../odd"}}}
        await world.assign(task(world, container={"mounts": (data,)}), model=model)
        await world.assign(task(world, "z1"), stack="zoo")
        await world.until(lambda: world.state() == world.state("z1", "zoo") == "running")
        await world.assign(generation=2, removed=True, remove_volumes=True)
        await world.assign(generation=2, removed=True, stack="zoo")
        await world.until(lambda: (s := world.stack("zoo")) is not None and s.removed)
        held = world.stack()
        assert held is not None and not held.removed, "its volume is still asked for"
        (trouble,) = world.said(topics.ONLINE, Online).troubles
        assert trouble.stack == "shop" and "../odd" in trouble.message


async def test_a_network_that_comes_again_shows_its_new_names() -> None:
    async with running() as world:
        await up(world)
        await world.assign(generation=2)  # nobody is on its network
        new = (task(world, "t2"), task(world, "d2", "db"))
        await up(world, *new, generation=3)
        for one in new:
            assert {"web", "db"} <= {line.split()[1] for line in hosts_of(world, one.id).splitlines()}


# Allocation ---------------------------------------------------------------------------------------------------------


async def test_addresses_are_not_given_out_again_at_once() -> None:
    async with running() as world:
        await up(world, task(world), task(world, "d1", "db"))
        await world.assign(task(world), generation=2)
        await world.settle(1)
        await world.assign(task(world), task(world, "d2", "db"), generation=3)
        await world.until(lambda: world.state("d2") == "running")
        status = world.task("d2")
        assert status is not None and status.address == "10.181.0.18"


async def test_ports_left_open_are_chosen_once_and_never_twice() -> None:
    async with running() as world:
        open_port = {"ports": (Port(target=80),)}
        await up(world, task(world, container=open_port), task(world, "t2", slot=2, container=open_port))
        chosen = [world.task(name).ports[0].published for name in ("t1", "t2")]  # type: ignore[union-attr]
        assert chosen == [40_001, 40_002]
        await world.restart()
        assert [world.task(name).ports[0].published for name in ("t1", "t2")] == chosen  # type: ignore[union-attr]


async def test_a_chosen_address_is_given_once_and_stays() -> None:
    async with running() as world:
        back = Membership(network="back", subnets=(Subnet(subnet="172.28.0.0/24"),))
        mine = back.model_copy(update={"addresses": ("172.28.0.2",)})
        drawn, chosen = {"networks": (back,)}, {"networks": (mine,)}
        await up(world, task(world, container=drawn), task(world, "d1", "db", container=chosen))
        given = [world.task(name).address for name in ("t1", "d1")]  # type: ignore[union-attr]
        assert given == ["172.28.0.3", "172.28.0.2"], "what a file chose is not drawn"
        await world.restart()
        assert [world.task(name).address for name in ("t1", "d1")] == given  # type: ignore[union-attr]
        taken = {"networks": (back.model_copy(update={"addresses": ("172.28.0.3",)}),)}
        await world.assign(task(world, "x1", container=taken), stack="other")
        await world.settle()
        assert "x1" not in world.network.attached
        failed = world.events("task.failed")[0]
        assert "the address 172.28.0.3 that it is to have is that of shop/web.1" in failed.message


async def test_a_hundred_tasks() -> None:
    async with running() as world:
        tasks = [task(world, f"t{number}", f"s{number}") for number in range(100)]
        await world.assign(*tasks)
        await world.until(lambda: all(t.state == "running" for t in (world.stack() or _none).tasks), seconds=30)
        assert len({world.task(t.id).address for t in tasks}) == 100  # type: ignore[union-attr]


class _none:
    tasks = ()


async def test_health_goes_on_after_adoption() -> None:
    async with running() as world:
        check = Healthcheck(kind="exec", test=("CMD", "true"), interval=1.0, retries=2)
        await up(world, task(world, check=check))
        await world.until(lambda: (t := world.task()) is not None and t.health == "healthy")
        await world.restart()
        status = world.task()
        assert status is not None and status.health == "healthy"
        world.prober.answers["t1"] = [ProbeResult(False, "no", 1)]
        await world.until(lambda: len(world.runtime.started) == 2, seconds=10)
