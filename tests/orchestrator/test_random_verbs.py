"""Several users at once, brokers that crash and orchestrators that restart: whatever was asked in whatever order, agent
and store agree in the end, and the record of it is whole."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import GoraeError
from agent.wire.memory import MemoryBroker
from tests.support.fake_agent import FakeAgent
from tests.support.orchestrating import ALICE, Orchestrating, orchestrating, stack


async def user(o: Orchestrating, broker: MemoryBroker, chance: random.Random, seen: dict[str, int]) -> None:
    for _ in range(12):
        name = chance.choice(("a", "b"))
        services: dict[str, Any] = {
            "web": {"image": "web:1", "replicas": chance.randint(0, 4)},
            "db": {"image": chance.choice(("db:1", "db:2"))},
        }
        verb = chance.choice(("up", "up", "down", "stop", "start", "restart", "recreate", "scale", "broker dies"))
        try:
            if verb == "broker dies":
                broker.stop()
                broker.start()
                continue
            if verb == "up":
                generation = (await o.up(stack(name, **services))).generation
            elif verb == "down":
                generation = await o.controller.down(name, chance.random() < 0.3, ALICE)
            elif verb == "scale":
                generation = (await o.controller.scale(name, {"web": chance.randint(0, 5)}, ALICE)).generation
            else:
                some = chance.choice(((), ("web",)))
                generation = (await o.controller.act(name, verb, some, ALICE)).generation  # type: ignore[arg-type]
        except GoraeError as error:
            assert error.code in ("stack-unknown", "stack-removing", "changed"), error
        else:
            assert generation >= seen.get(name, 0)
            seen[name] = generation
        await asyncio.sleep(chance.random() / 100)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_agent_and_store_agree_in_the_end(tmp_path: Path, seed: int) -> None:
    broker, chance, seen = MemoryBroker(), random.Random(seed), dict[str, int]()
    async with FakeAgent(broker).life(tmp_path / "agent.sock") as agent:
        for _ in range(3):
            async with orchestrating(broker, tmp_path / "agent.sock", tmp_path / "o.db") as o:
                await o.until(lambda: o.ledger.bound)
                await asyncio.gather(*(user(o, broker, chance, seen) for _ in range(4)))
                await o.until(lambda: not any(record.removed for record in o.ledger.stacks.values()))
                for name in o.ledger.stacks:
                    await o.converged(name)
                assert {name: (a.generation, a.tasks) for name, a in agent.assignments.items()} == {
                    name: (record.generation, record.tasks) for name, record in o.ledger.stacks.items()
                }
                kept = await o.ledger.store.load()
                assert (kept.stacks, kept.counters) == (o.ledger.stacks, o.ledger.counters)
                events = await o.events(limit=100_000)
                ids = [event.id for event in events]
                assert ids == sorted(set(ids))
                assert {event.cause for event in events if event.cause} <= set(ids)
