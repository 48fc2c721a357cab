"""A program that waits for whoever wants to see what it writes."""

from __future__ import annotations

import asyncio

import pytest

from agent import attendance
from agent.attendance import Attendance
from agent.kit.errors import Permanent
from agent.ports import Process

PROCESS = Process(7, 1, None)


async def test_it_is_held_until_somebody_has_come() -> None:
    found = Attendance()
    with found.watching("shop", "once") as bell:
        holding = asyncio.create_task(found.hold("t1", "shop", "once", PROCESS))
        await bell.wait()
        assert found.held("t1") == PROCESS and found.held("t2") is None
        found.release("t2")
        await asyncio.sleep(0)
        assert not holding.done()
        found.release("t1")
        await holding
    assert found.held("t1") is None
    found.release("t1")
    found.ring("shop", "once")


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "PATIENCE", 0.001)
    found = Attendance()
    with pytest.raises(Permanent, match="cannot start shop/once: whoever asked for it did not come") as caught:
        await found.hold("t1", "shop", "once", PROCESS)
    assert caught.value.code == "nobody-attached"
    assert found.held("t1") is None


async def test_who_watches_hears_of_its_own_service_alone() -> None:
    found = Attendance()
    with found.watching("shop", "a") as one, found.watching("shop", "b") as other:
        found.ring("shop", "a")
        assert (one.is_set(), other.is_set()) == (True, False)
