"""One task through its worker: what the ports are asked to do, in which order, and what is told when."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from agent.decide.record import load
from agent.kit.errors import Permanent, Temporary
from agent.kit.pools import Slice
from agent.ports import Change, ProbeResult, Serving
from agent.wire import topics
from agent.wire.messages import Dependency, Healthcheck, Membership, Online, Port, PublishedPort, Resources, Task
from tests.agent.decide.make import task as make_task
from tests.agent.world import World, running

CHECK = Healthcheck(kind="exec", test=("CMD", "true"), interval=1.0, retries=2)


def task(world: World, id_: str = "t1", service: str = "web", slot: int = 1, **fields: object) -> Task:
    container = {"image_id": world.image, **fields.pop("container", {})}  # type: ignore[dict-item]
    made = make_task(id_, service, slot, **fields)  # type: ignore[arg-type]
    return made.model_copy(update={"container": made.container.model_copy(update=container)})


async def test_from_nothing_to_running() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.until(lambda: world.state() == "running")
        status = world.task()
        assert status is not None
        assert (status.attempt, status.address, status.pid) == (1, "10.181.0.16", 1002)
        bundle = world.runtime.running("t1")
        assert bundle is not None and bundle.config["hostname"] == "web-1"
        assert bundle.config["process"]["args"] == ["serve"]


async def test_a_crash_is_followed_by_the_next_attempt_in_the_same_sandbox() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.until(lambda: world.state() == "running")
        await world.settle(20)
        made, mounted, attached = dict(world.sandboxes.made), dict(world.rootfs.mounted), dict(world.network.attached)
        world.runtime.finish("t1", 1)
        await world.settle()
        assert world.runtime.started == [("t1", 1), ("t1", 2)]
        assert world.runtime.removed == [("t1", 1)]
        assert (world.sandboxes.made, world.rootfs.mounted, world.network.attached) == (made, mounted, attached)
        exited = world.events("task.exited")
        started = world.events("task.started")
        assert started[-1].cause == exited[-1].id and exited[-1].evidence["exit_code"] == 1


async def test_a_crash_loop_backs_off_and_shows_the_last_words() -> None:
    async with running() as world:
        world.logs.write("shop", "web", 1, "t1", "cannot connect to queue:5672")
        world.runtime.codes["t1"] = 1
        await world.assign(task(world))
        await world.settle(3)
        status = world.task()
        assert status is not None and status.state == "backoff"
        assert status.message.startswith("exit 1, ") and status.next_at is not None
        assert status.evidence["log_tail"] == ["cannot connect to queue:5672"]
        assert 4 <= len(world.runtime.started) <= 6


async def test_what_a_container_or_an_image_says_is_told_in_short() -> None:
    async with running() as world:
        for _ in range(12):
            world.logs.write("shop", "web", 1, "t1", "\0" * 300_000)
        words = ["x" * 100_000] * 1000
        world.runtime.failures["t1"] = Permanent(f"cannot start `{' '.join(words)}`", args=words, crun="y" * 10**6)
        await world.assign(task(world))
        await world.settle(3)
        status = world.task()
        assert status is not None and status.state == "failed"
        assert status.message.startswith("cannot start `xxx") and len(status.evidence["log_tail"]) == 10
        assert len(status.model_dump_json()) < 64 << 10
        assert max(len(told.model_dump_json()) for _, told in world.journal.events) < 64 << 10
        assert max(map(len, world.journal.records.values())) < 64 << 10


async def test_each_record_is_durable_before_the_next_effect() -> None:
    async with running() as world:
        order: list[str] = []
        record, start = world.journal.record, world.runtime.start

        async def recording(change: Change) -> None:
            order.extend(f"record {load(document).state}" for document in change.records.values() if document)
            await record(change)

        async def starting(bundle: object) -> object:
            order.append("start")
            return await start(bundle)  # type: ignore[arg-type]

        world.journal.record = recording  # type: ignore[method-assign]
        world.runtime.start = starting  # type: ignore[method-assign,assignment]
        await world.assign(task(world))
        await world.settle()
        assert order[-3:] == ["record starting", "start", "record running"]
        await world.settle(20)
        order.clear()
        world.runtime.finish("t1", 1)
        await world.settle()
        assert order == ["record starting", "start", "record running"], "a crash and its restart, in one"


async def test_a_full_disk_delays_and_promises_nothing() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.until(lambda: world.state() == "running")
        await world.settle(20)
        before = world.stack()
        world.journal.failures = [Temporary("cannot write the journal: disk is full", code="journal-full")] * 3
        world.runtime.finish("t1", 1)
        await world.settle()
        assert world.runtime.started == [("t1", 1)] and world.stack() == before
        (trouble,) = world.said(topics.ONLINE, Online).troubles
        assert (trouble.code, trouble.message) == ("journal-full", "cannot write the journal: disk is full")
        await world.settle(1)
        assert world.said(topics.ONLINE, Online).troubles == ()
        assert world.runtime.started == [("t1", 1), ("t1", 2)] and world.state() == "running"


async def test_what_fails_for_now_is_tried_again() -> None:
    async with running() as world:
        world.sandboxes.failures["t1"] = [Temporary("cannot make namespaces: out of memory", code="no-memory")] * 3
        await world.assign(task(world, restart="no"))
        await world.settle()
        status = world.task()
        assert status is not None and (status.state, status.reason) == ("backoff", "start-failed")
        assert status.message == "cannot make namespaces: out of memory"
        await world.until(lambda: world.state() == "running")
        assert len(world.events("task.start-failed")) == 1, "the same trouble again is no news"


async def test_what_can_never_start_fails_with_its_evidence() -> None:
    async with running() as world:
        world.logs.write("shop", "web", 1, "t1", "exec format error")
        world.runtime.failures["t1"] = Permanent(
            "cannot start shop/web: no such command: servee", code="command-not-found", hint="correct the command"
        )
        await world.assign(task(world))
        await world.settle(300)
        status = world.task()
        assert status is not None and (status.state, status.reason) == ("failed", "cannot-start")
        assert status.message == "cannot start shop/web: no such command: servee"
        assert status.evidence["hint"] == "correct the command"
        assert status.evidence["log_tail"] == ["exec format error"]


async def test_a_missing_image_fails_and_names_it() -> None:
    async with running() as world:
        await world.assign(task(world, container={"image_id": "sha256:" + "0" * 64}))
        await world.settle()
        status = world.task()
        assert status is not None and status.state == "failed" and "cannot" in status.message


async def test_an_unhealthy_task_is_restarted() -> None:
    async with running() as world:
        world.prober.answers["t1"] = [ProbeResult(True, "", 0), ProbeResult(False, "503", 503)]
        await world.assign(task(world, restart="default", check=CHECK))
        await world.until(lambda: world.state() == "running")
        health = world.task()
        assert health is not None and health.health == "starting"
        await world.until(lambda: (t := world.task()) is not None and t.health == "healthy")
        await world.until(lambda: len(world.runtime.started) == 2, seconds=20)
        unhealthy, stopping = world.events("task.unhealthy")[0], world.events("task.stopping")[0]
        assert unhealthy.evidence["probe_output"] == "503"
        assert stopping.reason == "unhealthy" and stopping.cause == unhealthy.id
        assert ("t1", 1, 15) in world.runtime.signals


async def test_probe_results_alone_are_neither_journalled_nor_published() -> None:
    async with running() as world:
        await world.assign(task(world, check=CHECK))
        await world.until(lambda: (t := world.task()) is not None and t.health == "healthy")
        changes, status, probes = len(world.journal.changes), world.stack(), len(world.prober.probes)
        await world.settle(10)
        assert len(world.prober.probes) >= probes + 8
        assert (len(world.journal.changes), world.stack()) == (changes, status)


async def test_it_leaves_the_ports_before_it_is_signalled() -> None:
    async with running() as world:
        order: list[str] = []
        publish, signal = world.network.publish, world.runtime.signal

        async def publishing(task: str, serving: Serving) -> None:
            await publish(task, serving)
            order.append(serving.state)

        async def signalling(*arguments: object, **more: object) -> None:
            order.append("signal")
            await signal(*arguments, **more)  # type: ignore[arg-type]

        world.network.publish = publishing  # type: ignore[method-assign]
        world.runtime.signal = signalling  # type: ignore[method-assign,assignment]
        web = task(world, container={"ports": (Port(target=80, published=8080),)})
        await world.assign(web, virtual={"web": 7})
        await world.settle()
        virtual = Slice(0).virtual(7)
        expected = Serving("10.181.0.16", "ready", (PublishedPort(target=80, published=8080),), virtual)
        assert world.network.published == {"t1": expected}
        await world.assign(web.model_copy(update={"desired": "stopped"}), generation=2, virtual={"web": 7})
        await world.settle()
        assert order == ["ready", "draining", "signal", "gone"]
        assert world.state() == "stopped"


async def test_names_are_virtual_addresses_where_there_are_some() -> None:
    async with running() as world:
        web, dbs = task(world), [task(world, f"d{n}", "db", n) for n in (1, 2)]
        await world.assign(web, *dbs, virtual={"db": 3})
        await world.settle()
        virtual = Slice(0).virtual(3)
        files = {name: hosts_of(world, name) for name in ("t1", "d1", "d2")}
        assert f"{virtual}\tdb\n" in files["t1"] and "10.181.0.17\tdb\n" in files["d1"], "its own name is itself"
        assert world.network.published == {
            task.id: Serving(f"10.181.0.{16 + task.slot}", "ready", (), virtual) for task in dbs
        }
        await world.assign(web, dbs[0], virtual={"db": 3}, generation=2)
        await world.settle()
        assert world.network.published.keys() == {"d1"} and hosts_of(world, "t1") == files["t1"]


async def test_running_tasks_take_up_a_virtual_address_that_comes_later() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.settle()
        assert world.network.published == {}
        await world.assign(task(world), generation=2, virtual={"web": 0})
        await world.settle()
        assert world.network.published["t1"].virtual == Slice(0).virtual(0)
        await world.assign(task(world), generation=3)
        await world.settle()
        assert world.network.published == {} and len(world.runtime.started) == 1


async def test_one_that_crashed_leaves_its_virtual_address_where_another_answers() -> None:
    async with running() as world:
        told: list[tuple[str, str]] = []
        publish = world.network.publish

        async def publishing(task_id: str, serving: Serving) -> None:
            told.append((task_id, serving.state))
            await publish(task_id, serving)

        await world.assign(task(world), task(world, "t2", slot=2), virtual={"web": 0})
        await world.settle(20)  # long enough to be run again at once
        world.network.publish = publishing  # type: ignore[method-assign]
        world.runtime.finish("t1", 1)
        await world.settle()
        assert world.runtime.started[2:] == [("t1", 2)]
        assert told == [("t1", "gone"), ("t1", "ready")]


async def test_an_unhealthy_task_serves_no_ports() -> None:
    async with running() as world:
        world.prober.answers["t1"] = [ProbeResult(False, "no", 1)]
        web = task(world, restart="no", check=CHECK, container={"ports": (Port(target=80, published=8080),)})
        await world.assign(web)
        await world.settle(5)
        assert (world.state(), world.network.published) == ("running", {})
        world.prober.answers["t1"] = [ProbeResult(True, "", 0)]
        await world.settle(3)
        assert list(world.network.published) == ["t1"]


async def test_a_stubborn_task_is_killed_after_its_grace() -> None:
    async with running() as world:
        world.runtime.stubborn.add("t1")
        web = task(world, grace=5.0)
        await world.assign(web)
        await world.settle()
        await world.assign(generation=2)
        await world.settle(4.9)
        assert world.runtime.signals == [("t1", 1, 15)] and world.state() == "stopping"
        await world.settle(0.2)
        assert world.runtime.signals == [("t1", 1, 15), ("t1", 1, 9)]
        assert world.nothing_left() and world.state() == "absent"


async def test_stop_and_start_keep_what_it_wrote() -> None:
    async with running() as world:
        web = task(world)
        await world.assign(web)
        await world.settle()
        await world.assign(web.model_copy(update={"desired": "stopped"}), generation=2)
        await world.settle()
        assert world.state() == "stopped" and "t1" in world.rootfs.writable
        await world.assign(web, generation=3)
        await world.settle()
        status = world.task()
        assert status is not None and (status.state, status.attempt) == ("running", 2)


async def test_a_restart_request_is_honoured_once() -> None:
    async with running() as world:
        web = task(world, restart="default")
        await world.assign(web)
        await world.settle()
        again = web.model_copy(update={"restart_request": 1})
        await world.assign(again, generation=2)
        await world.settle(1)
        await world.assign(again, generation=3)
        await world.settle(1)
        status = world.task()
        assert world.runtime.started == [("t1", 1), ("t1", 2)]
        assert status is not None and (status.restart_request, status.restarts) == (1, 1)


async def test_limits_change_in_place() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.settle()
        limits = Resources(memory=1 << 20)
        await world.assign(task(world, resources=limits), generation=2)
        await world.settle()
        assert world.runtime.updates == [("t1", 1, limits)]
        assert len(world.runtime.started) == 1


async def test_names_of_running_tasks_follow_the_stack() -> None:
    async with running() as world:
        web, db = task(world), task(world, "d1", "db")
        await world.assign(web, db)
        await world.settle()
        files = {path.parent.name: text for path, text in world.network.files.items() if path.name == "hosts"}
        assert "10.181.0.17\tdb\n" in files["t1"] and "10.181.0.16\tweb\n" in files["d1"]
        await world.assign(web, db, task(world, "d2", "db", 2), generation=2)
        await world.settle()
        files = {path.parent.name: text for path, text in world.network.files.items() if path.name == "hosts"}
        assert "10.181.0.18\tdb\n" in files["t1"]
        assert "10.181.0.18\tdb\n" not in files["d1"], "its own service's name means its own address"


def hosts_of(world: World, name: str) -> str:
    return next(text for path, text in world.network.files.items() if path.parent.name == name and path.name == "hosts")


def on(*networks: str) -> dict[str, Any]:
    return {"networks": tuple(Membership(network=network, aliases=(f"{network}-alias",)) for network in networks)}


async def test_names_follow_the_networks_also_those_of_other_stacks() -> None:
    async with running() as world:
        web = task(world, container=on("front", "back"))
        db, lone = task(world, "d1", "db", container=on("back")), task(world, "l1", "lone", container=on("alone"))
        await world.assign(web, db, lone)
        await world.settle()
        assert world.network.attached["t1"].networks == {"front", "back"}
        assert "\tdb\n" in hosts_of(world, "t1") and "\tback-alias\n" in hosts_of(world, "t1")
        assert "\tdb\n" not in hosts_of(world, "l1") and "front-alias" not in hosts_of(world, "d1")
        await world.assign(task(world, "p1", "proxy", container=on("front")), stack="edge")
        await world.settle()
        assert "\tproxy\n" in hosts_of(world, "t1") and "\tproxy\n" not in hosts_of(world, "d1")
        assert "\tweb\n" in hosts_of(world, "p1") and "\tdb\n" not in hosts_of(world, "p1")
        await world.assign(stack="edge", generation=2, removed=True)
        await world.settle()
        assert "\tproxy\n" not in hosts_of(world, "t1")


async def test_a_task_without_a_network_is_attached_to_none() -> None:
    async with running() as world:
        await world.assign(task(world, container={"network_mode": "none"}), task(world, "d1", "db"))
        await world.settle()
        assert world.state() == "running" and world.network.attached.keys() == {"d1"}
        assert "127.0.0.1\tweb-1\n" in hosts_of(world, "t1") and "\tdb\n" not in hosts_of(world, "t1")


async def test_dependencies_are_awaited() -> None:
    async with running() as world:
        healthy = (Dependency(service="db", condition="service_healthy"),)
        world.prober.answers["d1"] = [ProbeResult(False, "", 1)] * 2 + [ProbeResult(True, "", 0)]
        slow = CHECK.model_copy(update={"retries": 9})
        await world.assign(task(world, needs=healthy), task(world, "d1", "db", check=slow))
        await world.settle(1)
        waiting = world.task()
        assert waiting is not None and waiting.state == "pending"
        assert waiting.message == "waiting for db to become healthy (it is starting)"
        await world.until(lambda: world.state() == "running", seconds=5)
        assert world.runtime.started == [("d1", 1), ("t1", 1)]


async def test_the_next_task_of_a_slot_waits_for_the_last() -> None:
    async with running() as world:
        world.runtime.stubborn.add("t1")
        await world.assign(task(world, grace=5.0))
        await world.settle()
        await world.assign(task(world, "t2"), generation=2)
        await world.settle(4)
        waiting = world.task("t2")
        assert waiting is not None and (waiting.state, waiting.reason) == ("pending", "slot-busy")
        await world.settle(2)
        assert (world.state("t1"), world.state("t2")) == ("absent", "running")


async def test_a_new_task_of_a_slot_runs_beside_the_old_one_that_it_names_and_no_other() -> None:
    async with running() as world:
        old = task(world)
        await world.assign(old)
        await world.settle()
        new = task(world, "t2", beside="t1")
        await world.assign(old, new, generation=2)
        await world.until(lambda: world.state("t2") == "running")
        assert world.state("t1") == "running"
        world.runtime.finish("t1", 1)
        await world.until(lambda: len(world.runtime.started) == 3, seconds=5)  # the old one comes back meanwhile
        world.runtime.stubborn.add("t1")
        await world.assign(new, task(world, "t3", beside="t2"), generation=3)
        await world.settle(2)
        assert (world.state("t1"), world.state("t2")) == ("stopping", "running")
        waiting = world.task("t3")
        assert waiting is not None and (waiting.state, waiting.reason) == ("pending", "slot-busy")
        world.runtime.stubborn.clear()
        await world.until(lambda: world.state("t3") == "running", seconds=30)
        assert (world.state("t1"), world.state("t2")) == ("absent", "running")


async def test_a_removal_is_never_taken_back() -> None:
    async with running() as world:
        world.runtime.stubborn.add("t1")
        web = task(world, grace=5.0)
        await world.assign(web)
        await world.settle()
        await world.assign(generation=2)
        await world.assign(web, generation=3)
        await world.settle(4)
        assert world.state() == "stopping"
        world.runtime.stubborn.clear()
        await world.settle(2)
        assert world.runtime.signals[-1] == ("t1", 1, 9)
        await world.until(lambda: world.state() == "running")
        assert world.task() is not None
        assert len(world.events("task.removed")) == 1


async def test_a_lost_conmon_is_noticed() -> None:
    async with running() as world:
        await world.assign(task(world, restart="no"))
        await world.settle()
        world.runtime.lose_conmon("t1")
        await world.settle(1)
        assert world.runtime.started == [("t1", 1), ("t1", 2)]


async def test_a_bug_in_one_task_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as world:
        broken = True
        start = world.runtime.start

        async def starting(bundle: object) -> object:
            if broken and bundle.task == "t1":  # type: ignore[attr-defined]
                raise ZeroDivisionError
            return await start(bundle)  # type: ignore[arg-type]

        world.runtime.start = starting  # type: ignore[method-assign,assignment]
        await world.assign(task(world), task(world, "d1", "db"))
        await world.settle()
        assert world.state("d1") == "running"
        assert "bug: the worker of t1 failed" in caplog.text
        broken = False
        await world.until(lambda: world.state() == "running")


async def test_the_loop_costs_little_between_exit_and_start() -> None:
    """The budget for crash → running is 50 ms; the loop's own share must not be seen in it."""
    async with running() as world:
        await world.assign(task(world))
        await world.until(lambda: world.state() == "running")
        times = []
        for attempt in range(2, 30):
            await world.settle(20)
            assert world.agent is not None
            began = time.thread_time()
            world.runtime.finish("t1", 1)
            while world.runtime.started[-1][1] < attempt:
                await world.clock.settle(1)
            times.append(time.thread_time() - began)
        assert sorted(times)[len(times) // 2] < 0.003


async def test_an_observation_does_not_overrule_a_watch() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.settle()
        listing, world.runtime.list = world.runtime.list, _nothing  # type: ignore[method-assign]
        await world.settle(31)
        assert world.runtime.started == [("t1", 1)] and world.state() == "running"
        world.runtime.list = listing  # type: ignore[method-assign]
        found = list(await listing())
        assert found == [replace(found[0])]


async def _nothing() -> list[object]:
    return []


async def test_one_that_joins_waits_for_the_sandbox_and_follows_it() -> None:
    async with running() as world:
        vpn = task(world, "v1", "vpn")
        side = task(world, "s1", "side", container={"network_mode": "service:vpn"})
        await world.assign(side)
        await world.settle(1)
        told = world.task("s1")
        assert told is not None and (told.state, told.reason) == ("pending", "network-awaited")
        assert told.message == "waiting for the network of service vpn (there is none that has a network)"
        await world.assign(vpn, side, generation=2)
        await world.until(lambda: world.state("s1") == "running")
        first, bundle = world.sandboxes.made["v1"], world.runtime.running("s1")
        assert bundle is not None and bundle.sandbox == replace(first, task="s1")
        assert world.network.attached.keys() == world.resolver.served == {"v1"}
        told, own = world.task("s1"), world.task("v1")
        assert told is not None and own is not None and told.address == own.address
        hosts = next(
            text for path, text in world.network.files.items() if path.parent.name == "s1" and path.name == "hosts"
        )
        assert f"{own.address}\tside\n" in hosts

        await world.restart()
        world.runtime.finish("v1", 1)
        await world.until(lambda: len(world.runtime.started) == 3)
        await world.settle(1)
        assert ("s1", 2) not in world.runtime.started, "the sandbox is the same"

        del world.sandboxes.made["v1"]
        await world.restart()
        world.runtime.finish("v1", 1)
        await world.until(lambda: ("s1", 2) in world.runtime.started)
        bundle = world.runtime.running("s1")
        assert bundle is not None and bundle.sandbox.space == world.sandboxes.made["v1"].space != first.space
        await world.assign(task(world, "v2", "vpn"), side, generation=3)
        await world.until(lambda: ("s1", 3) in world.runtime.started)
        bundle = world.runtime.running("s1")
        assert bundle is not None and bundle.sandbox == replace(world.sandboxes.made["v2"], task="s1")
        assert world.state("s1") == "running", "what it wrote, which belongs to other ids, went"

        await world.assign(generation=4)
        await world.until(world.nothing_left)


async def test_one_in_the_network_of_the_host_finds_the_services_of_its_stack() -> None:
    async with running() as world:
        host = task(world, "h1", "tool", container={"network_mode": "host"})
        await world.assign(host, task(world, "w1", "web"), task(world, "w2", "web", 2), virtual={"web": 7})
        await world.until(lambda: world.state("h1") == "running")
        bundle, told = world.runtime.running("h1"), world.task("h1")
        assert bundle is not None and told is not None and (bundle.sandbox.net_ns, told.address) == (None, None)
        kinds = {namespace["type"] for namespace in bundle.config["linux"]["namespaces"]}
        assert "user" in kinds and "network" not in kinds and bundle.config["linux"]["sysctl"] == {}
        assert "h1" not in world.network.attached and "h1" not in world.resolver.served
        files = {path.name: text for path, text in world.network.files.items() if path.parent.name == "h1"}
        assert f"{Slice(0).virtual(7)}\tweb\n" in files["hosts"]
        assert "127.0.0.11" not in files["resolv.conf"]
