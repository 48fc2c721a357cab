"""Volumes: what the loop relies on, of the fake and of the real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.fakes.sandboxes import FakeSandboxes
from agent.fakes.volumes import FakeVolumes
from agent.kit.errors import UserError
from agent.kit.pools import UID_POOL
from agent.ports import BindSource, Sandboxes, VolumeInfo
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
from agent.volumes.volumes import HostVolumes
from agent.wire.messages import Mount
from tests.agent.room import Room


@dataclass
class Subject:
    volumes: FakeVolumes | HostVolumes
    sandboxes: Sandboxes
    existing: Path  # a path of the host
    rootfs: Path

    async def ensure(self, mounts: Sequence[Mount], task: str = "t1") -> tuple[BindSource, ...]:
        sandbox = await self.sandboxes.ensure(task, UID_POOL + int(task[1:]) * 65536)
        return await self.volumes.ensure("shop", mounts, sandbox, self.rootfs)

    async def names(self) -> list[str]:
        return [volume.name for volume in await self.volumes.list()]


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.host)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        yield Subject(FakeVolumes(["/srv/site"]), FakeSandboxes(), Path("/srv/site"), Path("/fake/rootfs"))
        return
    room: Room = request.getfixturevalue("host_room")
    sandboxes = PinnedSandboxes(room.layout, Helper())
    existing, rootfs = room.root / "site", room.root / "rootfs"
    existing.mkdir()
    rootfs.mkdir()
    yield Subject(HostVolumes(room.layout), sandboxes, existing, rootfs)
    sandboxes.helper.close()


DATA = Mount(kind="volume", source="shop_data", target="/data")


async def test_nothing_at_first(subject: Subject) -> None:
    assert await subject.names() == []
    assert await subject.volumes.mounted() == frozenset()


async def test_no_mounts_leave_nothing(subject: Subject) -> None:
    assert await subject.ensure([]) == ()
    assert await subject.volumes.mounted() == frozenset()


async def test_ensure_twice_is_the_same(subject: Subject) -> None:
    mounts = [DATA, Mount(kind="bind", source=str(subject.existing), target="/site", read_only=True)]
    first = await subject.ensure(mounts)
    assert first == await subject.ensure(mounts)
    assert [bound.mount for bound in first] == mounts
    assert [bound.options[1] for bound in first] == ["rw", "ro"]
    assert await subject.names() == ["shop_data"]
    assert await subject.volumes.mounted() == {"t1"}


async def test_what_a_volume_is_told_at_first_stays(subject: Subject) -> None:
    await subject.ensure([DATA.model_copy(update={"labels": {"a": "1"}, "owner": "web.1"})])
    await subject.ensure([DATA.model_copy(update={"labels": {"a": "2"}})], "t2")
    [volume] = await subject.volumes.list()
    assert (volume.stack, volume.owner, volume.labels) == ("shop", "web.1", {"a": "1"})


async def test_tmpfs_needs_nothing_of_the_host(subject: Subject) -> None:
    [bound] = await subject.ensure([Mount(kind="tmpfs", target="/tmp", size=1048576, mode=0o700)])
    assert (bound.source, bound.options) == ("tmpfs", ("nosuid", "nodev", "noexec", "rw", "size=1048576", "mode=700"))
    assert await subject.volumes.mounted() == frozenset()


async def test_release_keeps_the_data(subject: Subject) -> None:
    await subject.ensure([DATA], "t1")
    await subject.ensure([DATA], "t2")
    for _ in range(2):
        await subject.volumes.release("t1")
        assert await subject.volumes.mounted() == {"t2"}
    assert await subject.names() == ["shop_data"]


async def test_remove_deletes_and_is_idempotent(subject: Subject) -> None:
    await subject.ensure([DATA, DATA.model_copy(update={"source": "other"})])
    await subject.volumes.release("t1")
    for _ in range(2):
        await subject.volumes.remove(["shop_data"])
        assert await subject.names() == ["other"]


async def test_missing_bind_source_is_named(subject: Subject) -> None:
    missing = str(subject.existing / "none")
    with pytest.raises(UserError, match=missing) as caught:
        await subject.ensure([Mount(kind="bind", source=missing, target="/x", create_host_path=False)])
    assert caught.value.code == "missing-bind-source"


async def test_missing_bind_source_is_made_when_allowed(subject: Subject) -> None:
    missing = str(subject.existing / "new")
    [bound] = await subject.ensure([Mount(kind="bind", source=missing, target="/x")])
    assert bound.options == ("rbind", "rw", "nosuid", "nodev", "rprivate")


@pytest.mark.parametrize("name", ["", "../etc", ".hidden", "a/b", "-rf", "a\0b", "ü", "x" * 300])
async def test_bad_volume_name(subject: Subject, name: str) -> None:
    with pytest.raises(UserError) as caught:
        await subject.ensure([Mount(kind="volume", source=name, target="/data")])
    assert caught.value.code == "bad-volume-name"
    with pytest.raises(UserError):
        await subject.volumes.remove([name])


@pytest.mark.parametrize("target", ["/", "//", "/..", "/.", "data", ""])
async def test_bad_target(subject: Subject, target: str) -> None:
    with pytest.raises(UserError) as caught:
        await subject.ensure([Mount(kind="volume", source="data", target=target)])
    assert caught.value.code == "bad-mount"


@pytest.mark.parametrize("source", [None, "", "relative", "a\0b"])
async def test_bad_bind_source(subject: Subject, source: str | None) -> None:
    with pytest.raises(UserError) as caught:
        await subject.ensure([Mount(kind="bind", source=source, target="/x")])
    assert caught.value.code == "bad-mount"


# By name -----------------------------------------------------------------------------------------------------------------

MINE = VolumeInfo("mine", 5.0, {"a": "b"})


async def test_a_volume_made_by_hand(subject: Subject) -> None:
    for _ in range(2):
        assert await subject.volumes.create(MINE) == MINE
    assert await subject.volumes.list() == [MINE]
    assert await subject.volumes.size("mine") >= 0
    with pytest.raises(UserError) as caught:
        await subject.volumes.create(VolumeInfo("mine", 6.0, {"a": "c"}))
    assert caught.value.code == "volume-exists"


@pytest.mark.parametrize(
    ("info", "code"),
    [(VolumeInfo("../x"), "bad-volume-name"), (VolumeInfo("x", options={"type": "nfs"}), "bad-volume-options")],
    ids=["name", "options"],
)
async def test_volumes_that_cannot_be_made(subject: Subject, info: VolumeInfo, code: str) -> None:
    with pytest.raises(UserError) as caught:
        await subject.volumes.create(info)
    assert caught.value.code == code and await subject.names() == []


async def test_backup_and_restore(subject: Subject, tmp_path: Path) -> None:
    file = tmp_path / "b"
    await subject.volumes.create(MINE)
    assert (await subject.volumes.backup("mine", file, (os.getuid(), os.getgid()))).entries == 1
    assert await subject.volumes.manifest(file) == MINE
    with pytest.raises(UserError, match="there is one already"):
        await subject.volumes.restore(file, None, False)
    assert (await subject.volumes.restore(file, None, True))[0] == MINE
    assert (await subject.volumes.restore(file, "yours", False))[0] == VolumeInfo("yours", 5.0, {"a": "b"})
    assert await subject.names() == ["mine", "yours"]


async def test_what_is_not_there(subject: Subject, tmp_path: Path) -> None:
    for call in (subject.volumes.size("no"), subject.volumes.backup("no", tmp_path / "b", (0, 0))):
        with pytest.raises(UserError) as caught:
            await call
        assert caught.value.code == "volume-unknown"
    (tmp_path / "text").write_text("no backup")
    with pytest.raises(UserError) as caught:
        await subject.volumes.manifest(tmp_path / "text")
    assert caught.value.code == "bad-backup"
