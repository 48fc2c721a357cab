"""The mount table: what the loop relies on, of the fake and of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.fakes.mounts import FakeMounts
from agent.kit import mounts as kit
from agent.kit import syscalls
from agent.mounts import HostMounts
from agent.ports import Mounts
from tests.agent.room import Room


@dataclass
class Subject:
    mounts: Mounts
    disk: str
    mount: Callable[[], None]
    unmount: Callable[[], None]

    @property
    def there(self) -> bool:
        return self.disk in self.mounts.table().points


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.host)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        fake = FakeMounts()
        yield Subject(fake, "/mnt/disk", lambda: fake.mount("/mnt/disk"), lambda: fake.unmount("/mnt/disk"))
        return
    room: Room = request.getfixturevalue("host_room")
    disk = room.root / "a disk"
    disk.mkdir()
    real = HostMounts()
    yield Subject(real, str(disk), lambda: syscalls.mount("tmpfs", disk, "tmpfs"), lambda: kit.detach(disk))
    kit.detach(disk)
    real.close()


async def test_a_change_is_told_once(subject: Subject) -> None:
    for change, there in ((subject.mount, True), (subject.unmount, False)) * 2:
        change()
        async with asyncio.timeout(5):
            await subject.mounts.changed()
        assert subject.there is there
    for _ in range(100):  # others mount too, on the real one
        try:
            async with asyncio.timeout(0.1):
                await subject.mounts.changed()
        except TimeoutError:
            return
    pytest.fail("told again and again")


async def test_who_waits_is_woken(subject: Subject) -> None:
    waiting = asyncio.ensure_future(subject.mounts.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    subject.mount()
    async with asyncio.timeout(5):
        await waiting


async def test_a_path_lies_on_the_deepest_mount(subject: Subject) -> None:
    subject.mount()
    below = f"{subject.disk}/data/file"
    assert subject.mounts.real(below) == below
    assert subject.mounts.table().holding(below) == subject.disk
    subject.unmount()
    assert subject.mounts.table().holding(below) != subject.disk


@pytest.mark.host
async def test_symlinks_are_followed(host_room: Room) -> None:
    (host_room.root / "link").symlink_to("target")
    real = HostMounts()
    assert real.real(str(host_room.root / "link/data")) == str(host_room.root / "target/data")
    real.close()
    assert Path("/proc/self/mountinfo").exists()
