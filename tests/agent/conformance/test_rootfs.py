"""Root file systems: what the loop relies on, of the fake and of the real one (both ways of mounting)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from agent.fakes.rootfs import GROUP, PASSWD, FakeRootfs
from agent.fakes.sandboxes import FakeSandboxes
from agent.kit.errors import Permanent, Temporary
from agent.kit.pools import UID_POOL
from agent.ports import ImageConfig, Rootfs, Sandboxes, UserIds
from agent.rootfs.overlay import OverlayRootfs
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
from tests.agent.room import Room


@dataclass
class Subject:
    rootfs: Rootfs
    sandboxes: Sandboxes
    image: ImageConfig


@pytest.fixture(
    params=[
        "fake",
        pytest.param("by-descriptor", marks=pytest.mark.host),
        pytest.param("by-path", marks=pytest.mark.host),
    ]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        yield Subject(FakeRootfs(), FakeSandboxes(), ImageConfig(id="sha256:1", layers=("sha256:2",)))
        return
    room: Room = request.getfixturevalue("host_room")
    sandboxes = PinnedSandboxes(room.layout, Helper())
    image = room.image({"etc/passwd": PASSWD, "etc/group": GROUP})
    yield Subject(OverlayRootfs(room.layout, by_path=request.param == "by-path"), sandboxes, image)
    sandboxes.helper.close()


async def ensure(subject: Subject, task: str = "t1") -> object:
    index = int(task[1:])
    return await subject.rootfs.ensure(
        task, subject.image, await subject.sandboxes.ensure(task, UID_POOL + index * 65536)
    )


async def test_nothing_at_first(subject: Subject) -> None:
    assert await subject.rootfs.list() == frozenset()


async def test_ensure_twice_is_the_same(subject: Subject) -> None:
    assert await ensure(subject) == await ensure(subject)
    assert await subject.rootfs.list() == {"t1"}


async def test_remove_takes_one_and_is_idempotent(subject: Subject) -> None:
    await ensure(subject, "t1")
    await ensure(subject, "t2")
    for _ in range(2):
        await subject.rootfs.remove("t1")
        assert await subject.rootfs.list() == {"t2"}


async def test_a_writable_layer_has_a_size(subject: Subject) -> None:
    assert await subject.rootfs.size("t1") == 0
    await ensure(subject, "t1")
    assert 0 < await subject.rootfs.size("t1") < 1 << 20
    await subject.rootfs.remove("t1")
    assert await subject.rootfs.size("t1") == 0


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        pytest.param("", UserIds(0, 0, (), "/root"), id="image-default"),
        pytest.param("redis", UserIds(999, 1000, (5,), "/data"), id="name"),
        pytest.param("999", UserIds(999, 1000, (5,), "/data"), id="number-known"),
        pytest.param("1234", UserIds(1234, 0, (), "/"), id="number-unknown"),
        pytest.param("redis:tty", UserIds(999, 5, (), "/data"), id="name-and-group"),
        pytest.param("1234:4321", UserIds(1234, 4321, (), "/"), id="numbers"),
    ],
)
async def test_user(subject: Subject, user: str, ids: UserIds) -> None:
    await ensure(subject)
    assert await subject.rootfs.user("t1", user) == ids


@pytest.mark.parametrize("user", ["nobody-here", "redis:no-group", "70000", "0:70000"])
async def test_unknown_user(subject: Subject, user: str) -> None:
    await ensure(subject)
    with pytest.raises(Permanent) as caught:
        await subject.rootfs.user("t1", user)
    assert caught.value.code == "bad-user"


async def test_user_before_ensure(subject: Subject) -> None:
    with pytest.raises(Temporary):
        await subject.rootfs.user("t1", "")
