"""Many callers, few runs, and nobody returns before what they asked for is done."""

from __future__ import annotations

import asyncio

import pytest

from agent.network.coalesce import Coalesced


class Work:
    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.done: list[list[int]] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.running = asyncio.Event()

    async def run(self) -> None:
        batch, self.wanted = self.wanted, []
        self.running.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            self.wanted = batch + self.wanted
            raise OSError("no")
        self.done.append(batch)


async def test_those_who_wait_share_one_run() -> None:
    work = Work()
    ask = Coalesced(work.run)

    async def caller(number: int) -> None:
        work.wanted.append(number)
        await ask()
        assert any(number in batch for batch in work.done)

    async with asyncio.TaskGroup() as group:
        group.create_task(caller(0))
        await work.running.wait()
        for number in range(1, 100):
            group.create_task(caller(number))
        await asyncio.sleep(0)
        work.gate.set()
    assert work.done == [[0], list(range(1, 100))]


async def test_a_failure_is_the_runners_and_the_next_tries_for_itself() -> None:
    work = Work()
    work.failures = 1
    work.gate.set()
    ask = Coalesced(work.run)
    work.wanted = [1, 2]
    results = await asyncio.gather(ask(), ask(), return_exceptions=True)
    assert isinstance(results[0], OSError)
    assert results[1] is None
    assert work.done == [[1, 2]]


async def test_a_cancelled_run_frees_the_way() -> None:
    work = Work()
    ask = Coalesced(work.run)
    first = asyncio.create_task(ask())
    await work.running.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.gate.set()
    await ask()
    assert len(work.done) == 1
