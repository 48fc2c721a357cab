"""A loop that goes on after a TaskGroup's errors ends when it is asked to, in whichever order the two come."""

from __future__ import annotations

import asyncio

import pytest

from agent.kit.tasks import apart


class Broken(Exception):
    pass


async def loop(broken: asyncio.Event) -> None:
    while True:
        try:
            await apart(session(broken))
        except* Broken:
            broken.clear()


async def session(broken: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(breaks(broken))
        group.create_task(asyncio.Event().wait())


async def breaks(broken: asyncio.Event) -> None:
    await broken.wait()
    raise Broken


@pytest.mark.parametrize("steps", range(8))
async def test_it_ends(steps: int) -> None:
    broken = asyncio.Event()
    task = asyncio.ensure_future(loop(broken))
    await asyncio.sleep(0.01)
    broken.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)
    assert done == {task} and task.cancelled()


async def test_it_goes_on_otherwise() -> None:
    broken = asyncio.Event()
    task = asyncio.ensure_future(loop(broken))
    for _ in range(3):
        broken.set()
        while broken.is_set():  # noqa: ASYNC110 (each turn of the loop is what is waited for)
            await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()


async def test_what_it_returns_and_raises_comes_through() -> None:
    async def one() -> int:
        return 1

    assert await apart(one()) == 1
    broken = asyncio.Event()
    broken.set()
    with pytest.raises(ExceptionGroup) as caught:
        await apart(session(broken))
    assert caught.group_contains(Broken)
