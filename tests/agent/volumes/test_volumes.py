"""The real volumes: whose files they are, filling, binds of every kind, and what must not be reachable."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.kit import mounts, syscalls
from agent.kit.errors import Permanent, Temporary, UserError
from agent.ports import BindSource, ImageConfig, Sandbox, VolumeInfo
from agent.rootfs.overlay import OverlayRootfs
from agent.sandbox.sandboxes import PinnedSandboxes
from agent.volumes.volumes import HostVolumes
from agent.wire.messages import Mount
from tests.agent.room import Entries, Room

pytestmark = pytest.mark.host


@dataclass
class Bench:
    room: Room
    volumes: HostVolumes
    rootfs: OverlayRootfs
    sandboxes: PinnedSandboxes

    async def task(self, *layers: Entries, task: str = "t1", index: int = 0) -> tuple[Sandbox, Path]:
        sandbox = await self.sandboxes.ensure(task, self.room.uid_base(index))
        image = self.room.image(*layers) if layers else ImageConfig(id="x", layers=())
        return sandbox, await self.rootfs.ensure(task, image, sandbox)

    async def ensure(self, mounts: Sequence[Mount], place: tuple[Sandbox, Path]) -> tuple[BindSource, ...]:
        return await self.volumes.ensure("shop", mounts, *place)

    def data(self, name: str = "data") -> Path:
        return self.room.layout.volumes / name / "_data"

    def sh(self, place: tuple[Sandbox, Path], script: str) -> str:
        """As the task's root, on the host's paths."""
        done = self.room.inside(place[0], "sh", "-ec", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def bench(host_room: Room, sandboxes: PinnedSandboxes) -> Bench:
    return Bench(host_room, HostVolumes(host_room.layout), OverlayRootfs(host_room.layout), sandboxes)


DATA = Mount(kind="volume", source="data", target="/data")


def bind(path: Path, **more: object) -> Mount:
    return Mount.model_validate({"kind": "bind", "source": str(path), "target": "/x", **more})


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


# Whose files they are -------------------------------------------------------------------------------------------------


async def test_container_root_is_root_on_the_host_whatever_its_range(bench: Bench) -> None:
    one, two = await bench.task(task="t1"), await bench.task(task="t2", index=1)
    [first], [second] = await bench.ensure([DATA], one), await bench.ensure([DATA], two)
    bench.sh(one, f"cd {first.source}; echo x > file; mkdir d; chown 999:1000 d")
    assert owner(bench.data() / "file") == (0, 0)
    assert owner(bench.data() / "d") == (999, 1000)
    assert bench.sh(two, f"cd {second.source}; stat -c %u:%g file d; rm file").split() == ["0:0", "999:1000"]
    await bench.volumes.release("t1")
    [again] = await bench.ensure([DATA], await bench.task(task="t3", index=2))
    assert owner(Path(again.source) / "d") == (bench.room.uid_base(2) + 999, bench.room.uid_base(2) + 1000)


async def test_only_the_mapped_root_reaches_a_volume(bench: Bench) -> None:
    place = await bench.task()
    [bound] = await bench.ensure([DATA], place)
    assert bench.sh(place, f"ls {bound.source}") == ""
    assert bench.room.inside(place[0], "ls", str(bench.data())).returncode != 0
    stranger = await bench.sandboxes.ensure("t2", bench.room.uid_base(1))
    assert bench.room.inside(stranger, "ls", bound.source).returncode != 0


async def test_set_uid_and_devices_do_nothing_there(bench: Bench) -> None:
    place = await bench.task()
    [bound] = await bench.ensure([DATA], place)
    flags = os.statvfs(bound.source).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV


# Filling --------------------------------------------------------------------------------------------------------------


def capability(path: Path) -> None:
    path.touch(0o755)
    os.setxattr(path, "security.capability", struct.pack("<5I", 2 << 24 | 1, 1 << 10, 0, 0, 0))


def rich(path: Path) -> None:
    """Everything a directory of an image may hold."""
    path.mkdir(mode=0o2750)
    os.chown(path, 999, 1000)
    (path / "sub").mkdir(mode=0o700)
    (path / "file").write_text("content")
    (path / "file").chmod(0o640)
    os.chown(path / "file", 5, 6)
    os.setxattr(path / "file", "user.note", b"hello")
    os.utime(path / "file", (1_000_000, 2_000_000))
    os.link(path / "file", path / "sub" / "hard")
    (path / "link").symlink_to("/etc/passwd")
    os.chown(path / "link", 7, 7, follow_symlinks=False)
    os.mkfifo(path / "fifo", 0o600)
    os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (path / "suid").touch()
    os.chown(path / "suid", 8, 8)
    (path / "suid").chmod(0o4755)
    capability(path / "cap")
    path.chmod(0o2750)


async def test_a_new_volume_gets_the_images_content(bench: Bench) -> None:
    await bench.ensure([DATA], await bench.task({"data": rich}))
    data = bench.data()
    assert sorted(p.name for p in data.iterdir()) == ["cap", "fifo", "file", "link", "sub", "suid"]
    assert (owner(data), data.stat().st_mode & 0o7777) == ((999, 1000), 0o2750)
    assert (owner(data / "file"), (data / "file").stat().st_mode & 0o7777) == ((5, 6), 0o640)
    assert os.getxattr(data / "file", "user.note") == b"hello"
    assert (data / "file").stat().st_mtime == 2_000_000
    assert (data / "sub" / "hard").stat().st_ino == (data / "file").stat().st_ino
    assert (str((data / "link").readlink()), owner(data / "link")) == ("/etc/passwd", (7, 7))
    assert stat.S_ISFIFO((data / "fifo").lstat().st_mode)
    assert (owner(data / "suid"), (data / "suid").stat().st_mode & 0o7777) == ((8, 8), 0o4755)
    assert os.getxattr(data / "cap", "security.capability") == struct.pack("<5I", 2 << 24 | 1, 1 << 10, 0, 0, 0)
    assert sorted(p.name for p in data.parent.iterdir()) == ["_data", "volume.json"]


@pytest.mark.parametrize("target", ["/data/", "/a/link", "/a/../data"], ids=["slash", "symlink", "dots"])
async def test_the_target_is_resolved_inside_the_image(bench: Bench, target: str) -> None:
    place = await bench.task({"data/file": "x", "a/link": lambda path: path.symlink_to("/data")})
    await bench.ensure([DATA.model_copy(update={"target": target})], place)
    assert (bench.data() / "file").read_text() == "x"


@pytest.mark.parametrize("target", ["/etc", "../../../../../../../../etc", "/proc/1/root/etc"])
async def test_an_image_cannot_have_the_hosts_files_copied(bench: Bench, target: str) -> None:
    place = await bench.task({"data": lambda path: path.symlink_to(target), "etc/mark": "image's own"})
    await bench.ensure([DATA], place)
    assert {path.name for path in bench.data().iterdir()} <= {"mark"}


async def test_an_empty_directory_gives_its_owner(bench: Bench) -> None:
    def put(path: Path) -> None:
        path.mkdir(mode=0o700)
        os.chown(path, 999, 999)

    await bench.ensure([DATA], await bench.task({"data": put}))
    assert (owner(bench.data()), bench.data().stat().st_mode & 0o777) == ((999, 999), 0o700)


async def test_no_copy(bench: Bench) -> None:
    await bench.ensure([DATA.model_copy(update={"no_copy": True})], await bench.task({"data/file": "x"}))
    assert list(bench.data().iterdir()) == []
    assert (owner(bench.data()), bench.data().stat().st_mode & 0o777) == ((0, 0), 0o755)


async def test_what_is_there_is_kept(bench: Bench) -> None:
    place = await bench.task({"data/file": "image"})
    bench.data().mkdir(parents=True)
    (bench.data() / "mine").write_text("mine")
    await bench.ensure([DATA], place)
    assert [path.name for path in bench.data().iterdir()] == ["mine"]


async def test_a_volume_that_is_mounted_already_is_filled_in_place(bench: Bench) -> None:
    early = await bench.task(task="t1")
    [bound] = await bench.ensure([DATA], early)
    await bench.ensure([DATA], await bench.task({"data/file": "x"}, task="t2", index=1))
    assert bench.sh(early, f"cat {bound.source}/file") == "x"


async def test_filling_goes_on_where_a_dead_agent_stopped(bench: Bench) -> None:
    volume = bench.data().parent
    (volume / "filled").mkdir(parents=True)
    (volume / "filled" / "second").write_text("2")
    (volume / "filled" / "clash").write_text("image")
    bench.data().mkdir()
    (bench.data() / "first").write_text("1")
    (bench.data() / "clash").mkdir()
    (volume / "filling").mkdir()
    (volume / "filling" / "partial").touch()
    await bench.ensure([DATA], await bench.task({"data/other": "x"}))
    assert sorted(path.name for path in bench.data().iterdir()) == ["clash", "first", "second"]
    assert (bench.data() / "clash").is_dir()
    assert not (volume / "filled").exists()


async def test_an_interrupted_copy_starts_again(bench: Bench) -> None:
    aside = bench.data().parent / "filling"
    aside.mkdir(parents=True)
    (aside / "partial").touch()
    await bench.ensure([DATA], await bench.task({"data/file": "x"}))
    assert [path.name for path in bench.data().iterdir()] == ["file"]


async def test_an_absurdly_deep_directory_is_refused(bench: Bench) -> None:
    def deep(path: Path) -> None:
        (path / "/".join("d" * 300)).mkdir(parents=True)

    with pytest.raises(Permanent) as caught:
        await bench.ensure([DATA], await bench.task({"data": deep}))
    assert caught.value.code == "bad-image"
    assert list(bench.data().iterdir()) == []


async def test_a_copy_that_fails_leaves_nothing_on_the_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = await bench.task({"data/file": "x" * 10_000})
    with monkeypatch.context() as patched:
        patched.setattr(os, "sendfile", full)
        with pytest.raises(Temporary):
            await bench.ensure([DATA], place)
    assert sorted(path.name for path in bench.data().parent.iterdir()) == ["_data", "volume.json"]
    await bench.ensure([DATA], place)
    assert (bench.data() / "file").read_text() == "x" * 10_000


async def test_holes_stay_holes(bench: Bench) -> None:
    def hole(path: Path) -> None:
        (path / "data").mkdir()
        with (path / "data/hole").open("wb") as file:
            file.truncate(256 << 20)
            file.seek(128 << 20)
            file.write(b"in the middle")

    await bench.ensure([DATA], await bench.task({"": hole}))
    with (bench.data() / "hole").open("rb") as file:
        status = os.fstat(file.fileno())
        file.seek(128 << 20)
        assert file.read(13) == b"in the middle"
    assert status.st_size == 256 << 20 and status.st_blocks * 512 < 1 << 20


# Binds ----------------------------------------------------------------------------------------------------------------


async def test_a_file_and_a_socket_are_sources_too(bench: Bench) -> None:
    place, file = await bench.task(), bench.room.root / "conf"
    file.write_text("setting")
    [bound] = await bench.ensure([bind(file, read_only=True)], place)
    assert bench.sh(place, f"cat {bound.source}; stat -c :%u {bound.source}") == "setting:0"
    assert bench.room.inside(place[0], "sh", "-c", f"echo x > {bound.source}").returncode != 0
    file.unlink()
    os.mkfifo(file)
    assert (await bench.ensure([bind(file)], place))[0].source == bound.source
    assert stat.S_ISFIFO(Path(bound.source).stat().st_mode)


async def test_a_source_that_became_a_directory(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "thing"
    source.touch()
    await bench.ensure([bind(source)], place)
    source.unlink()
    (source / "sub").mkdir(parents=True)
    [bound] = await bench.ensure([bind(source)], place)
    assert bench.sh(place, f"ls {bound.source}") == "sub"


async def test_read_only_goes_all_the_way_down(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "top"
    (source / "below").mkdir(parents=True)
    syscalls.mount("tmpfs", source / "below", "tmpfs", 0, "mode=777")
    writable, fixed = await bench.ensure([bind(source), bind(source, read_only=True)], place)
    bench.sh(place, f"touch {writable.source}/below/file {writable.source}/file")
    for path in ("below/no", "no"):
        assert bench.room.inside(place[0], "touch", f"{fixed.source}/{path}").returncode != 0
    assert (source / "below" / "file").exists()
    (source / "below" / "later").touch()  # and the host itself may still write
    assert bench.sh(place, f"cat {fixed.source}/below/later") == ""


async def test_flags_of_the_hosts_mount_are_repeated(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "mounted"
    source.mkdir()
    syscalls.mount("tmpfs", source, "tmpfs", syscalls.MS_NOEXEC | syscalls.MS_RDONLY, "mode=777")
    [bound] = await bench.ensure([bind(source)], place)
    assert bound.options == ("rbind", "ro", "nosuid", "nodev", "rprivate", "noexec")


@pytest.mark.parametrize("path", ["/proc/self", "/sys/kernel"])
async def test_without_idmap_it_is_mounted_plainly_and_said(
    bench: Bench, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = await bench.task()
    [bound] = await bench.ensure([bind(Path(path), read_only=True)], place)
    assert path in caplog.text
    assert "not mapped" in caplog.text
    assert Path(bound.source).is_dir()


async def test_one_mount_below_that_cannot_be_mapped_leaves_the_rest_mapped(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "top"
    (source / "proc").mkdir(parents=True)
    syscalls.mount("/proc", source / "proc", flags=syscalls.MS_BIND)
    [bound] = await bench.ensure([bind(source)], place)
    bench.sh(place, f"touch {bound.source}/file; test -e {bound.source}/proc/version")
    assert owner(source / "file") == (0, 0)


async def test_a_missing_source_is_made_as_root(bench: Bench) -> None:
    source = bench.room.root / "a" / "b"
    await bench.ensure([bind(source)], await bench.task())
    assert (source.is_dir(), owner(source)) == (True, (0, 0))


@pytest.mark.parametrize("kind", ["below-file", "dangling", "loop"])
async def test_a_source_that_cannot_be_is_the_users_error(bench: Bench, kind: str) -> None:
    path = bench.room.root / "entry"
    if kind == "below-file":
        path.touch()
        path /= "x"
    else:
        path.symlink_to("entry" if kind == "loop" else "none")
    with pytest.raises(UserError, match=str(path)) as caught:
        await bench.ensure([bind(path)], await bench.task())
    assert caught.value.code == "bad-bind-source"


async def test_a_source_swapped_after_the_mount_changes_nothing(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "source"
    source.mkdir()
    (source / "file").write_text("right")
    [bound] = await bench.ensure([bind(source)], place)
    source.rename(source.with_name("moved"))
    source.symlink_to("/etc")
    assert bench.sh(place, f"cat {bound.source}/file") == "right"


async def test_a_volume_turned_into_a_symlink_is_not_followed(bench: Bench) -> None:
    place, outside = await bench.task(), bench.room.root / "outside"
    outside.mkdir()
    (outside / "file").touch()
    bench.data().parent.mkdir(parents=True)
    bench.data().symlink_to(outside)
    with pytest.raises(Temporary, match="data"):
        await bench.ensure([DATA], place)
    await bench.volumes.remove(["data"])
    assert (outside / "file").exists()


async def test_later_mounts_of_the_host_do_not_appear(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "top"
    (source / "below").mkdir(parents=True)
    syscalls.mount(source, source, flags=syscalls.MS_BIND)
    syscalls.mount(None, source, flags=1 << 20)  # MS_SHARED
    [bound] = await bench.ensure([bind(source)], place)
    syscalls.mount("tmpfs", source / "below", "tmpfs")
    (source / "below" / "file").touch()
    assert bench.sh(place, f"ls {bound.source}/below") == ""


# Undoing --------------------------------------------------------------------------------------------------------------


async def test_release_leaves_no_mount_and_all_data(bench: Bench) -> None:
    place, source = await bench.task(), bench.room.root / "source"
    source.mkdir()
    (source / "file").write_text("host")
    [bound, _] = await bench.ensure([DATA, bind(source)], place)
    bench.sh(place, f"echo kept > {bound.source}/file")
    await bench.volumes.release("t1")
    assert [p.name for p in mounts.points(bench.room.root)] == ["user", "net", "rootfs"]
    assert not Path(bound.source).exists()
    assert ((bench.data() / "file").read_text(), (source / "file").read_text()) == ("kept\n", "host")


async def test_release_of_a_stack_of_mounts(bench: Bench) -> None:
    await bench.ensure([DATA], await bench.task())
    point = bench.room.layout.run_tasks / "t1" / "vol" / "0"
    syscalls.mount("tmpfs", point, "tmpfs")
    await bench.volumes.release("t1")
    assert await bench.volumes.mounted() == frozenset()


async def test_remove_does_not_follow_symlinks(bench: Bench) -> None:
    place, outside = await bench.task(), bench.room.root / "outside"
    outside.mkdir()
    (outside / "file").touch()
    [bound] = await bench.ensure([DATA], place)
    bench.sh(
        place, f"cd {bound.source}; ln -s {outside} out; ln -s {outside}/file file; mkdir d; ln -s ../../../.. d/up"
    )
    await bench.volumes.release("t1")
    await bench.volumes.remove(["data"])
    assert (outside / "file").exists()
    assert list(bench.room.layout.volumes.iterdir()) == []


async def test_a_volume_of_a_time_without_manifests_is_listed(bench: Bench) -> None:
    data = bench.room.layout.volumes / "old" / "_data"
    data.mkdir(parents=True)
    [volume] = await bench.volumes.list()
    assert (volume.name, volume.labels, volume.stack) == ("old", {}, "")
    assert volume.created > 0


async def test_remove_finishes_what_a_dead_agent_began(bench: Bench) -> None:
    gone = bench.room.layout.volumes / ".gone-data-12345678" / "_data"
    gone.mkdir(parents=True)
    assert await bench.volumes.list() == []
    await bench.volumes.remove(["another"])
    assert list(bench.room.layout.volumes.iterdir()) == []


async def test_a_volume_of_the_longest_name_can_be_removed(bench: Bench) -> None:
    name = "n" * 255
    await bench.volumes.create(VolumeInfo(name))
    await bench.volumes.remove([name])
    assert list(bench.room.layout.volumes.iterdir()) == []


async def test_what_cannot_be_deleted_keeps_no_other_volume(bench: Bench) -> None:
    stuck = bench.room.layout.volumes / ".gone-a-12345678"
    stuck.mkdir(parents=True)
    syscalls.mount("tmpfs", stuck, "tmpfs", 0, None)
    try:
        await bench.volumes.create(VolumeInfo("other"))
        await bench.volumes.remove(["other"])
        await bench.volumes.remove([])
        assert list(bench.room.layout.volumes.iterdir()) == [stuck]
    finally:
        mounts.detach(stuck)


async def test_a_source_above_our_own_directory_does_not_carry_other_tasks_along(bench: Bench) -> None:
    whole = bind(bench.room.root)
    for index in range(6):  # unbounded, each task would double the number of mounts
        place = await bench.task({"file": "x"}, task=f"t{index}", index=index)
        [bound] = await bench.ensure([whole], place)
        assert bench.sh(place, f"ls {bound.source}/run/tasks/t0/rootfs") == ""
    assert len(mounts.points(bench.room.root)) == 6 * 4
    for index in range(6):
        await bench.volumes.release(f"t{index}")
        await bench.rootfs.remove(f"t{index}")
        await bench.sandboxes.remove(f"t{index}")
    assert mounts.points(bench.room.root) == []
