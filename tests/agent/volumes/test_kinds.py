"""What may stand behind a volume, and which part of it a task gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.kit import mounts, syscalls
from agent.kit.errors import Temporary, UserError
from agent.wire.messages import Mount
from tests.agent.volumes.test_volumes import Bench, bench, bind

pytestmark = pytest.mark.host
__all__ = ["bench"]  # a fixture


def volume(**more: Any) -> Mount:
    return Mount.model_validate({"kind": "volume", "source": "data", "target": "/data", **more})


def on(device: Path, o: str = "bind") -> dict[str, str]:
    return {"type": "none", "o": o, "device": str(device)}


async def test_a_volume_on_a_folder_of_the_host(bench: Bench) -> None:
    device = bench.room.root / "device"
    device.mkdir()
    place = await bench.task({"data/image": "x"})
    [bound] = await bench.ensure([volume(options=on(device))], place)
    bench.sh(place, f"echo hello > {bound.source}/file")
    assert (device / "file").read_text() == "hello\n" and not (device / "image").exists()
    await bench.volumes.release("t1")
    await bench.volumes.remove(["data"])
    assert (device / "file").exists() and await bench.volumes.list() == []


async def test_a_volume_can_be_read_only_of_itself(bench: Bench) -> None:
    [bound] = await bench.ensure([volume(options=on(bench.room.root, "bind,ro"))], await bench.task())
    assert "ro" in bound.options and bound.mount.read_only


async def test_a_device_that_is_not_there_is_named(bench: Bench) -> None:
    nowhere = bench.room.root / "nowhere"
    with pytest.raises(UserError, match=f"volume data: its device {nowhere}") as caught:
        await bench.ensure([volume(options=on(nowhere))], await bench.task())
    assert caught.value.code == "missing-bind-source" and not nowhere.exists()


async def test_memory_is_shared_and_given_back_after_its_last_user(bench: Bench) -> None:
    memory = volume(options={"type": "tmpfs", "o": "size=64k,mode=0777"})
    one, two = await bench.task(task="t1"), await bench.task(task="t2", index=1)
    [first], [second] = await bench.ensure([memory], one), await bench.ensure([memory], two)
    bench.sh(one, f"echo hello > {first.source}/file")
    assert bench.sh(two, f"cat {second.source}/file") == "hello"
    assert bench.room.inside(one[0], "dd", "if=/dev/zero", f"of={first.source}/big", "bs=1k", "count=100").returncode
    await bench.volumes.release("t1")
    assert bench.sh(two, f"cat {second.source}/file") == "hello"
    await bench.volumes.release("t2")
    assert mounts.points(bench.room.layout.volumes) == [] and list(bench.data().iterdir()) == []
    await bench.ensure([memory], one)
    await bench.volumes.release("t1")
    await bench.volumes.remove(["data"])
    assert list(bench.room.layout.volumes.iterdir()) == []


async def test_a_part_of_a_volume(bench: Bench) -> None:
    place = await bench.task({"data/image": "x"})
    part = volume(subpath="a/b")
    with pytest.raises(Temporary, match="cannot mount a/b of volume data at /data: No such file"):
        await bench.ensure([part], place)
    assert list(bench.data().iterdir()) == [], "a part is not filled from the image, nor is the whole for its sake"
    (bench.data() / "a/b").mkdir(parents=True)
    [bound] = await bench.ensure([part], place)
    bench.sh(place, f"echo x > {bound.source}/file")
    assert (bench.data() / "a/b/file").exists()


@pytest.mark.parametrize("target", ["/etc", "../../../../../../../etc"])
async def test_no_symlink_leads_a_part_out_of_its_volume(bench: Bench, target: str) -> None:
    place = await bench.task()
    await bench.ensure([volume()], place)
    (bench.data() / "out").symlink_to(target)
    with pytest.raises(Temporary, match="No such file"):
        await bench.ensure([volume(subpath="out")], place)
    (bench.data() / "etc").mkdir()
    [bound] = await bench.ensure([volume(subpath="out")], place)
    bench.sh(place, f"touch {bound.source}/mine")
    assert (bench.data() / "etc/mine").exists()


@pytest.mark.parametrize("path", ["..", "a/../..", "/etc"])
async def test_a_part_that_is_none_is_refused(bench: Bench, path: str) -> None:
    with pytest.raises(UserError, match="leads out of the volume"):
        await bench.ensure([volume(subpath=path)], await bench.task())


async def test_an_external_volume_must_be_there_and_says_itself_what_it_is(bench: Bench) -> None:
    place = await bench.task()
    with pytest.raises(UserError, match="cannot use volume data: it is external, and does not exist"):
        await bench.ensure([volume(external=True)], place)
    await bench.ensure([volume(options=on(bench.room.root))], place)
    [bound] = await bench.ensure([volume(external=True)], place)
    assert bench.sh(place, f"ls -d {bound.source}/state")


async def test_a_volume_made_with_other_options_is_refused(bench: Bench) -> None:
    place = await bench.task()
    await bench.ensure([volume()], place)
    with pytest.raises(UserError, match="it was made with other driver_opts") as caught:
        await bench.ensure([volume(options=on(bench.room.root))], place)
    assert caught.value.code == "volume-differs"


# Mounts that are passed on ------------------------------------------------------------------------------------------


@pytest.fixture
def disk(bench: Bench) -> Iterator[Path]:
    """A shared mount with a folder to mount on."""
    path = bench.room.root / "disk"
    path.mkdir()
    syscalls.mount("tmpfs", path, "tmpfs")
    syscalls.mount(None, path, None, 1 << 20)  # MS_SHARED
    (path / "usb").mkdir()
    yield path
    for point in reversed([path, *mounts.points(path)]):
        mounts.detach(point)


@pytest.mark.parametrize(
    ("propagation", "seen"),
    [("private", False), ("slave", True), ("shared", True)],
)
async def test_what_the_host_mounts_later(bench: Bench, disk: Path, propagation: str, seen: bool) -> None:
    [bound] = await bench.ensure([bind(disk, propagation=propagation)], await bench.task())
    syscalls.mount("tmpfs", disk / "usb", "tmpfs")
    (disk / "usb/file").touch()
    assert (Path(bound.source) / "usb/file").exists() is seen
    assert ("rslave" in bound.options) is seen
    mounts.detach(disk / "usb")
    assert not (Path(bound.source) / "usb/file").exists()


async def test_a_private_mount_passes_nothing_on_and_says_so(bench: Bench, disk: Path) -> None:
    syscalls.mount(None, disk, None, syscalls.MS_PRIVATE)
    with pytest.raises(
        UserError, match=f"cannot mount {disk} at /x with propagation slave: it lies on a private"
    ) as caught:
        await bench.ensure([bind(disk, propagation="slave")], await bench.task())
    assert caught.value.code == "mount-not-shared"


async def test_our_own_mounts_are_not_passed_on(bench: Bench, disk: Path) -> None:
    syscalls.mount(bench.room.root, bench.room.root, None, syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount(None, bench.room.root, None, 1 << 20)
    try:
        place = await bench.task()
        [bound] = await bench.ensure([bind(bench.room.root, propagation="slave")], place)
        await bench.ensure([volume()], await bench.task(task="t2", index=1))
        inside = bench.room.layout.run.relative_to(bench.room.root)
        assert mounts.points(Path(bound.source) / inside) == []
        for task in ("t1", "t2"):
            await bench.volumes.release(task)
            await bench.rootfs.remove(task)
            await bench.sandboxes.remove(task)
    finally:
        for point in reversed(mounts.points(bench.room.root)):
            mounts.detach(point)
        mounts.detach(bench.room.root)
