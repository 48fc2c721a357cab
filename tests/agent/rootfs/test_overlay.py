"""The real root file systems: ids, layers, persistence, both ways of mounting, and images that mean harm."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.kit import mounts, syscalls
from agent.kit.errors import Permanent, Temporary
from agent.ports import ImageConfig, Sandbox
from agent.rootfs.overlay import OverlayRootfs
from agent.sandbox.sandboxes import PinnedSandboxes
from tests.agent.room import Entries, Room

pytestmark = pytest.mark.host


@dataclass
class Bench:
    room: Room
    rootfs: OverlayRootfs
    sandboxes: PinnedSandboxes
    by_path: bool

    async def sandbox(self, task: str = "t1", index: int = 0) -> Sandbox:
        return await self.sandboxes.ensure(task, self.room.uid_base(index))

    async def mounted(self, *layers: Entries, task: str = "t1") -> tuple[Path, Sandbox, ImageConfig]:
        sandbox, image = await self.sandbox(task), self.room.image(*layers)
        return await self.rootfs.ensure(task, image, sandbox), sandbox, image


@pytest.fixture(params=["by-descriptor", "by-path"])
async def bench(request: pytest.FixtureRequest, host_room: Room, sandboxes: PinnedSandboxes) -> AsyncIterator[Bench]:
    by_path = request.param == "by-path"
    yield Bench(host_room, OverlayRootfs(host_room.layout, by_path=by_path), sandboxes, by_path)


def points(room: Room) -> set[str]:
    return {str(point.relative_to(room.layout.run_tasks)) for point in mounts.points(room.root)}


async def test_ids_layers_and_writing(bench: Bench) -> None:
    def owned(path: Path) -> None:
        path.touch()
        os.chown(path, 999, 1000)

    rootfs, sandbox, _ = await bench.mounted(
        {"etc/motd": "one", "etc/base": "one"}, bench.room.busybox(), {"etc/motd": "two", "srv/own": owned}
    )
    base = bench.room.base
    assert (rootfs / "etc/motd").read_text() == "two"
    assert (rootfs / "etc/base").stat().st_uid == base
    assert ((rootfs / "srv/own").stat().st_uid, (rootfs / "srv/own").stat().st_gid) == (base + 999, base + 1000)
    said = bench.room.shell(
        sandbox, rootfs, "cd /; stat -c %u:%g / /etc/motd /srv/own; echo mine > /etc/motd; rm /etc/base; cat /etc/motd"
    )
    assert said.split() == ["0:0", "0:0", "999:1000", "mine"]
    assert {"t1/rootfs", "t1/ns/user", "t1/ns/net"} == points(bench.room)
    layers = list((bench.room.layout.images / "layers").iterdir())
    assert sorted(p.read_text() for layer in layers for p in layer.glob("etc/*")) == ["one", "one", "two"]


async def test_flags(bench: Bench) -> None:
    rootfs, sandbox, _ = await bench.mounted(
        bench.room.busybox(), {"null": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))}
    )
    flags = os.statvfs(rootfs).f_flag
    assert flags & os.ST_NODEV
    assert not flags & os.ST_NOSUID  # images need their set-uid programs
    assert bench.room.shell(sandbox, rootfs, "cat /null 2>/dev/null || echo refused") == "refused"


async def test_a_restart_keeps_what_was_written_and_so_does_a_reboot(bench: Bench) -> None:
    rootfs, sandbox, image = await bench.mounted(bench.room.busybox())
    bench.room.shell(sandbox, rootfs, "echo kept > /note")
    before = rootfs.stat().st_dev
    successor = OverlayRootfs(bench.room.layout, by_path=bench.by_path)
    assert await successor.ensure("t1", image, sandbox) == rootfs
    assert rootfs.stat().st_dev == before  # found, not mounted again

    for point in mounts.points(bench.room.root):
        mounts.detach(point)
    await bench.sandboxes.remove("t1")
    assert await successor.list() == {"t1"}
    again = await successor.ensure("t1", image, await bench.sandbox())
    assert (again / "note").read_text() == "kept\n"


async def test_two_tasks_share_layers_and_nothing_else(bench: Bench) -> None:
    one, sandbox, image = await bench.mounted(bench.room.busybox())
    two = await bench.rootfs.ensure("t2", image, await bench.sandbox("t2", 1))
    bench.room.shell(sandbox, one, "echo one > /note")
    assert not (two / "note").exists()
    assert (two / "bin").stat().st_uid == bench.room.uid_base(1)


async def test_an_image_without_layers(bench: Bench) -> None:
    rootfs, _, _ = await bench.mounted()
    assert sorted(path.name for path in rootfs.iterdir()) == ["dev", "etc", "proc", "sys"]
    assert {path.stat().st_uid for path in rootfs.iterdir()} == {bench.room.base}


async def test_more_layers_than_an_option_string_holds(bench: Bench) -> None:
    rootfs, _, _ = await bench.mounted(*({f"f{number}": str(number)} for number in range(120)))
    assert (rootfs / "f0").read_text() == "0"
    assert (rootfs / "f119").read_text() == "119"
    assert {"t1/rootfs", "t1/ns/user", "t1/ns/net"} == points(bench.room)


async def test_a_half_made_writable_layer_is_finished(bench: Bench) -> None:
    (bench.room.layout.tasks / "t1" / "upper").mkdir(parents=True)
    (bench.room.layout.tasks / "t1" / "work").mkdir()
    rootfs, sandbox, _ = await bench.mounted(bench.room.busybox())
    bench.room.shell(sandbox, rootfs, "echo x > /note")


async def test_what_an_agent_left_that_died_while_mounting(bench: Bench) -> None:
    scratch = bench.room.layout.run_tasks / "t1" / "layers" / "0"
    scratch.mkdir(parents=True)
    syscalls.mount("/usr/share/doc", scratch, flags=syscalls.MS_BIND)
    await bench.mounted({"a": "b"})
    await bench.rootfs.remove("t1")
    assert {"t1/ns/user", "t1/ns/net"} == points(bench.room)


async def test_a_layer_written_with_other_ids_is_not_mounted(bench: Bench) -> None:
    _, _, image = await bench.mounted({"a": "b"})
    mounts.detach(bench.room.layout.run_tasks / "t1" / "rootfs")
    with pytest.raises(Permanent) as caught:
        await bench.rootfs.ensure("t1", image, await bench.sandbox("t1", 1))
    assert caught.value.code == "uid-range-changed"


async def test_a_missing_layer(bench: Bench) -> None:
    image = ImageConfig(id="sha256:1", layers=("sha256:" + "a" * 64,))
    with pytest.raises(Permanent) as caught:
        await bench.rootfs.ensure("t1", image, await bench.sandbox())
    assert caught.value.code == "layer-missing"


@pytest.mark.parametrize("digest", ["sha256:../../../etc", "", "sha256:", "sha256:" + "A" * 64, "x" * 64])
async def test_a_digest_is_no_path(bench: Bench, digest: str) -> None:
    with pytest.raises(Permanent):
        await bench.rootfs.ensure("t1", ImageConfig(id="x", layers=(digest,)), await bench.sandbox())


@pytest.mark.parametrize("where", ["proc", "sys", "dev", "etc"])
@pytest.mark.parametrize("what", ["absolute", "relative", "dangling", "file", "fifo"])
async def test_images_with_something_else_where_the_runtime_mounts(bench: Bench, where: str, what: str) -> None:
    def put(path: Path) -> None:
        if what == "file":
            path.touch()
        elif what == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to({"absolute": "/tmp", "relative": "../../../tmp", "dangling": "none"}[what])

    with pytest.raises(Permanent, match=f"/{where}") as caught:
        await bench.mounted({where: put})
    assert caught.value.code == "bad-image"
    assert points(bench.room) == {"t1/ns/user", "t1/ns/net"}


async def test_a_container_that_replaces_proc_is_not_started_again(bench: Bench) -> None:
    rootfs, sandbox, image = await bench.mounted(bench.room.busybox())
    bench.room.shell(sandbox, rootfs, "cd /; rmdir proc; ln -s /etc proc")
    with pytest.raises(Permanent):
        await bench.rootfs.ensure("t1", image, sandbox)


async def test_remove_does_not_follow_what_the_container_made(bench: Bench) -> None:
    rootfs, sandbox, _ = await bench.mounted(bench.room.busybox())
    outside = bench.room.root / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    (outside / "file").write_text("data")
    bench.room.shell(
        sandbox,
        rootfs,
        f"cd /; ln -s {outside} out; ln -s {outside}/file file; mkdir d; ln -s ../../../../.. d/up; mkfifo pipe; "
        "mkdir -p a/b/c; chmod 0 a/b a; mkdir -- -rf; touch -- '-rf/ x'; rm -r /tmp",
    )
    await bench.rootfs.remove("t1")
    assert (outside / "file").read_text() == "data"
    assert await bench.rootfs.list() == frozenset()
    assert list(bench.room.layout.tasks.iterdir()) == []


async def test_remove_while_someone_is_inside(bench: Bench) -> None:
    rootfs, _, _ = await bench.mounted({"file": "x"})
    with (rootfs / "file").open() as held:
        await bench.rootfs.remove("t1")
        assert held.read() == "x"
    assert await bench.rootfs.list() == frozenset()


# /etc/passwd of hostile images ----------------------------------------------------------------------------------------


def link(target: str) -> Entries:
    return {"etc/passwd": lambda path: path.symlink_to(target)}


@pytest.mark.parametrize("target", ["/etc/shadow-of-the-test", "../../../../etc/shadow-of-the-test"])
async def test_passwd_that_links_out_is_resolved_inside(bench: Bench, target: str) -> None:
    rootfs, _, _ = await bench.mounted(link(target))
    with pytest.raises(Permanent):
        await bench.rootfs.user("t1", "root2")
    (rootfs / "etc/shadow-of-the-test").write_text("root2:x:7:8::/home\n")
    assert (await bench.rootfs.user("t1", "root2")).uid == 7


async def test_passwd_that_links_to_the_hosts_own(bench: Bench) -> None:
    await bench.mounted(link("/proc/1/root/etc/passwd"))
    with pytest.raises(Permanent):
        await bench.rootfs.user("t1", "daemon")


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "loop", "huge"])
async def test_passwd_that_is_no_small_file(bench: Bench, kind: str) -> None:
    def put(path: Path) -> None:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        elif kind == "loop":
            path.symlink_to("passwd")
        else:
            with path.open("wb") as file:
                file.truncate(1 << 40)

    await bench.mounted({"etc/passwd": put})
    with pytest.raises(Permanent) as caught:
        await bench.rootfs.user("t1", "daemon")
    assert caught.value.code == "bad-image"


async def test_user_without_a_mount(bench: Bench) -> None:
    with pytest.raises(Temporary):
        await bench.rootfs.user("t1", "0")


@pytest.mark.parametrize("task", ["", "..", "a/b", ".x"])
async def test_a_task_id_cannot_lead_elsewhere(bench: Bench, task: str) -> None:
    sandbox = await bench.sandbox()
    with pytest.raises(Permanent):
        await bench.rootfs.ensure(task, ImageConfig(id="x", layers=()), sandbox)
    with pytest.raises(Permanent):
        await bench.rootfs.remove(task)
    with pytest.raises(Permanent):
        await bench.rootfs.user(task, "0")
