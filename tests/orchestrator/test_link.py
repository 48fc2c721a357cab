"""Flows and identity: no container restarts, whatever dies, is deleted or restored."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import Temporary
from agent.kit.troubles import Trouble
from agent.wire import topics
from agent.wire.memory import MemoryBroker
from agent.wire.messages import Assignment, Online, Store
from orchestrator import link
from orchestrator.decide.records import Revision
from orchestrator.store.memory import MemoryStore
from orchestrator.store.port import Change
from tests.support.fake_agent import FakeAgent
from tests.support.orchestrating import ALICE, orchestrating, stack

TWO: dict[str, Any] = {"web": {"image": "web:1", "replicas": 2}, "db": {"image": "db:1"}}


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
async def agent(broker: MemoryBroker, socket: Path) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(broker).life(socket) as agent:
        yield agent


async def test_up_reaches_the_agent_and_its_status_comes_back(
    broker: MemoryBroker, socket: Path, agent: FakeAgent
) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        applied = await o.up(stack(**TWO))
        await o.converged()
        assert (applied.generation, applied.revision) == (1, 1)
        assert sorted(agent.starts) == sorted(o.ids())
        assert agent.assignments["shop"].cause == (await o.events())[0].id
        assert agent.assignments["shop"].model == o.ledger.stacks["shop"].model


async def test_an_orchestrator_that_restarts_takes_up_what_it_left(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, tmp_path: Path
) -> None:
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.up(stack(**TWO))
        await o.converged()
        before = o.ids()
    starts = list(agent.starts)
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.converged()
        assert o.ids() == before
        assert (await o.up(stack(**TWO))).generation == 1
    assert agent.starts == starts


async def test_the_agent_is_away_between_up_and_its_return(broker: MemoryBroker, socket: Path, tmp_path: Path) -> None:
    fake = FakeAgent(broker)
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        async with fake.life(socket):
            await o.up(stack(**TWO))
            await o.converged()
        broker.cut("agent")
        await o.until(lambda: not o.ledger.online)
        await o.controller.act("shop", "stop", ["web"], ALICE)
        async with fake.life(socket):
            await o.converged()
        assert [s.state for s in fake.running.values()].count("stopped") == 2


async def test_a_broker_that_restarts_gets_everything_again(
    broker: MemoryBroker, socket: Path, agent: FakeAgent
) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        await o.up(stack(**TWO))
        await o.converged()
        starts = list(agent.starts)
        broker.stop()
        await o.until(lambda: not o.ledger.online)
        broker.start()
        await o.converged()
        await agent.until(lambda: topics.assignment("shop") in broker.retained)
        assert Store.model_validate_json(broker.retained[topics.STORE]).store_id == agent.bound
        assert agent.starts == starts


async def test_down_ends_with_nothing_on_the_bus_and_no_row(
    broker: MemoryBroker, socket: Path, agent: FakeAgent
) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        await o.up(stack(**TWO))
        await o.converged()
        assert await o.controller.down("shop", False, ALICE) == 2
        await o.until(lambda: "shop" not in o.ledger.stacks)
        await agent.until(lambda: topics.assignment("shop") not in broker.retained)
        kinds = [event.kind for event in await o.events(stack="shop") if not event.kind.startswith("plan.")]
        assert kinds == ["stack.applied", "user.down", "stack.removed"]
        down, *_, removed = [
            event for event in await o.events(stack="shop") if event.kind.endswith(("down", "removed"))
        ]
        assert (down.evidence["uid"], removed.cause) == (1000, down.id)
        assert [r.number for r in await o.ledger.store.revisions("shop")] == [1]
        again = await o.up(stack(**TWO))
        assert (again.generation, again.revision) == (3, 2)  # no number comes twice
        await o.converged()


async def test_a_stack_that_is_gone_is_forgotten_once_the_disk_takes_it(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "KEEP_STATUS", 0.01)
    store = MemoryStore()
    async with orchestrating(broker, socket, store) as o:
        await o.up(stack(**TWO))
        await o.converged()
        agent.deaf.add("shop")
        await o.controller.down("shop", False, ALICE)
        await agent.until(lambda: Assignment.model_validate_json(broker.retained[topics.assignment("shop")]).removed)
        store.fail = Temporary("cannot save the change: the disk is full", code="disk-full")
        agent.deaf.clear()
        await agent._assign(Assignment.model_validate_json(broker.retained[topics.assignment("shop")]))
        await o.until(lambda: [one.code for one in o.ledger.troubles.told()] == ["disk-full"])
        assert o.ledger.online and "shop" in o.ledger.stacks
        store.fail = None
        await o.until(lambda: "shop" not in o.ledger.stacks and o.ledger.troubles.told() == ())


async def test_what_holds_up_an_agent_that_cannot_begin_is_known(broker: MemoryBroker, socket: Path) -> None:
    trouble = Trouble("journal-full", "cannot write the journal", "free some space", 5.0)
    away = Online(online=False, epoch=0, troubles=(trouble,))
    async with orchestrating(broker, socket, MemoryStore()) as o:
        async with broker.bus("agent").session(()) as session:
            await session.publish(topics.ONLINE, away.model_dump_json().encode(), retain=True)
            await o.until(lambda: o.ledger.told == (trouble,))
            assert not o.ledger.online
        async with FakeAgent(broker).life(socket):
            await o.until(lambda: o.ledger.online)
            assert o.ledger.told == ()


async def test_a_tombstone_that_was_lost_is_sent_again(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, tmp_path: Path
) -> None:
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.up(stack(**TWO))
        await o.converged()
        agent.deaf.add("shop")
        await o.controller.down("shop", False, ALICE)
        await agent.until(lambda: Assignment.model_validate_json(broker.retained[topics.assignment("shop")]).removed)
    agent.deaf.clear()
    broker.stop()
    broker.start()
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.until(lambda: o.ledger.bound and "shop" not in o.ledger.stacks)
        assert agent.running == {}


async def test_events_of_an_outage_arrive_once_and_in_order(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, tmp_path: Path
) -> None:
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.up(stack(**TWO))
        await agent.emit("task.started", stack="shop")
        await o.until(lambda: o.ledger.cursors.get("journal-1") == 1)
    crashes = [await agent.emit("task.exited", stack="shop", attempt=n) for n in range(1, 6)]
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.until(lambda: o.ledger.cursors.get("journal-1") == 6)
        last = await agent.emit("task.started", stack="shop")
        await o.until(lambda: o.ledger.cursors.get("journal-1") == 7)
        await agent.until(lambda: agent.forgotten == 7)
        told = [event for event in await o.events(stack="shop") if event.source == "agent"]
        assert told[1:] == [*crashes, last]


async def test_a_batch_after_a_hole_is_refused_and_asked_for_again(
    broker: MemoryBroker, socket: Path, agent: FakeAgent
) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        await o.until(lambda: o.ledger.bound)
        session, agent._session = agent._session, None
        lost = await agent.emit("task.exited")
        agent._session = session
        kept = await agent.emit("task.started")
        await o.until(lambda: o.ledger.cursors.get("journal-1") == 2)
        assert [e for e in await o.events() if e.source == "agent"] == [lost, kept]


async def test_a_deleted_database_is_rebuilt_from_what_runs(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, tmp_path: Path
) -> None:
    async with orchestrating(broker, socket, tmp_path / "o.db") as o:
        await o.up(stack(**TWO))
        await o.up(stack("blog"))
        await o.controller.scale("shop", {"web": 3}, ALICE)
        await o.converged()
        before, old = dict(o.ledger.stacks), o.ledger.identity.store_id
        await agent.until(lambda: ("shop", 2) in agent.accepted)
    starts = list(agent.starts)
    async with orchestrating(broker, socket, tmp_path / "new.db") as o:
        await o.until(lambda: o.ledger.bound)
        await agent.until(lambda: agent.bound == o.ledger.identity.store_id)
        assert o.ledger.identity.adopts == (old,)
        for name, record in before.items():
            found = o.ledger.stacks[name]
            assert (found.tasks, found.model, found.generation, found.revision) == (
                *(record.tasks, record.model, record.generation, record.revision),
            )
        await o.converged("shop")
        await o.converged("blog")
        assert {e.kind for e in await o.events()} == {"stack.adopted"}
        assert (await o.up(stack("blog"))).generation == before["blog"].generation
        assert not [topic for topic in broker.retained if topic.startswith("gorae/report/")]
    assert agent.starts == starts


@pytest.mark.parametrize("newer", ["host", "foreign"], ids=["same store, lower generation", "an adopted store since"])
async def test_a_restored_database_adopts_and_starts_nothing(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, tmp_path: Path, newer: str
) -> None:
    db, copy = tmp_path / "o.db", tmp_path / "copy.db"
    async with orchestrating(broker, socket, db) as o:
        await o.up(stack(**TWO))
        await o.up(stack("gone"))
        await o.converged()
        await o.converged("gone")
        await o.ledger.commit(Change(statuses=dict(o.ledger.statuses)))
    shutil.copy(db, copy)
    async with orchestrating(broker, socket, db) as o:
        for replicas in (3, 4, 5):
            await o.up(stack(**{**TWO, "web": {"image": "web:1", "replicas": replicas}}))
        await o.up(stack("fresh"))
        await o.controller.down("gone", False, ALICE)
        await o.until(lambda: "gone" not in o.ledger.stacks)
        await o.converged()
        await o.converged("fresh")
        before = dict(o.ledger.stacks)
    if newer == "foreign":
        async with orchestrating(broker, socket, tmp_path / "between.db") as o:
            await o.until(lambda: o.ledger.bound)
            await agent.until(lambda: agent.bound == o.ledger.identity.store_id)
    starts = list(agent.starts)
    async with orchestrating(broker, socket, copy) as o:
        old = o.ledger.identity.store_id
        await o.until(lambda: o.ledger.bound)
        await agent.until(lambda: agent.bound == o.ledger.identity.store_id)
        assert o.ledger.identity.store_id != old
        assert {name: r.tasks for name, r in o.ledger.stacks.items() if not r.held} == {
            name: r.tasks for name, r in before.items()
        }
        assert o.ledger.stacks["gone"].held
        assert "gone" not in agent.assignments
        assert "gone" not in o.ledger.statuses, "what ran when the copy was made runs no more"
        assert "gone" not in (await o.ledger.store.load()).statuses
        await o.converged()
        kinds = [e.kind for e in await o.events() if e.kind.startswith(("store.", "stack.held", "stack.adopted"))]
        assert sorted(kinds) == ["stack.adopted", "stack.adopted", "stack.held", "store.restored"]
        assert agent.starts == starts
        await o.up(stack("gone"))  # the user decides: it may start
        await o.converged("gone")
    assert len(agent.starts) == len(starts) + 1


async def test_a_restart_in_the_middle_of_taking_over_goes_on(
    broker: MemoryBroker, socket: Path, agent: FakeAgent, tmp_path: Path
) -> None:
    """The new identity is on disk, the reports are not: the next life finds an unsettled store, and adopts."""
    db, copy = tmp_path / "o.db", tmp_path / "copy.db"
    async with orchestrating(broker, socket, db) as o:
        await o.up(stack(**TWO))
        await o.converged()
    shutil.copy(db, copy)
    async with orchestrating(broker, socket, db) as o:
        await o.up(stack(**{**TWO, "web": {"image": "web:1", "replicas": 4}}))
        await o.converged()
        before, old = o.ids(), o.ledger.identity.store_id
    starts, agent.withhold = list(agent.starts), True
    async with orchestrating(broker, socket, copy) as o:
        await o.until(lambda: o.ledger.identity.store_id != old)
        await o.until(lambda: o.ledger.online)
        with pytest.raises(Temporary, match="has not said what runs"):
            await o.controller.act("shop", "stop", [], ALICE)
        new = o.ledger.identity
        assert (new.former, new.settled) == ((old,), False)
    agent.withhold = False
    async with orchestrating(broker, socket, copy) as o:
        await o.until(lambda: o.ledger.bound)
        await o.converged()
        assert o.ids() == before
        assert o.ledger.identity.store_id == new.store_id
    assert agent.starts == starts


async def test_a_number_that_is_taken_by_another_model_is_not_used_again(
    broker: MemoryBroker, socket: Path, agent: FakeAgent
) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        await o.up(stack(**TWO))
        await o.converged()
    store, other = MemoryStore(), Revision("shop", 1, 1.0, None, {"name": "shop", "services": {}})
    await store.commit(Change(revisions=[other]))
    async with orchestrating(broker, socket, store) as o:
        await o.until(lambda: "shop" in o.ledger.stacks)
        assert o.ledger.stacks["shop"].revision == 2
        assert await store.revision("shop", 1) == other


async def test_a_status_that_is_not_newer_is_dropped(broker: MemoryBroker, socket: Path, agent: FakeAgent) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        await o.up(stack(**TWO))
        await o.converged()
        newest = o.ledger.statuses["shop"]
        async with broker.bus("agent").session(()) as session:
            for old in ({"seq": newest.seq - 1}, {"epoch": 0, "seq": 99}):
                late = newest.model_copy(update={**old, "tasks": ()})
                await session.publish(topics.status("shop"), late.model_dump_json().encode(), retain=True)
        await agent.emit("task.started")
        await o.until(lambda: o.ledger.cursors.get("journal-1") == 1)  # so the others have been read
        assert o.ledger.statuses["shop"] is newest


async def test_an_agent_that_lost_its_journal_is_heard_again(broker: MemoryBroker, socket: Path) -> None:
    """Its epochs begin at 1 again; what it says must not be dropped for ever."""
    async with orchestrating(broker, socket, MemoryStore()) as o:
        old = FakeAgent(broker)
        old.epoch = 7
        async with old.life(socket):
            await o.up(stack(**TWO))
            await o.converged()
        broker.cut("agent")
        await o.until(lambda: not o.ledger.online)
        fresh = FakeAgent(broker)
        fresh.journal_id = "journal-2"
        async with fresh.life(socket):
            await o.converged()
            assert o.ledger.statuses["shop"].epoch == 1
            assert sorted(fresh.running) == sorted(o.ids())


async def test_a_message_nobody_can_read_is_left_out(broker: MemoryBroker, socket: Path, agent: FakeAgent) -> None:
    async with orchestrating(broker, socket, MemoryStore()) as o:
        await o.until(lambda: o.ledger.bound)
        async with broker.bus("agent").session(()) as session:
            await session.publish(topics.status("shop"), b"not json", retain=True)
            await session.publish(topics.HOST, b'{"wire_version": 99}', retain=True)
        await o.up(stack(**TWO))
        await o.converged()
