"""Work that several wait for: done once, and a stranger's failure is nobody's answer."""

from __future__ import annotations

import asyncio

import pytest

from agent.images.flights import Flights


class Broken(Exception):
    pass


async def hostile(go: asyncio.Event) -> str:
    await go.wait()
    raise Broken


async def honest() -> str:
    return "whole"


async def test_those_who_want_the_same_share_one_execution() -> None:
    flights: Flights[int] = Flights()
    calls: list[int] = []

    async def work() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return 7

    assert await asyncio.gather(*(flights.join("a", work) for _ in range(3))) == [7, 7, 7]
    assert calls == [1]


async def test_who_has_another_source_does_not_fail_with_the_one_who_was_first() -> None:
    flights: Flights[str] = Flights()
    go = asyncio.Event()
    first = asyncio.ensure_future(flights.join_or_do("blob", lambda: hostile(go)))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(flights.join_or_do("blob", honest)) for _ in range(2)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*others) == ["whole", "whole"]
    with pytest.raises(Broken):
        await first


async def test_who_comes_the_moment_another_has_failed_begins_anew() -> None:
    """Before the event loop has told anybody: the failed flight is still known then."""
    flights: Flights[str] = Flights()
    go = asyncio.Event()
    first = asyncio.ensure_future(flights.join_or_do("blob", lambda: hostile(go)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.ensure_future(flights.join_or_do("blob", honest)) == "whole"
    with pytest.raises(Broken):
        await first


async def test_ones_own_failure_is_not_tried_again() -> None:
    flights: Flights[str] = Flights()
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        raise Broken

    with pytest.raises(Broken):
        await flights.join_or_do("blob", work)
    assert calls == [1]
