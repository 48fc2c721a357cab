"""What is said on the bus: everything in each session, the newest status only, each event once and in order."""

from __future__ import annotations

from agent.fakes.journal import FakeJournal
from agent.ports import Change
from agent.reporter import BATCH_BYTES
from agent.wire import topics
from agent.wire.messages import Cursor, Event, Listener, Online, StackStatus
from tests.agent.test_worker import task
from tests.agent.world import World, running


async def test_a_session_begins_with_everything() -> None:
    async with running() as world:
        await world.assign(task(world))
        await world.until(lambda: world.state() == "running")
        world.broker.stop()
        await world.settle(3)
        assert world.broker.retained == {}
        world.broker.start()
        await world.settle(1.5)
        assert world.said(topics.ONLINE, Online) == Online(online=True, epoch=1)
        assert world.hosts().stacks == {"shop": 1} and world.state() == "running"


async def test_its_last_will_says_that_it_is_gone() -> None:
    async with running() as world:
        await world.kill()
        assert world.said(topics.ONLINE, Online) == Online(online=False, epoch=1)
        world.start()
        await world.settle()
        assert world.said(topics.ONLINE, Online) == Online(online=True, epoch=2)


async def test_epoch_and_seq_only_grow() -> None:
    async with running() as world:
        seen: list[tuple[int, int]] = []
        async with world.broker.bus("test").session((topics.STATUSES, topics.HOST)) as session:
            await world.assign(task(world))
            await world.settle(1)
            await world.restart()
            world.runtime.finish("t1", 1)
            await world.settle(5)
            reader = session.messages()
            assert hasattr(session, "_inbox")
            for _ in range(len(session._inbox)):
                message = await anext(reader)
                body = StackStatus if message.topic != topics.HOST else None
                if body:
                    status = body.model_validate_json(message.payload)
                    seen.append((status.epoch, status.seq))
        assert len(seen) >= 3 and seen == sorted(set(seen))


async def test_a_burst_of_changes_is_one_message() -> None:
    async with running() as world, world.broker.bus("test").session((topics.STATUSES,)) as session:
        await world.assign(*(task(world, f"t{n}", "web", n) for n in range(1, 41)))
        await world.until(lambda: all(world.state(f"t{n}") == "running" for n in range(1, 41)))
        assert hasattr(session, "_inbox")
        assert len(session._inbox) <= 8, "not one for each of 40 tasks' four states"


async def test_a_crash_and_its_restart_are_one_message() -> None:
    async with running() as world, world.broker.bus("test").session((topics.STATUSES,)) as session:
        await world.assign(task(world))
        await world.until(lambda: world.state() == "running")
        await world.settle(20)  # it may restart at once
        assert hasattr(session, "_inbox")
        before = len(session._inbox)
        world.runtime.finish("t1", 1)
        await world.until(lambda: (there := world.task()) is not None and there.attempt == 2)
        await world.settle(1)
        assert world.state() == "running" and len(session._inbox) == before + 1


async def test_the_hosts_listeners_are_told_when_they_change() -> None:
    async with running() as world:
        world.host.held = (Listener(protocol="tcp", address="0.0.0.0", port=8080, holder="nginx (pid 7)"),)
        await world.settle(6)
        assert world.hosts().listeners == world.host.held
        seq = world.hosts().seq
        await world.settle(20)
        assert world.hosts().seq == seq


# Events -------------------------------------------------------------------------------------------------------------


def delivered(world: World) -> list[tuple[int, str]]:
    """What an orchestrator that keeps to the rules has stored."""
    have: list[tuple[int, str]] = []
    for batch in world.batches:
        last = have[-1][0] if have else 0
        if batch.after <= last:
            have.extend((seq, event.kind) for seq, event in batch.events if seq > last)
    return have


async def test_events_come_once_and_in_order() -> None:
    async with running() as world:
        async with world.collecting():
            await world.assign(task(world))
            await world.settle(1)
            for _ in range(5):
                world.runtime.finish("t1", 1)
                await world.settle(15)
        kinds = [kind for _, kind in delivered(world)]
        assert [seq for seq, _ in delivered(world)] == list(range(1, len(kinds) + 1))
        assert kinds.count("task.exited") == 5 and kinds[0] == "agent.started"
        assert world.journal.events == [], "what was taken over is forgotten"


async def test_events_of_an_outage_are_all_there_afterwards() -> None:
    async with running() as world:
        async with world.collecting():
            await world.assign(task(world))
            await world.settle(1)
        for _ in range(5):
            world.runtime.finish("t1", 1)
            await world.settle(15)
        world.runtime.finish("t1", 137, oom=True)
        await world.settle(15)
        await world.restart()
        async with world.collecting():
            await world.settle(2)
        exits = [event.reason for b in world.batches for _, event in b.events if event.kind == "task.exited"]
        assert exits[-6:] == ["exit-error"] * 5 + ["oom"]
        seqs = [seq for seq, _ in delivered(world)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_a_batch_stays_far_below_what_the_broker_takes() -> None:
    async with running() as world:
        big = [Event(id=f"{number:026}", at=1.0, kind="task.exited", message="x" * 100_000) for number in range(1, 151)]
        await world.journal.record(Change(events=big))
        async with world.collecting():
            await world.settle(5)
        assert max(len(batch.model_dump_json()) for batch in world.batches) <= BATCH_BYTES
        assert [told for b in world.batches for _, told in b.events if told.message == big[0].message] == big


async def test_one_batch_is_under_way_at_a_time() -> None:
    async with running() as world:
        world.take_events = False
        async with world.collecting():
            for generation in range(1, 6):
                await world.assign(task(world), generation=generation)
                await world.settle(1)
            assert len(world.batches) <= 1, "nobody has said that the first one has arrived"
            await world.settle(40)
            assert len(world.batches) == 2, "but it may have been lost"


async def test_a_cursor_of_another_journal_means_nothing() -> None:
    async with running() as world:
        await world.say(topics.CURSOR, Cursor(journal_id="another", seq=1000))
        await world.settle(1)
        assert world.events("agent.started")
        await world.say_raw(topics.CURSOR, b"nonsense")
        await world.settle(1)
        assert world.state() == "absent" and world.hosts()


async def test_a_gap_is_told() -> None:
    world = World()
    world.journal = FakeJournal(limit=5)
    world.start()
    await world.settle()
    await world.store()
    for generation in range(1, 12):
        await world.assign(task(world), generation=generation)
        await world.settle(1)
    async with world.collecting():
        await world.restart()
        await world.settle(1)
    first = world.batches[0]
    assert first.after == 0 and first.events[0][1].kind == "gap"
    assert first.events[0][1].evidence["lost"] == first.events[0][0]
    await world.kill()
