"""The verbs: what is refused, in which order things happen, and what is left when something fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import GoraeError, Temporary, UserError
from agent.wire.memory import MemoryBroker
from agent.wire.messages import Listener, Membership
from orchestrator import link
from orchestrator.compose.model import Network, Stack, Volume
from orchestrator.controller import Controller
from orchestrator.store.memory import MemoryStore
from orchestrator.store.port import Change
from tests.support.fake_agent import FakeAgent
from tests.support.orchestrating import ALICE, Orchestrating, orchestrating, stack

TWO: dict[str, Any] = {"web": {"image": "web:1", "replicas": 2}, "db": {"image": "db:1"}}


class Setting:
    def __init__(self, o: Orchestrating, agent: FakeAgent, store: MemoryStore, socket: Path) -> None:
        self.o, self.agent, self.store, self.socket = o, agent, store, socket
        self.controller: Controller = o.controller


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Setting]:
    broker, store, socket = MemoryBroker(), MemoryStore(), tmp_path / "agent.sock"
    async with FakeAgent(broker).life(socket) as agent, orchestrating(broker, socket, store) as o:
        await o.until(lambda: o.ledger.bound)
        yield Setting(o, agent, store, socket)


async def fails(awaitable: Any, code: str) -> GoraeError:
    with pytest.raises(GoraeError) as caught:
        await awaitable
    assert caught.value.code == code
    assert caught.value.message.startswith("cannot ")
    return caught.value


async def test_every_change_is_an_event_with_its_author_and_cause(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    await s.controller.act("shop", "restart", ["web"], ALICE)
    applied, *created, restart, one, two, first = (await s.o.events())[:8]
    assert (applied.kind, applied.message) == ("stack.applied", "up: 3 create (by uid 1000)")
    assert applied.evidence == {"uid": 1000, "verb": "up", "revision": 1, "generation": 1}
    assert [e.kind for e in created] == ["plan.create"] * 3
    assert {e.cause for e in created} == {applied.id}
    assert (restart.kind, restart.evidence["uid"]) == ("user.restart", 1000)
    assert (one.kind, one.cause, two.slot) == ("plan.restart", restart.id, 2)
    assert (first.kind, first.message, first.cause) == ("update.begun", "web.1 is restarted", restart.id)
    assert (await s.store.revisions("shop"))[0].uid == 1000


async def test_up_again_changes_nothing(s: Setting) -> None:
    first = await s.o.up(stack(**TWO))
    count = len(await s.o.events())
    again = await s.o.up(stack(**TWO))
    assert (again.generation, again.revision) == (first.generation, first.revision)
    assert not again.plan.changes
    assert len(await s.o.events()) == count


async def test_images_are_there_before_anything_changes(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    before = s.o.ledger.stacks["shop"]
    s.agent.missing["web:2"] = UserError("cannot find image web:2", code="image-missing")
    await fails(s.o.up(stack(web={"image": "web:2"})), "image-missing")
    assert s.o.ledger.stacks["shop"] is before


async def test_progress_is_passed_on(s: Setting) -> None:
    seen: list[dict[str, Any]] = []
    await s.controller.up(stack(**TWO), "always", ALICE, seen.append)
    assert [p["image"] for p in seen] == ["db:1", "web:1"]
    (asked,) = [request for request in s.agent.requests if request["op"] == "ensure"]
    wish = {"policy": "always", "after": 0.0, "platform": "", "id": "", "digest": ""}
    assert asked == {"op": "ensure", "images": {"db:1": wish, "web:1": wish}, "keys": {}}


async def test_a_new_image_of_the_same_name_replaces(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    s.agent.images["web:1"] = "sha256:new"
    applied = await s.o.up(stack(**TWO))
    assert [a.kind for a in applied.plan.actions] == ["keep", "replace", "replace"]
    assert applied.plan.actions[1].cause == "web:1 is another image now"
    assert (applied.generation, applied.revision) == (2, 2)  # what ran before is a revision to go back to


async def test_a_stack_keeps_the_image_its_tag_meant_until_it_is_told_to_move(s: Setting) -> None:
    model = stack(web={"image": "web:1"}, job={"image": "web:1", "replicas": 0})
    await s.o.up(model)
    s.agent.published["web:1"] = "web:1 of today"
    again = await s.o.up(model)
    assert not again.plan.changes
    await s.controller.scale("shop", {"job": 1}, ALICE)
    assert {task.container.image_id for task in s.o.ledger.stacks["shop"].tasks} == {"sha256:web:1"}
    moved = await s.controller.up(model, "always", ALICE, lambda _: None)
    assert [a.cause for a in moved.plan.actions if a.kind == "replace"] == ["web:1 is another image now"]
    first, last = (await s.store.revision("shop", 1)), (await s.store.revision("shop", moved.revision))
    assert first is not None and first.model["images"]["web:1"]["id"] == "sha256:web:1"
    assert last is not None and last.model["images"]["web:1"]["id"] == "sha256:web:1 of today"


async def test_keys_go_to_the_agent_and_nowhere_else(s: Setting) -> None:
    await s.controller.up(stack(**TWO), "policy", ALICE, lambda _: None, {"r.example.com": "a2V5OnM="})
    asked = next(request for request in s.agent.requests if request["op"] == "ensure")
    assert asked["keys"] == {"r.example.com": "a2V5OnM="}
    kept = [*await s.store.revisions("shop"), *await s.o.events(), s.o.ledger.stacks["shop"]]
    assert "a2V5OnM=" not in repr(kept)


async def test_admission_sees_other_stacks_and_the_host(s: Setting) -> None:
    port = {"image": "web:1", "ports": [{"target": 80, "published": 8080}]}
    await s.o.up(stack("visits", web=port))
    error = await fails(s.o.up(stack("shop", web=port)), "port-taken")
    assert error.message == "cannot start shop/web: port 8080 is held by stack visits (service web)"
    assert error.evidence["refusals"] == [{"code": "port-taken", "service": "web", "message": error.message}]
    assert "shop" not in s.o.ledger.stacks
    s.agent.listeners = (Listener(protocol="tcp", address="0.0.0.0", port=81, holder="nginx (pid 9)"),)
    await s.agent.tell_host()
    await s.o.until(lambda: s.o.ledger.host and s.o.ledger.host.listeners)
    other = {"image": "web:1", "ports": [{"target": 80, "published": 81}]}
    error = await fails(s.o.up(stack("blog", web=other)), "port-in-use")
    assert "nginx (pid 9)" in error.message


async def test_start_is_admitted_too(s: Setting) -> None:
    port = {"image": "web:1", "ports": [{"target": 80, "published": 8080}]}
    await s.o.up(stack("visits", web=port))
    await s.controller.act("visits", "stop", [], ALICE)
    await s.o.up(stack("shop", web=port))
    await fails(s.controller.act("visits", "start", [], ALICE), "port-taken")


async def test_two_at_once_cannot_both_have_the_port(s: Setting) -> None:
    port = {"image": "web:1", "ports": [{"target": 80, "published": 8080}]}
    results = await asyncio.gather(*(s.o.up(stack(name, web=port)) for name in ("a", "b", "c")), return_exceptions=True)
    assert sum(isinstance(result, UserError) and result.code == "port-taken" for result in results) == 2
    assert len(s.o.ledger.stacks) == 1


async def test_scale_is_a_revision_and_holds_until_the_next_up(s: Setting) -> None:
    await s.o.up(stack(**TWO, job={"image": "job:1", "replicas": 0}))
    before = s.o.ids()
    scaled = await s.controller.scale("shop", {"web": 3, "job": 1}, ALICE)
    assert scaled.revision == 2
    assert set(before) < set(s.o.ids())
    assert s.o.ledger.stacks["shop"].model["services"]["web"]["replicas"] == 3
    await s.controller.act("shop", "restart", [], ALICE)
    assert len(s.o.ids()) == 5
    down = await s.o.up(stack(**TWO, job={"image": "job:1", "replicas": 0}))
    assert [a.kind for a in down.plan.actions].count("remove") == 2
    assert set(s.o.ids()) == set(before)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda c: c.act("nope", "stop", [], ALICE), "stack-unknown"),
        (lambda c: c.act("shop", "stop", ["nope"], ALICE), "service-unknown"),
        (lambda c: c.scale("nope", {"web": 1}, ALICE), "stack-unknown"),
        (lambda c: c.scale("shop", {"nope": 1}, ALICE), "service-unknown"),
        (lambda c: c.down("nope", False, ALICE), "stack-unknown"),
        (
            lambda c: c.up(stack(web={"image": "i", "depends_on": {"x": {}}}), "never", ALICE, print),
            "dependency-undefined",
        ),
    ],
    ids=["stop what", "stop whom", "scale what", "scale whom", "down what", "bad model"],
)
async def test_refusals(s: Setting, call: Any, code: str) -> None:
    await s.o.up(stack(**TWO))
    before = s.o.ledger.stacks["shop"]
    assert (await fails(call(s.controller), code)).hint
    assert s.o.ledger.stacks["shop"] is before


async def test_a_crowd_is_refused_before_it_is_planned(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    idle = {f"s{n}": {"image": "i", "replicas": 0} for n in range(1025)}
    await fails(s.o.up(stack("big", **idle)), "stack-too-large")
    many = {f"s{n}": {"image": "i", "replicas": 1000} for n in range(1000)}
    await fails(s.o.up(stack("big", **many)), "no-room")
    await s.controller.scale("shop", {"web": 1000}, ALICE)
    await fails(s.controller.scale("shop", {"db": 1000}, ALICE), "no-room")


async def test_what_was_asked_to_start_and_has_not_answered_is_not_asked_again(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    await s.o.converged()
    await s.agent.set("shop", "db", state="failed")
    await s.o.until(lambda: s.o.ledger.statuses["shop"].tasks[0].state == "failed")
    s.agent.deaf.add("shop")
    first = await s.o.up(stack(**TWO))
    assert [a.kind for a in first.plan.actions] == ["start", "keep", "keep"]
    again = await s.o.up(stack(**TWO))
    assert (again.generation, again.plan.changes) == (first.generation, False)


async def test_down_twice_is_one_tombstone_and_volumes_may_still_be_asked_for(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    s.agent.deaf.add("shop")
    assert [await s.controller.down("shop", v, ALICE) for v in (False, False, True, True, False)] == [2, 2, 3, 3, 3]
    assert s.o.ledger.stacks["shop"].remove_volumes
    await fails(s.o.up(stack(**TWO)), "stack-removing")
    await fails(s.controller.act("shop", "stop", [], ALICE), "stack-removing")


async def test_a_full_disk_changes_nothing(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    before = s.o.ledger.stacks["shop"]
    s.store.fail = Temporary("cannot save the change: the disk is full", code="disk-full")
    for call in (
        s.o.up(stack(web={"image": "web:3"})),
        s.controller.act("shop", "stop", [], ALICE),
        s.controller.scale("shop", {"web": 9}, ALICE),
        s.controller.down("shop", False, ALICE),
    ):
        await fails(call, "disk-full")
    assert s.o.ledger.stacks["shop"] is before
    s.store.fail = None
    await s.controller.act("shop", "stop", [], ALICE)
    await s.o.converged()


async def test_events_wait_while_the_disk_is_full(s: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is still heard: what runs is known, only its events stay with it until they can be stored."""
    monkeypatch.setattr(link, "KEEP_STATUS", 0.01)
    await s.o.up(stack(**TWO))
    await s.o.converged()
    sessions: list[bool] = []
    monkeypatch.setattr(s.o.ledger, "set_online", lambda online, *_: sessions.append(online))
    s.store.fail = Temporary("cannot save the change: the disk is full", code="disk-full")
    told = await s.agent.emit("task.exited")
    await s.agent.set("shop", "db", attempt=2)
    await s.o.until(lambda: s.o.ledger.statuses["shop"].tasks[0].attempt == 2)
    assert s.agent.forgotten == 0
    await s.o.until(lambda: bool(s.o.ledger.troubles.told()))
    assert [one.code for one in s.o.ledger.troubles.told()] == ["disk-full"]
    s.store.fail = None
    await s.o.until(lambda: s.o.ledger.cursors.get("journal-1") == 1)
    assert s.o.ledger.troubles.told() == ()
    assert [e for e in await s.o.events() if e.source == "agent"] == [told]
    assert False not in sessions


async def test_without_an_agent_nothing_is_promised(tmp_path: Path) -> None:
    async with orchestrating(MemoryBroker(), tmp_path / "agent.sock", MemoryStore()) as o:
        error = await fails(o.controller.up(stack(**TWO), "missing", ALICE, print), "agent-away")
        assert isinstance(error, Temporary)


async def test_an_agent_that_left_is_named_before_anything_changes(tmp_path: Path) -> None:
    broker, socket = MemoryBroker(), tmp_path / "agent.sock"
    async with orchestrating(broker, socket, MemoryStore()) as o:
        async with FakeAgent(broker).life(socket):
            await o.up(stack(**TWO))
        await fails(o.up(stack(web={"image": "web:2"})), "agent-away")
        assert o.ledger.stacks["shop"].generation == 1


BIND = {"type": "none", "o": "bind", "device": "/srv"}


@pytest.mark.parametrize(
    ("volume", "there", "code"),
    [
        pytest.param({"external": True}, {}, "volume-missing", id="external, not there"),
        pytest.param({"external": True}, {"data": BIND}, "", id="external, there"),
        pytest.param({}, {}, "", id="to be made"),
        pytest.param({"driver_opts": BIND}, {}, "", id="to be made with options"),
        pytest.param({"driver_opts": BIND}, {"data": BIND}, "", id="made so"),
        pytest.param({"driver_opts": BIND}, {"data": {}}, "volume-differs", id="made otherwise"),
    ],
)
async def test_volumes_are_looked_at_before_anything_changes(
    s: Setting, volume: dict[str, Any], there: dict[str, dict[str, str]], code: str
) -> None:
    s.agent.volumes = there
    model = stack(**TWO).model_copy(update={"volumes": {"data": Volume.model_validate({"name": "data", **volume})}})
    if not code:
        assert (await s.o.up(model)).generation == 1
        return
    error = await fails(s.o.up(model), code)
    assert "volume data" in error.message and "data" in error.hint
    assert not s.o.ledger.stacks and not any(request["op"] == "ensure" for request in s.agent.requests)


async def test_a_guest_of_an_internal_network_is_inside_also_when_its_owner_is_gone(s: Setting) -> None:
    def model(name: str, **network: Any) -> Stack:
        return stack(name, web={"image": "web:1", "networks": {"n": {}}}).model_copy(
            update={"networks": {"n": Network(name="back", **network)}}
        )

    await s.o.up(model("owner", internal=True))
    await s.o.up(model("guest", external=True))
    (task,) = s.o.ledger.stacks["guest"].tasks
    assert task.container.networks == (Membership(network="back", internal=True),)
    await s.o.up(model("owner"))
    assert s.o.ledger.stacks["guest"].tasks == (task,)
    await s.o.up(model("guest", external=True))
    (task,) = s.o.ledger.stacks["guest"].goal
    assert task.container.networks == (Membership(network="back"),)


async def test_services_keep_their_virtual_addresses_as_long_as_the_stack_has_them(s: Setting) -> None:
    def held(name: str = "shop") -> dict[str, int]:
        record = s.o.ledger.stacks[name]
        assert record.assignment("s").virtual == record.virtual
        return record.virtual

    job = {"image": "web:1", "network_mode": "none"}
    await s.o.up(stack(**TWO, job=job))
    first = dict(held())
    assert first.keys() == {"web", "db"}
    await s.controller.scale("shop", {"web": 0}, ALICE)
    await s.controller.act("shop", "recreate", [], ALICE)
    assert held() == first
    await s.o.up(stack(web=TWO["web"]))
    assert held() == {"web": first["web"]}
    await s.o.up(stack("blog", **TWO))
    assert not set(held("blog").values()) & set(held().values())


async def test_a_stack_of_before_gets_its_virtual_addresses_at_the_next_up(s: Setting) -> None:
    await s.o.up(stack(**TWO))
    record = s.o.ledger.stacks["shop"]
    given = dict(record.virtual)
    await s.o.ledger.commit(Change(stacks={"shop": replace(record, virtual={})}))
    applied = await s.o.up(stack(**TWO))
    after = s.o.ledger.stacks["shop"]
    assert (after.virtual, after.tasks, after.revision) == (given, record.tasks, record.revision)
    assert applied.generation == record.generation + 1
