"""All logs of a host within one budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent.fakes.logs import FakeLogs
from agent.kit.clock import FakeClock
from agent.kit.errors import Temporary, UserError
from agent.logs.keeper import COUNT_EVERY, TELL_EVERY, Keeper, Limits
from agent.ports import LogFile
from agent.wire.messages import LogLimits

MB = 1 << 20


class Place:
    def __init__(self, logs: FakeLogs) -> None:
        self.clock, self.logs, self.told = FakeClock(), logs, list[dict[str, Any]]()
        self.caps: dict[str, LogLimits | None] = {}

        async def tell(message: str, evidence: dict[str, Any]) -> None:
            assert message.startswith(f"{evidence['files']} old log files were dropped, {evidence['bytes']} bytes")
            self.told.append(evidence)

        self.keeper = Keeper(logs, self.clock, Limits(budget=MB), self.caps.get, tell)

    def flood(self, task: str, times: int = 1) -> None:
        self.logs.live.add(task)
        for _ in range(times):
            self.logs.write("shop", "web", 1, task, "x" * (MB // 4), at=self.clock.wall())

    async def total(self) -> int:
        return sum(file.size for file in await self.logs.files())


async def test_a_flood_keeps_to_the_budget_and_is_told_of_now_and_then() -> None:
    place = Place(FakeLogs())
    place.logs.write("old", "job", 1, "gone", "last words", at=0.0)
    for _ in range(20):
        place.flood("t1")
        place.flood("t2")
        await place.keeper.look()
        await place.clock.advance(2.0)
        assert await place.total() <= MB
    assert not [file for file in await place.logs.files() if file.task == "gone"], "the oldest went first"
    assert len(place.told) == 1 and place.told[0]["budget"] == MB
    await place.clock.advance(TELL_EVERY)
    await place.keeper.look()
    first, second = place.told
    assert first["files"] < second["files"], "those since the first time, together"
    await place.clock.advance(TELL_EVERY)
    await place.keeper.look()
    assert len(place.told) == 2, "nothing was dropped since"


async def test_what_grows_without_a_rotation_is_counted_as_well() -> None:
    class Large(FakeLogs):
        async def rotate_if_needed(self, at: Callable[[str], int]) -> list[LogFile]:
            return []

    place = Place(Large())
    await place.keeper.look()
    for task in ("t1", "t2", "t3"):
        place.flood(task, 2)
        place.logs.live.discard(task)
    await place.keeper.look()
    assert await place.total() == 3 * MB // 2, "it is not counted at each look"
    await place.clock.advance(COUNT_EVERY)
    await place.keeper.look()
    assert await place.total() == MB


async def test_while_over_the_budget_it_is_counted_at_each_look() -> None:
    """A file that was just put aside is the newest of its task until conmon has begun another."""
    place = Place(FakeLogs())
    place.flood("t1", 8)
    await place.keeper.look()
    assert await place.total() == 2 * MB, "it is being written"
    place.logs.write("shop", "web", 1, "t1", "more", at=9e9)

    async def nothing(at: Callable[[str], int]) -> list[LogFile]:
        return []

    place.logs.rotate_if_needed = nothing  # type: ignore[method-assign]
    await place.clock.advance(2.0)
    await place.keeper.look()
    assert [file.size for file in await place.logs.files()] == [4]


async def test_a_slot_keeps_to_its_own_cap_at_each_rotation() -> None:
    place = Place(FakeLogs())
    place.caps["t1"] = LogLimits(max_size=MB // 4, max_file=2)
    await place.keeper.look()
    place.logs.write("shop", "web", 1, "earlier", "last words", at=0.0)
    place.logs.write("shop", "db", 1, "other", "of another service", at=0.0)
    for _ in range(4):
        place.flood("t1")
        await place.keeper.look()
        await place.clock.advance(0.05)
    left = await place.logs.files()
    assert [(file.task, file.generation) for file in left] == [("other", 0), ("t1", 1)]
    assert place.told == [], "that is as it was asked for"


async def test_a_full_disk_ends_nothing() -> None:
    class Failing(FakeLogs):
        calls = 0

        async def files(self) -> list[LogFile]:
            self.calls += 1
            if self.calls < 3:
                raise Temporary("cannot count the logs: no", code="disk-full")
            return await super().files()

    place = Place(failing := Failing())
    running = asyncio.ensure_future(place.keeper.run())
    while failing.calls < 3:
        await place.clock.advance(2.0)
        assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_budget_below_all_use_is_refused() -> None:
    with pytest.raises(UserError, match="cannot keep all logs within 5 bytes"):
        Limits(budget=5)
