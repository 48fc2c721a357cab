"""What every bus promises, run against the memory broker and against a real mosquitto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest

from agent.wire import topics
from agent.wire.bus import BusDown, Message, PublishDenied, Session
from tests.wire.harness import BrokerHarness, MemoryHarness, MosquittoHarness

WILL = Message(topics.ONLINE, b"gone", retain=True)


@pytest.fixture(params=["memory", pytest.param("mosquitto", marks=pytest.mark.host)])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[BrokerHarness]:
    if request.param == "memory":
        memory = MemoryHarness()
        await memory.start()
        yield memory
    else:
        real = MosquittoHarness()
        await real.start()
        yield real
        await real.close()


async def take(session: Session, count: int) -> list[Message]:
    found: list[Message] = []
    async with asyncio.timeout(10):
        async for message in session.messages():
            found.append(message)
            if len(found) == count:
                break
    return found


async def test_a_fresh_message_reaches_the_other_role(harness: BrokerHarness) -> None:
    async with (
        harness.bus("agent").session((topics.ASSIGNMENTS,)) as agent,
        harness.bus("orchestrator").session(()) as orchestrator,
    ):
        await orchestrator.publish(topics.assignment("shop"), b"x", retain=True)
        assert await take(agent, 1) == [Message("gorae/assignment/shop", b"x", retain=False)]


async def test_a_session_begins_with_every_retained_message(harness: BrokerHarness) -> None:
    names = {topics.assignment(f"s{number}") for number in range(2500)}
    async with harness.bus("orchestrator").session(()) as orchestrator, asyncio.TaskGroup() as group:
        for name in sorted(names):
            group.create_task(orchestrator.publish(name, b"v" * 500, retain=True))
    async with harness.bus("agent").session((topics.ASSIGNMENTS,)) as agent:
        found = await take(agent, len(names))
    assert {m.topic for m in found} == names
    assert all(m.retain for m in found)


async def test_only_the_last_retained_message_is_kept(harness: BrokerHarness) -> None:
    async with harness.bus("orchestrator").session(()) as orchestrator:
        await orchestrator.publish(topics.STORE, b"1", retain=True)
        await orchestrator.publish(topics.STORE, b"2", retain=True)
        await orchestrator.publish(topics.CURSOR, b"not retained")
        async with harness.bus("agent").session((topics.STORE, topics.CURSOR)) as agent:
            await orchestrator.publish(topics.CURSOR, b"end")
            assert [(m.topic, m.payload) for m in await take(agent, 2)] == [
                (topics.STORE, b"2"),
                (topics.CURSOR, b"end"),
            ]


async def test_an_empty_retained_payload_clears_and_is_heard(harness: BrokerHarness) -> None:
    topic = topics.assignment("shop")
    async with harness.bus("orchestrator").session(()) as orchestrator:
        await orchestrator.publish(topic, b"x", retain=True)
        async with harness.bus("agent").session((topics.ASSIGNMENTS,)) as agent:
            await take(agent, 1)
            await orchestrator.publish(topic, b"", retain=True)
            assert await take(agent, 1) == [Message(topic, b"", retain=False)]
        async with harness.bus("agent").session((topics.ASSIGNMENTS, topics.STORE)) as agent:
            await orchestrator.publish(topics.STORE, b"end")
            assert [m.topic for m in await take(agent, 1)] == [topics.STORE]


async def test_messages_of_one_publisher_keep_their_order(harness: BrokerHarness) -> None:
    async with (
        harness.bus("orchestrator").session((topics.EVENTS,)) as orchestrator,
        harness.bus("agent").session(()) as agent,
    ):
        for number in range(300):
            await agent.publish(topics.EVENTS, str(number).encode())
        assert [int(m.payload) for m in await take(orchestrator, 300)] == list(range(300))


async def test_a_large_message_arrives_whole(harness: BrokerHarness) -> None:
    payload = bytes(range(256)) * 16384  # 4 MiB
    async with (
        harness.bus("agent").session((topics.ASSIGNMENTS,)) as agent,
        harness.bus("orchestrator").session(()) as orchestrator,
    ):
        await orchestrator.publish(topics.assignment("big"), payload, retain=True)
        assert (await take(agent, 1))[0].payload == payload


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        pytest.param("agent", topics.STORE, id="the agent cannot be the orchestrator"),
        pytest.param("agent", topics.assignment("shop"), id="the agent cannot assign"),
        pytest.param("orchestrator", topics.ONLINE, id="the orchestrator cannot be the agent"),
        pytest.param("orchestrator", topics.status("shop"), id="the orchestrator cannot report a status"),
        pytest.param("agent", "elsewhere", id="no other topic"),
        pytest.param("agent", "gorae/status/a/b", id="no deeper topic"),
    ],
)
async def test_a_role_cannot_write_what_is_not_its_own(harness: BrokerHarness, role: str, topic: str) -> None:
    async with harness.bus(role).session(()) as session:
        with pytest.raises(PublishDenied, match="cannot publish"):
            await session.publish(topic, b"x", retain=True)


async def test_a_role_does_not_hear_its_own_flow(harness: BrokerHarness) -> None:
    async with harness.bus("agent").session((topics.ONLINE, topics.STORE)) as agent:
        await agent.publish(topics.ONLINE, b"own")
        async with harness.bus("orchestrator").session(()) as orchestrator:
            await orchestrator.publish(topics.STORE, b"other")
        assert [m.topic for m in await take(agent, 1)] == [topics.STORE]


async def test_a_crashed_broker_ends_sessions_and_keeps_nothing(harness: BrokerHarness) -> None:
    async with harness.bus("orchestrator").session((topics.ONLINE,)) as orchestrator:
        await orchestrator.publish(topics.STORE, b"x", retain=True)
        reading = asyncio.create_task(take(orchestrator, 1))
        await asyncio.sleep(0)
        await harness.stop()
        with pytest.raises(BusDown):
            await reading
        with pytest.raises(BusDown):
            await orchestrator.publish(topics.STORE, b"y", retain=True)
    with pytest.raises(BusDown, match="cannot reach the bus"):
        async with harness.bus("agent").session((topics.STORE,)):
            raise AssertionError("a stopped broker took a session")
    await harness.start()
    async with (
        harness.bus("agent").session((topics.STORE, topics.CURSOR)) as agent,
        harness.bus("orchestrator").session(()) as orchestrator,
    ):
        await orchestrator.publish(topics.CURSOR, b"end")
        assert [m.topic for m in await take(agent, 1)] == [topics.CURSOR]


async def test_a_publish_that_waits_fails_when_the_broker_dies(harness: BrokerHarness) -> None:
    async with harness.bus("orchestrator").session(()) as orchestrator:
        await harness.stop()
        results = await asyncio.gather(
            *(orchestrator.publish(topics.assignment(f"s{n}"), b"x" * 10000) for n in range(50)), return_exceptions=True
        )
        assert [type(r) for r in results] == [BusDown] * 50


@pytest.mark.parametrize("how", ["cut", "left", "raised"])
async def test_the_will_is_heard_however_the_session_ends(harness: BrokerHarness, how: str) -> None:
    async with harness.bus("orchestrator").session((topics.ONLINE,)) as orchestrator:
        with pytest.raises(RuntimeError) if how == "raised" else nullcontext():
            async with harness.bus("agent").session((topics.STORE,), will=WILL) as agent:
                await agent.publish(topics.ONLINE, b"here", retain=True)
                assert (await take(orchestrator, 1))[0].payload == b"here"
                if how == "cut":
                    await harness.cut(agent)
                    with pytest.raises(BusDown):
                        await take(agent, 1)
                elif how == "raised":
                    raise RuntimeError("the user of the session failed")
        assert await take(orchestrator, 1) == [Message(topics.ONLINE, b"gone", retain=False)]
    async with harness.bus("orchestrator").session((topics.ONLINE,)) as late:
        assert await take(late, 1) == [Message(topics.ONLINE, b"gone", retain=True)]


async def test_a_cancelled_reader_loses_nothing(harness: BrokerHarness) -> None:
    async with (
        harness.bus("agent").session((topics.ASSIGNMENTS,)) as agent,
        harness.bus("orchestrator").session(()) as orchestrator,
    ):
        for number in range(20):
            reader = asyncio.create_task(take(agent, 1))
            await asyncio.sleep(0)
            publish = asyncio.create_task(orchestrator.publish(topics.assignment(f"s{number}"), b"x"))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait({reader})
            await publish
            if not reader.cancelled():
                continue
            assert (await take(agent, 1))[0].topic == topics.assignment(f"s{number}")


async def test_a_new_session_of_the_same_role_does_not_end_the_old_one(harness: BrokerHarness) -> None:
    bus = harness.bus("orchestrator")
    async with bus.session((topics.ONLINE,)) as first, bus.session((topics.ONLINE,)) as second:
        async with harness.bus("agent").session(()) as agent:
            await agent.publish(topics.ONLINE, b"x")
        assert (await take(first, 1)) == (await take(second, 1))
