"""Updates, the way back and plans, through the controller and the loop, beside a scripted agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import Temporary, UserError
from agent.wire.memory import MemoryBroker
from agent.wire.messages import Task, TaskStatus
from orchestrator import rolling
from orchestrator.compose.model import LockedImage
from orchestrator.decide.difference import difference
from orchestrator.decide.preview import preview
from orchestrator.decide.runs import Wanted
from orchestrator.decide.status import fold
from orchestrator.decide.staying import Others, beside, staying
from orchestrator.store.sqlite import SqliteStore
from tests.support.fake_agent import FakeAgent
from tests.support.orchestrating import ALICE, Orchestrating, orchestrating, stack

WEB: dict[str, Any] = {"image": "web:1", "replicas": 3}
CHECKED: dict[str, Any] = {**WEB, "healthcheck": {"test": ["CMD", "x"]}}


class Picky(FakeAgent):
    """What runs `bad` images never gets well."""

    bad = "web:bad"

    def _become(self, task: Task) -> TaskStatus:
        status = super()._become(task)
        if task.container.image != self.bad:
            return status
        return status.model_copy(update={"state": "backoff", "health": "none", "message": "exit 3", "failures": 1})


class Setting:
    def __init__(self, o: Orchestrating, agent: Picky, broker: MemoryBroker, place: Path) -> None:
        self.o, self.agent, self.broker, self.place = o, agent, broker, place

    def images(self) -> list[str]:
        return [task.container.image for task in self.o.ledger.stacks["shop"].tasks]


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Setting]:
    broker, socket = MemoryBroker(), tmp_path / "agent.sock"
    async with Picky(broker).life(socket) as agent, orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.until(lambda: o.ledger.bound)
        assert isinstance(agent, Picky)
        yield Setting(o, agent, broker, tmp_path)


async def test_an_update_goes_slot_by_slot_and_says_so(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED))
    before = s.o.ids()
    await s.o.up(stack(web={**CHECKED, "image": "web:2"}))
    assert len(s.o.ids()) == 4 and set(before) < set(s.o.ids())  # the first new one, beside the old
    await s.o.converged()
    assert s.images() == ["web:2"] * 3 and not set(before) & set(s.o.ids())
    told = await s.o.events()
    ids = {event.id for event in told}
    assert all(event.cause in ids for event in told if event.cause)
    assert [e.kind for e in told if e.kind.startswith("update.")][-1] == "update.done"
    assert [e.slot for e in told if e.kind == "update.begun"] == [1, 2, 3]
    assert all(e.cause for e in told if e.kind.startswith(("update.", "plan.")))


async def test_a_failed_update_restores_the_revision_before_exactly(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED, db={"image": "db:1"}))
    record = s.o.ledger.stacks["shop"]
    await s.o.up(stack(web={**CHECKED, "image": "web:bad"}, extra={"image": "x:1"}))
    await s.o.converged()
    after = s.o.ledger.stacks["shop"]
    assert (after.revision, after.model) == (1, record.model)
    found = {(t.service, t.slot, t.template, t.policy) for t in after.tasks}
    assert found == {(t.service, t.slot, t.template, t.policy) for t in record.tasks}
    assert {t.id for t in after.tasks if t.service == "web"} == {t.id for t in record.tasks if t.service == "web"}
    update = fold(after, s.o.ledger.statuses["shop"], True)["update"]
    assert update["phase"] == "rolled-back" and update["message"] == "web.1 failed: exit 3; back to revision 1"
    kinds = [event.kind for event in await s.o.events()]
    assert kinds.index("update.failed") < kinds.index("update.rolling-back") < kinds.index("update.rolled-back")
    assert (await s.o.up(stack(web=CHECKED, db={"image": "db:1"}))).revision == 1
    assert s.o.ledger.stacks["shop"].rollout is None  # said again, and nothing is left to be told


async def test_a_run_beside_a_paused_update_does_not_carry_it_on(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED))
    bad = stack(web={**CHECKED, "image": "web:bad", "update": {"failure_action": "pause"}})
    await s.o.up(bad)
    await s.o.until(lambda: (now := s.o.ledger.stacks["shop"].rollout) is not None and now.phase == "paused")
    s.agent.bad = ""  # it gets well, but nobody has said that the others may follow
    await s.agent.set("shop", "web", state="running", health="healthy", failures=0)
    await s.o.until(lambda: sorted(s.images()) == ["web:1", "web:1", "web:bad"])
    _, once = await s.o.controller.run("shop", "web", Wanted(("look",)), ALICE)
    await s.o.until(lambda: sorted(s.images()) == ["web:1", "web:1", "web:bad", "web:bad"])
    found = s.o.ledger.stacks["shop"].rollout
    assert found is not None and (found.phase, found.message) == ("paused", "web.1 failed: exit 3")
    await s.o.controller.end_run("shop", once, ALICE)
    await s.o.up(bad)
    await s.o.converged()
    assert s.images() == ["web:bad"] * 3 and s.o.ledger.stacks["shop"].rollout is None


async def test_a_way_back_is_told_of_though_something_ran_meanwhile(s: Setting) -> None:
    stop_first = {**CHECKED, "update": {"order": "stop-first"}}
    await s.o.up(stack(web=stop_first))
    s.agent.deaf.add("shop")
    await s.o.up(stack(web={**stop_first, "image": "web:bad"}))
    s.agent.deaf.clear()
    await s.agent._assign(s.o.ledger.stacks["shop"].assignment(s.o.ledger.identity.store_id))
    s.agent.deaf.add("shop")
    await s.o.until(lambda: (now := s.o.ledger.stacks["shop"].rollout) is not None and now.phase == "rolling-back")
    await s.o.controller.run("shop", "web", Wanted(("look",)), ALICE)
    s.agent.deaf.clear()
    await s.agent._assign(s.o.ledger.stacks["shop"].assignment(s.o.ledger.identity.store_id))
    for _ in range(2):
        await s.o.converged()
        record = s.o.ledger.stacks["shop"]
        assert fold(record, s.o.ledger.statuses["shop"], True)["update"]["phase"] == "rolled-back"
        await s.o.controller.run("shop", "web", Wanted(("look",)), ALICE)


async def test_the_first_up_has_nothing_to_go_back_to(s: Setting) -> None:
    await s.o.up(stack(web={**CHECKED, "image": "web:bad"}))
    assert s.o.ledger.stacks["shop"].rollout is None


async def test_another_life_goes_on_in_the_middle(tmp_path: Path) -> None:
    broker, socket, store = MemoryBroker(), tmp_path / "agent.sock", tmp_path / "o.db"
    async with Picky(broker).life(socket) as agent:
        async with orchestrating(broker, socket, store) as o:
            await o.up(stack(web=CHECKED))
            await o.converged()
            agent.deaf.add("shop")
            await o.up(stack(web={**CHECKED, "image": "web:2"}))
            middle = o.ledger.stacks["shop"]
            assert middle.rollout is not None and len(middle.tasks) == 4
        async with orchestrating(broker, socket, store) as o:
            again = o.ledger.stacks["shop"]
            assert (again.tasks, again.rollout) == (middle.tasks, middle.rollout)
            agent.deaf.clear()
            await o.until(lambda: o.ledger.bound)
            await agent._assign(o.ledger.stacks["shop"].assignment(o.ledger.identity.store_id))
            await o.converged()
            assert {t.container.image for t in o.ledger.stacks["shop"].tasks} == {"web:2"}


async def test_what_another_version_stored_holds_up_no_other_update(
    s: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("shop", "blog"):
        await s.o.up(stack(name, web=WEB))
        await s.o.converged(name)
    s.agent.deaf.add("shop")
    await s.o.up(stack(web={**WEB, "image": "web:2"}))
    record = s.o.ledger.stacks["shop"]
    s.o.ledger.stacks["shop"] = replace(record, model={**record.model, "of_the_future": True})
    await s.o.up(stack("blog", web={**WEB, "image": "web:2"}))
    await s.o.converged("blog")
    assert sum("cannot carry on with the update of shop" in line for line in caplog.messages) == 1


async def test_a_failed_update_fetches_what_it_goes_back_to_if_that_is_gone(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED))
    await s.o.converged()
    before = len(s.agent.requests)
    await s.o.up(stack(web={**CHECKED, "image": "web:bad"}))
    await s.o.converged()
    assert s.images() == ["web:1"] * 3
    fetched = [[*one["images"]] for one in s.agent.requests[before:] if one["op"] == "ensure"]
    assert fetched == [["web:bad"], ["web:1"]]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(UserError("cannot find image web:1 on this host", code="image-missing"), "cannot find", id="none"),
        pytest.param(None, "cannot go back to web:1 as it was: that image is gone", id="another of the name"),
    ],
)
async def test_a_failed_update_whose_way_back_is_gone_stays_as_it_is_and_says_so(
    s: Setting, error: UserError | None, said: str
) -> None:
    await s.o.up(stack(web=CHECKED))
    await s.o.converged()
    before = set(s.o.ids())
    s.agent.images["web:1"] = "sha256:another"
    if error is not None:
        s.agent.missing["web:1"] = error
    await s.o.up(stack(web={**CHECKED, "image": "web:bad"}))
    await s.o.until(lambda: (found := s.o.ledger.stacks["shop"].rollout) is not None and found.phase == "paused")
    record = s.o.ledger.stacks["shop"]
    assert record.rollout is not None and record.rollout.message.startswith(
        f"web.1 failed: exit 3; not back to revision 1: {said}"
    )
    assert record.revision == 2 and before <= set(s.o.ids()), "what serves goes on"
    assert [event.message for event in await s.o.events() if event.kind == "update.paused"] == [record.rollout.message]


async def test_a_way_back_that_cannot_be_had_for_now_is_waited_for(s: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "AGAIN", 0.01)
    await s.o.up(stack(web=CHECKED))
    await s.o.converged()
    s.agent.images["other"] = "sha256:other"  # web:1 is not here any more
    s.agent.missing["web:1"] = Temporary("cannot fetch web:1: the registry does not answer", code="registry-away")
    await s.o.up(stack(web={**CHECKED, "image": "web:bad"}))
    await s.o.until(lambda: [one.code for one in s.o.ledger.troubles.told()] == ["registry-away"])
    assert s.o.ledger.troubles.told()[0].stack == "shop"
    s.agent.missing.clear()
    await s.o.converged()
    assert s.images() == ["web:1"] * 3 and s.o.ledger.troubles.told() == ()


async def test_a_rollback_to_an_image_that_is_gone_changes_nothing(s: Setting) -> None:
    for image in ("web:1", "web:2"):
        await s.o.up(stack(web={**WEB, "image": image}))
        await s.o.converged()
    record = s.o.ledger.stacks["shop"]
    s.agent.missing["web:1"] = UserError("cannot find image web:1 on this host", code="image-missing")
    with pytest.raises(UserError, match="cannot find image web:1"):
        await s.o.controller.rollback("shop", None, ALICE)
    s.agent.missing.clear()
    s.agent.images["web:1"] = "sha256:another"
    with pytest.raises(UserError, match="cannot go back to web:1 as it was: that image is gone"):
        await s.o.controller.rollback("shop", None, ALICE)
    assert s.o.ledger.stacks["shop"] == record
    s.agent.images["web"] = "sha256:web:1"  # under another name
    assert (await s.o.controller.rollback("shop", None, ALICE)).revision == 1


async def test_rollback_by_hand_goes_to_any_kept_revision(s: Setting) -> None:
    for image in ("web:1", "web:2", "web:3"):
        await s.o.up(stack(web={**CHECKED, "image": image}))
        await s.o.converged()
    back = await s.o.controller.rollback("shop", None, ALICE)
    await s.o.converged()
    assert (back.revision, s.images()) == (2, ["web:2"] * 3)
    await s.o.controller.rollback("shop", 1, ALICE)
    await s.o.converged()
    assert s.images() == ["web:1"] * 3 and s.o.ledger.stacks["shop"].rollout is None
    for number in (None, 9):
        with pytest.raises(UserError, match="cannot find"):
            await s.o.controller.rollback("shop", number, ALICE)
    assert (await s.o.up(stack(web={**CHECKED, "image": "web:4"}))).revision == 4  # no number comes twice


async def test_a_restart_of_several_is_rolling_and_of_one_is_at_once(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED, db={"image": "db:1"}))
    await s.o.converged()
    await s.o.controller.act("shop", "restart", [], ALICE)
    asked = {(t.service, t.slot): t.restart_request for t in s.o.ledger.stacks["shop"].tasks}
    assert asked == {("db", 1): 1, ("web", 1): 1, ("web", 2): 0, ("web", 3): 0}
    await s.o.converged()
    assert {t.restart_request for t in s.o.ledger.stacks["shop"].tasks} == {1}


async def test_stop_in_the_middle_of_an_update_stops_all_of_it(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED))
    await s.o.converged()
    s.agent.deaf.add("shop")
    await s.o.up(stack(web={**CHECKED, "image": "web:2"}))
    await s.o.controller.act("shop", "stop", [], ALICE)
    tasks = s.o.ledger.stacks["shop"].tasks
    assert [t.desired for t in tasks] == ["stopped"] * 3 and s.o.ledger.stacks["shop"].rollout is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({}, ("nothing", 0, "none")),
        ({"stop_grace_period": 3.0}, ("live", 3, "none")),
        ({"image": "web:2"}, ("rolling", 3, "none")),
        ({"image": "web:2", "naming": {"container": "x"}}, ("rolling", 3, "1 of 3 at a time")),
        ({"image": "web:2", "replicas": 1, "naming": {"container": "x"}}, ("recreate", 3, "while it starts")),
        ({"replicas": 5}, ("create", 2, "none")),
    ],
    ids=str,
)
async def test_a_plan_says_what_up_would_do_and_touches_nothing(
    s: Setting, after: dict[str, Any], expected: tuple[str, int, str]
) -> None:
    await s.o.up(stack(web=CHECKED))
    await s.o.converged()
    record = s.o.ledger.stacks["shop"]
    model = stack(web={**CHECKED, **after})
    locks = {**stack().model_validate(record.model).images}
    locks.setdefault("web:2", locks["web:1"].model_copy(update={"id": "sha256:web:2"}))
    named = {name: locks[name] for name in {service.image for service in model.services.values()}}
    found = preview(record, model.model_copy(update={"images": named}), {}, set())
    (web,) = found["services"]
    assert (web["consequence"], web["containers"], web["downtime"]) == expected
    assert found["changes"] is bool(after) and bool(found["difference"]) is bool(after)
    assert s.o.ledger.stacks["shop"] is record


def test_difference_is_by_field() -> None:
    one = stack(web={**WEB, "environment": {"A": "1", "B": "2"}}).model_dump(mode="json", exclude_defaults=True)
    other = stack(web={**WEB, "environment": {"A": "1", "B": "3"}}, db={"image": "db:1"}).model_dump(mode="json")
    found = difference(one, other)
    assert found[0]["key"] == "services.db" and found[0]["before"] is None
    assert found[1] == {"key": "services.web.environment.B", "before": "2", "after": "3"} and len(found) == 2
    assert difference(one, one) == []


async def test_up_of_some_services_leaves_the_others_exactly_as_they_are(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED, db={"image": "db:1"}, old={"image": "old:1"}))
    await s.o.converged()
    await s.o.controller.act("shop", "stop", ["old"], ALICE)
    before = {t.service: t for t in s.o.ledger.stacks["shop"].tasks if t.service != "web"}
    model = stack(web={**CHECKED, "image": "web:2"})
    await s.o.controller.up(model, "always", ALICE, lambda _: None, others=Others(partial=True))
    await s.o.converged()
    record = s.o.ledger.stacks["shop"]
    assert {t.service: t for t in record.tasks if t.service != "web"} == before
    assert sorted(record.model["services"]) == ["db", "old", "web"]
    assert sorted(record.model["images"]) == ["db:1", "old:1", "web:2"]
    assert {t.container.image for t in record.tasks if t.service == "web"} == {"web:2"}
    await s.o.up(stack(web={**CHECKED, "image": "web:2"}))
    assert {t.service for t in s.o.ledger.stacks["shop"].goal} == {"web"}


async def test_services_that_are_to_be_kept_stay_and_orphans_go(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED, debug={"image": "debug:1"}, old={"image": "old:1"}))
    await s.o.converged()
    record = s.o.ledger.stacks["shop"]
    before = {t.service: t for t in record.tasks}
    model, others = stack(web={**CHECKED, "image": "web:2"}), Others(keep=frozenset({"debug", "never-there"}))
    stay = staying(record, model, others)
    assert stay == {"debug"}
    told = beside(record, model, stay)
    images = {one.image: LockedImage(id=f"sha256:{one.image}") for one in told.services.values()}
    said = preview(record, told.model_copy(update={"images": images}), {}, [], stay)["services"]
    assert {one["name"]: one["consequence"] for one in said} == {"web": "rolling", "debug": "nothing", "old": "remove"}
    await s.o.controller.act("shop", "stop", ["debug"], ALICE)
    await s.o.controller.up(model, "missing", ALICE, lambda _: None, others=others)
    await s.o.converged()
    after = {t.service: t for t in s.o.ledger.stacks["shop"].tasks}
    assert after.keys() == {"web", "debug"}
    assert after["debug"] == before["debug"].model_copy(update={"desired": "stopped"})


async def test_a_run_is_beside_the_services_until_it_is_over(s: Setting) -> None:
    web = {**CHECKED, "ports": [{"target": 80, "published": 8080}], "naming": {"container": "x"}}
    await s.o.up(stack(web={**web, "replicas": 1}))
    await s.o.converged()
    (before,) = s.o.ledger.stacks["shop"].tasks
    _, once = await s.o.controller.run("shop", "web", Wanted(("echo", "hi"), environment={"A": "1"}, user="7"), ALICE)
    tasks = {t.service: t for t in s.o.ledger.stacks["shop"].tasks}
    assert tasks["web"] == before and once.startswith("web-run-")
    made = tasks[once].container
    assert (made.command, made.environment["A"], made.user) == (("echo", "hi"), "1", "7")
    assert (made.ports, made.naming.container, tasks[once].policy.restart.condition) == ((), "", "no")
    await s.o.up(stack(web={**web, "replicas": 1, "image": "web:2"}))
    assert once in {t.service for t in s.o.ledger.stacks["shop"].goal}
    await s.o.converged()
    with pytest.raises(UserError, match="cannot find service web in"):
        await s.o.controller.end_run("shop", "web", ALICE)
    await s.o.controller.end_run("shop", once, ALICE)
    await s.o.converged()
    assert {t.service for t in s.o.ledger.stacks["shop"].tasks} == {"web"}


async def test_while_the_host_is_drained_nothing_runs_and_no_update_goes_on(s: Setting) -> None:
    await s.o.up(stack(web=CHECKED))
    await s.o.converged()
    before = s.o.ids()
    stacks = await s.o.controller.drain(True, ALICE)
    assert stacks == {"shop": s.o.ledger.stacks["shop"].generation} == await s.o.controller.drain(True, ALICE)
    await s.o.converged()
    assert {s.agent.running[id].state for id in before} == {"stopped"}
    assert [task.desired for task in s.o.ledger.stacks["shop"].tasks] == ["running"] * 3, "what is wanted is kept"
    await s.o.up(stack(web={**CHECKED, "image": "web:2"}))
    with pytest.raises(UserError, match="cannot run shop/web: the host is drained"):
        await s.o.controller.run("shop", "web", Wanted(), ALICE)
    kept = await SqliteStore.open(s.place / "o.db")
    assert (await kept.load()).drained == s.o.ledger.drained > 0
    await kept.close()
    await s.o.converged()
    starts = list(s.agent.starts)
    await s.o.controller.drain(False, ALICE)
    await s.o.until(lambda: s.o.ledger.stacks["shop"].rollout is None)
    await s.o.converged()
    assert len(s.agent.starts) == len(starts) + 3 and s.images() == ["web:2"] * 3
    told = await s.o.events()
    assert [e.kind for e in told if e.stack is None] == ["host.drained", "host.undrained"]
    ids = {event.id for event in told}
    assert all(event.cause in ids for event in told if event.cause)
