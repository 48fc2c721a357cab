"""Sandboxes: what the loop relies on, of the fake and of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.fakes.sandboxes import FakeSandboxes
from agent.kit.errors import Temporary
from agent.kit.pools import UID_POOL
from agent.ports import Sandboxes
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.host)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Sandboxes]:
    if request.param == "fake":
        yield FakeSandboxes()
    else:
        real = PinnedSandboxes(request.getfixturevalue("host_room").layout, Helper())
        yield real
        real.helper.close()


async def test_nothing_at_first(subject: Sandboxes) -> None:
    assert await subject.list() == frozenset()


async def test_ensure_names_the_namespaces_and_the_range(subject: Sandboxes) -> None:
    made = await subject.ensure("t1", UID_POOL)
    assert (made.task, made.uid_base, made.user_ns.name, made.net_ns.name) == ("t1", UID_POOL, "user", "net")
    assert await subject.list() == {"t1"}


async def test_ensure_twice_is_the_same(subject: Sandboxes) -> None:
    assert await subject.ensure("t1", UID_POOL) == await subject.ensure("t1", UID_POOL)


async def test_another_range_replaces(subject: Sandboxes) -> None:
    await subject.ensure("t1", UID_POOL)
    assert (await subject.ensure("t1", UID_POOL + 65536)).uid_base == UID_POOL + 65536
    assert await subject.list() == {"t1"}


async def test_remove_takes_one_and_is_idempotent(subject: Sandboxes) -> None:
    await subject.ensure("t1", UID_POOL)
    await subject.ensure("t2", UID_POOL + 65536)
    for _ in range(2):
        await subject.remove("t1")
        assert await subject.list() == {"t2"}
    await subject.remove("t2")
    assert await subject.list() == frozenset()


async def test_another_task_joins_what_is_there(subject: Sandboxes) -> None:
    own = await subject.ensure("t1", UID_POOL)
    joined = await subject.join("t2", "t1", UID_POOL)
    assert joined == replace(own, task="t2") and joined.space
    assert await subject.list() == {"t1", "t2"}
    await subject.remove("t2")
    assert await subject.list() == {"t1"} and await subject.ensure("t1", UID_POOL) == own


@pytest.mark.parametrize(
    "base", [pytest.param(UID_POOL, id="not there"), pytest.param(UID_POOL + 65536, id="other ids")]
)
async def test_what_is_not_there_cannot_be_joined(subject: Sandboxes, base: int) -> None:
    if base != UID_POOL:
        await subject.ensure("t1", UID_POOL)
    with pytest.raises(Temporary, match="cannot join the network of"):
        await subject.join("t2", "t1", base)


async def test_in_the_network_of_the_host(subject: Sandboxes) -> None:
    made = await subject.ensure("t1", UID_POOL, host_network=True)
    assert made.net_ns is None and made.space
    assert await subject.ensure("t1", UID_POOL, host_network=True) == made
    with pytest.raises(Temporary):
        await subject.join("t2", "t1", UID_POOL)
