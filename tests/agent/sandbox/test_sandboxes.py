"""The real sandboxes: ownership, maps, what is inside, adoption, repair, death of the helper and of the agent."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.kit import mounts, syscalls
from agent.kit.errors import Permanent, Temporary
from agent.sandbox import pins
from agent.sandbox.link import Helper, Link
from agent.sandbox.sandboxes import PinnedSandboxes
from tests.agent.room import Room

pytestmark = pytest.mark.host


def inode(path: Path) -> int:
    return path.stat().st_ino


async def test_the_network_namespace_is_owned_by_the_user_namespace(
    sandboxes: PinnedSandboxes, host_room: Room
) -> None:
    made = await sandboxes.ensure("t1", host_room.base)
    with made.net_ns.open() as net:
        owner = fcntl.ioctl(net, syscalls.NS_GET_USERNS)
    try:
        assert os.fstat(owner).st_ino == inode(made.user_ns)
    finally:
        os.close(owner)
    assert inode(made.net_ns) != inode(Path("/proc/self/ns/net"))


async def test_inside(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    made = await sandboxes.ensure("t1", host_room.base)

    def inside(command: str) -> str:
        done = host_room.inside(made, "sh", "-c", command, net=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert inside("cat /proc/self/uid_map").split() == ["0", str(host_room.base), "65536"]
    assert inside("cat /proc/self/gid_map").split() == ["0", str(host_room.base), "65536"]
    assert inside("cat /proc/self/setgroups") == "allow"
    assert inside("tail -n +3 /proc/net/dev | cut -d: -f1").split() == ["lo"]
    assert int(inside("grep -c 127.0.0.1 /proc/net/fib_trie")) > 0  # no such routes while lo is down
    assert inside("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0"
    assert inside("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "65535"]
    assert inside("stat -c %u:%g /proc/net/dev") == "0:0"  # the map was there before the network namespace


async def test_the_mapped_root_passes_through_and_others_do_not(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    made = await sandboxes.ensure("t1", host_room.base)
    task = host_room.layout.run_tasks / "t1"
    (task / "hosts").write_text("127.0.0.1 localhost\n")
    assert host_room.inside(made, "cat", str(task / "hosts")).returncode == 0
    assert host_room.inside(made, "ls", str(task / "ns")).returncode != 0
    other = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", str(task / "hosts")
    )
    assert await other.wait() != 0


async def test_adopted_by_the_next_agent_without_a_helper(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    made = await sandboxes.ensure("t1", host_room.base)
    before = inode(made.user_ns), inode(made.net_ns)
    sandboxes.helper.close()
    successor = PinnedSandboxes(host_room.layout, Helper())
    assert await successor.ensure("t1", host_room.base) == made
    assert (inode(made.user_ns), inode(made.net_ns)) == before
    assert successor.helper.link is None


def half_user(ns: Path) -> None:
    mounts.detach(ns / "net")


def half_net(ns: Path) -> None:
    mounts.detach(ns / "user")


def no_record(ns: Path) -> None:
    (ns / "record").unlink()


def no_mounts(ns: Path) -> None:
    half_user(ns)
    half_net(ns)


def host_net(ns: Path) -> None:
    mounts.detach(ns / "net")
    syscalls.mount("/proc/self/ns/net", ns / "net", flags=syscalls.MS_BIND)


def swapped(ns: Path) -> None:
    no_mounts(ns)
    for kind in ("user", "net"):
        (ns / kind).unlink()
        (ns / kind).symlink_to(f"/proc/self/ns/{kind}")


def directories(ns: Path) -> None:
    no_mounts(ns)
    (ns / "net").unlink()
    (ns / "net").symlink_to("/etc/passwd")


@pytest.mark.parametrize("damage", [half_user, half_net, no_record, no_mounts, host_net, swapped, directories])
async def test_a_damaged_pair_is_made_anew(sandboxes: PinnedSandboxes, host_room: Room, damage: object) -> None:
    made = await sandboxes.ensure("t1", host_room.base)
    assert callable(damage)
    damage(made.user_ns.parent)
    again = await sandboxes.ensure("t1", host_room.base)
    assert pins.held(str(again.user_ns.parent), host_room.base)
    assert host_room.inside(again, "cat", "/proc/self/uid_map").stdout.split()[1] == str(host_room.base)
    assert len(mounts.points(host_room.layout.run_tasks)) == 2


async def test_another_range_is_another_namespace(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    await sandboxes.ensure("t1", host_room.base)
    made = await sandboxes.ensure("t1", host_room.uid_base(1))
    assert host_room.inside(made, "cat", "/proc/self/uid_map").stdout.split()[1] == str(host_room.uid_base(1))


async def test_many_at_once(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sandboxes.ensure(f"t{n}", host_room.uid_base(n))) for n in range(20)]
    made = [task.result() for task in tasks]
    assert len({inode(s.user_ns) for s in made}) == len({inode(s.net_ns) for s in made}) == 20
    async with asyncio.TaskGroup() as group:
        for sandbox in made:
            group.create_task(sandboxes.remove(sandbox.task))
    assert await sandboxes.list() == frozenset()
    assert mounts.points(host_room.root) == []


async def test_a_helper_that_died_is_replaced(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    await sandboxes.ensure("t1", host_room.base)
    assert sandboxes.helper.link is not None
    sandboxes.helper.link.process.kill()
    await sandboxes.ensure("t2", host_room.uid_base(1))
    assert await sandboxes.list() == {"t1", "t2"}


async def test_a_helper_killed_under_load_costs_nothing(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    await sandboxes.ensure("t0", host_room.base)
    assert sandboxes.helper.link is not None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sandboxes.ensure(f"t{n}", host_room.uid_base(n))) for n in range(1, 9)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        sandboxes.helper.link.process.kill()
    for number in range(9):
        assert pins.held(str(host_room.layout.run_tasks / f"t{number}" / "ns"), host_room.uid_base(number))


async def test_close_ends_the_helper(host_room: Room) -> None:
    link = Link.open()
    _, answer = link.ask({"dir": str(host_room.root / "t"), "base": host_room.base, "size": 1})
    link.close()
    with pytest.raises(Temporary):
        await answer
    assert not link.alive
    assert link.process.returncode is not None


async def test_the_helper_holds_nothing_of_the_agent(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    await sandboxes.ensure("t1", host_room.base)
    assert sandboxes.helper.link is not None
    opened = dict[str, str]()
    for path in Path(f"/proc/{sandboxes.helper.link.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of a child that it has just reaped
            opened[path.name] = str(path.readlink())
    assert [opened.pop(fd) for fd in "01"] == ["/dev/null"] * 2
    assert opened.pop("2") == str(Path("/proc/self/fd/2").readlink())  # its last words go where the agent's go
    kinds = [
        name.split(":")[0] for name in opened.values() if name != "anon_inode:[pidfd]"
    ]  # a child it has yet to reap
    assert sorted(kinds) == ["/", "/proc", "cgroup", "ipc", "mnt", "net", "pid", "socket", "uts"]  # its home


AGENT = """
import asyncio, sys, uvloop
from agent.kit.layout import Layout
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
async def main():
    sandboxes = PinnedSandboxes(Layout.at(sys.argv[1]), Helper())
    await sandboxes.ensure("t1", int(sys.argv[2]))
    print(sandboxes.helper.link.process.pid, flush=True)
    await asyncio.Event().wait()
(asyncio if sys.argv[3] == "asyncio" else uvloop).run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_helper_dies_with_the_agent_and_the_sandbox_stays(host_room: Room, loop: str) -> None:
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        AGENT,
        str(host_room.root),
        str(host_room.base),
        loop,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert agent.stdout is not None
    helper = os.pidfd_open(int(await agent.stdout.readline()))
    agent.send_signal(signal.SIGKILL)
    await agent.wait()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(helper, ended.set)
    await asyncio.wait_for(ended.wait(), 5)
    asyncio.get_running_loop().remove_reader(helper)
    os.close(helper)
    assert pins.held(str(host_room.layout.run_tasks / "t1" / "ns"), host_room.base)


async def test_orphans_without_mounts_are_listed_and_removed(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    leftover = host_room.layout.run_tasks / "t9"
    (leftover / "3").mkdir(parents=True)
    (leftover / "3" / "config.json").write_text("{}")
    (leftover / "out").symlink_to("/etc")
    assert await sandboxes.list() == {"t9"}
    await sandboxes.remove("t9")
    assert await sandboxes.list() == frozenset()
    assert Path("/etc/passwd").exists()


async def test_remove_does_not_reach_into_what_is_still_mounted(sandboxes: PinnedSandboxes, host_room: Room) -> None:
    await sandboxes.ensure("t1", host_room.base)
    precious, point = host_room.root / "precious", host_room.layout.run_tasks / "t1" / "vol" / "0"
    precious.mkdir()
    (precious / "file").write_text("data")
    point.mkdir(parents=True)
    syscalls.mount(precious, point, flags=syscalls.MS_BIND)  # the same file system: st_dev tells nothing
    with pytest.raises(Temporary) as caught:
        await sandboxes.remove("t1")
    assert caught.value.code == "still-mounted"
    assert (precious / "file").read_text() == "data"
    mounts.detach(point)
    await sandboxes.remove("t1")
    assert await sandboxes.list() == frozenset()


@pytest.mark.parametrize("task", ["", "..", ".", "a/b", "../t1", "t1\0", ".t1"])
async def test_a_task_id_cannot_lead_elsewhere(sandboxes: PinnedSandboxes, task: str) -> None:
    with pytest.raises(Permanent):
        await sandboxes.ensure(task, 0x7000_0000)
    with pytest.raises(Permanent):
        await sandboxes.remove(task)


@pytest.mark.parametrize("base", [0, -1, 2**32 - 1])
async def test_a_range_that_would_be_the_hosts_own_is_refused(sandboxes: PinnedSandboxes, base: int) -> None:
    with pytest.raises(Permanent):
        await sandboxes.ensure("t1", base)
