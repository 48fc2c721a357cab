"""Real containers: how they start, end, are found again, and what is left of them (nothing)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.kit.errors import GoraeError, Permanent
from agent.ports import Bundle, Sandbox, UserIds
from agent.runtime import conmon, pidfd
from agent.wire.messages import Resources
from tests.agent.runtime.host import Host, make_rootfs
from tests.support.host import until

pytestmark = pytest.mark.host


async def run(host: Host, bundle: Bundle) -> str:
    """Start, wait, remove; what it wrote."""
    process = await host.runtime.start(bundle)
    await host.runtime.wait(bundle.task, bundle.attempt, process)
    text = host.log(bundle)
    await host.runtime.remove(bundle.task, bundle.attempt)
    return text


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 3", 3, None), ("exit 255", 255, None), ("kill -9 $$; sleep 9", 0, None)],
    ids=["zero", "three", "255", "pid 1 is immune to its own KILL"],
)
async def test_exit_code(host: Host, script: str, code: int, number: int | None) -> None:
    bundle = host.bundle("sh", "-c", script.replace("sleep 9", "exit 0"))
    process = await host.runtime.start(bundle)
    done = await host.runtime.wait(bundle.task, 1, process)
    assert (done.code, done.signal, done.oom) == (code, number, False)
    assert abs(done.at - time.time()) < 5


async def test_killed_from_outside_is_seen_at_once(host: Host) -> None:
    bundle = host.bundle("sleep", "1000")
    process = await host.runtime.start(bundle)
    waiting = asyncio.create_task(host.runtime.wait(bundle.task, 1, process))
    await asyncio.sleep(0)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    done = await waiting
    assert (done.code, done.signal) == (137, 9)
    assert time.monotonic() - began < 0.5


async def test_signal_reaches_a_handler(host: Host) -> None:
    bundle = host.bundle("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    process = await host.runtime.start(bundle)
    await host.says(bundle, "ready")
    await host.runtime.signal(bundle.task, 1, process, signal.SIGTERM)
    assert (await host.runtime.wait(bundle.task, 1, process)).code == 7


async def test_out_of_memory(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = host.bundle("sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M", resources=Resources(memory=16 << 20))
    process = await host.runtime.start(bundle)
    done = await host.runtime.wait(bundle.task, 1, process)
    assert done.oom
    assert done.code == 137
    [found] = await host.runtime.list()
    assert found.exit == done
    assert list(tmp_path.iterdir()) == []  # conmon notes an OOM in its current directory


async def test_exit_while_nobody_waited_is_found(host: Host) -> None:
    bundle = host.bundle("sh", "-c", "exit 5")
    process = await host.runtime.start(bundle)
    await host.runtime.wait(bundle.task, 1, process)
    [found] = await host.runtime.list()
    assert (found.task, found.attempt, found.process) == (bundle.task, 1, None)
    assert found.exit is not None
    assert found.exit.code == 5


async def test_running_is_found_as_it_was_started(host: Host) -> None:
    bundle = host.bundle("sleep", "1000", attempt=4)
    process = await host.runtime.start(bundle)
    [found] = await host.runtime.list()
    assert (found.task, found.attempt, found.process, found.exit) == (bundle.task, 4, process, None)
    assert process.conmon is not None


async def test_lost_conmon_ends_the_container(host: Host) -> None:
    bundle = host.bundle("sleep", "1000")
    process = await host.runtime.start(bundle)
    waiting = asyncio.create_task(host.runtime.wait(bundle.task, 1, process))
    await asyncio.sleep(0)
    assert process.conmon is not None
    os.kill(process.conmon, signal.SIGKILL)
    began = time.monotonic()
    assert (await waiting).code is None
    assert time.monotonic() - began < 1
    assert not host.is_running(process)


async def test_what_ends_at_once_has_not_lost_its_conmon(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be run a second time."""
    bundle, release = host.bundle("true"), host.runtime._exec

    async def slowly(cid: str) -> None:
        await release(cid)
        until(lambda: conmon.find(cid, host.layout.run_tasks / bundle.task / "1") is None, "conmon to end")

    monkeypatch.setattr(host.runtime, "_exec", slowly)
    process = await host.runtime.start(bundle)
    assert process.conmon is not None
    assert (await host.runtime.wait(bundle.task, 1, process)).code == 0


async def test_conmon_lost_while_the_agent_was_away(host: Host) -> None:
    bundle = host.bundle("sleep", "1000")
    process = await host.runtime.start(bundle)
    assert process.conmon is not None
    fd = os.pidfd_open(process.conmon)
    os.kill(process.conmon, signal.SIGKILL)
    await pidfd.readable(fd)
    os.close(fd)
    [found] = await host.runtime.list()
    assert found.process is not None
    assert found.process.conmon is None
    assert (await host.runtime.wait(bundle.task, 1, found.process)).code is None


@pytest.mark.parametrize(
    ("args", "code"),
    [(("nosuch",), "command-not-found"), (("/bin/nosuch", "-x"), "command-not-found"), (("/etc/notes",), "not-executable"),
     (("/etc",), "not-executable")],
    ids=["not in PATH", "no such file", "no x bit", "a directory"],
)  # fmt: skip
async def test_bad_command(host: Host, args: tuple[str, ...], code: str) -> None:
    bundle = host.bundle(*args)
    with pytest.raises(Permanent) as caught:
        await host.runtime.start(bundle)
    assert caught.value.code == code
    assert args[0] in caught.value.message
    assert caught.value.evidence["crun"]
    assert await host.runtime.list() == []


async def test_bad_working_dir(host: Host) -> None:
    bundle = host.bundle("true", working_dir="/etc/notes")
    with pytest.raises(Permanent) as caught:
        await host.runtime.start(bundle)
    assert caught.value.code == "bad-workdir"


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
async def test_image_with_a_symlink_for_a_system_directory(host: Host, name: str) -> None:
    """The hole: crun 1.8.1 follows it, and writes into the host directory it names."""
    outside = host.root / "outside"
    outside.mkdir(mode=0o777)
    rootfs = make_rootfs(host.root / "evil", host.sandbox.uid_base if host.sandbox else 0)
    (rootfs / name).rmdir()
    (rootfs / name).symlink_to(outside)
    with pytest.raises(Permanent) as caught:
        await host.runtime.start(host.bundle("true", rootfs=rootfs))
    assert caught.value.code == "bad-rootfs"
    assert list(outside.iterdir()) == []


async def test_host_sysfs_is_refused(host: Host) -> None:
    """Own user namespace with the host's network namespace: crun shows the host's /sys."""
    bundle = host.bundle("sleep", "1000")
    linux = bundle.config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
    del bundle.config["linux"]["sysctl"]
    with pytest.raises(Permanent) as caught:
        await host.runtime.start(bundle)
    assert caught.value.code == "host-sysfs"
    assert await host.runtime.list() == []


async def test_working_dir_through_a_descriptor_of_crun(host: Host) -> None:
    rootfs = make_rootfs(host.root / "sly", host.sandbox.uid_base if host.sandbox else 0)
    for number in range(3, 12):
        (rootfs / f"cwd{number}").symlink_to(f"/proc/self/fd/{number}")
        bundle = host.bundle(
            "sh", "-c", "ls -d ../../../../../../work /root/.profile", rootfs=rootfs, working_dir=f"/cwd{number}"
        )
        try:
            process = await host.runtime.start(bundle)
        except GoraeError:
            continue
        await host.runtime.wait(bundle.task, 1, process)
        assert "stdout" not in host.log(bundle)


async def test_privileges_as_seen_inside(host: Host) -> None:
    text = await run(host, host.bundle("sh", "-c", "cat /proc/self/status; cat /proc/self/uid_map; ls /proc/self/fd"))
    fields = dict(line.split(" F ", 1)[1].split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert fields["CapEff"] == fields["CapBnd"] == f"{0x800405FB:016x}"
    assert fields["CapInh"] == fields["CapAmb"] == f"{0:016x}"
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    listed = [line.split(" F ", 1)[1] for line in text.splitlines()][-4:]
    assert listed == ["0", "1", "2", "3"]  # 3 is ls's own


async def test_another_user_has_no_capabilities(host: Host) -> None:
    text = await run(host, host.bundle("sh", "-c", "id; grep CapEff /proc/self/status", ids=UserIds(1000, 1001, (5,))))
    assert "uid=1000 gid=1001" in text
    assert f"CapEff:\t{0:016x}" in text


async def test_no_descriptor_of_ours_is_inherited(host: Host) -> None:
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        text = await run(host, host.bundle("ls", "-l", "/proc/self/fd"))
    finally:
        os.close(leak)
    assert [
        line for line in text.splitlines() if "->" in line and "/dev/null" not in line and "pipe:" not in line
    ] == []


async def test_masked_and_read_only(host: Host) -> None:
    script = (
        "cat /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware /proc/acpi; "
        "echo 1 > /proc/sys/kernel/domainname; echo b > /proc/sysrq-trigger; mkdir /sys/x; true > /etc/hosts"
    )
    text = await run(host, host.bundle("sh", "-c", script))
    assert "stdout F /" not in text.replace("stdout F /sys/firmware:", "").replace("stdout F /proc/acpi:", "")
    assert text.count("Read-only file system") >= 3


async def test_read_only_root(host: Host) -> None:
    text = await run(host, host.bundle("touch", "/x", read_only=True))
    assert "Read-only file system" in text


async def test_second_start_has_the_same_filter(host: Host) -> None:
    """The second one gets the compiled filter; unshare is refused by either, and by nothing else (root in its own)."""
    for _ in range(2):
        text = await run(host, host.bundle("sh", "-c", "grep Seccomp: /proc/self/status; busybox unshare -U true"))
        assert "Seccomp:\t2" in text
        assert "Operation not permitted" in text


async def test_start_again_replaces_what_was_left(host: Host) -> None:
    bundle = host.bundle("sleep", "1000")
    first = await host.runtime.start(bundle)
    second = await host.runtime.start(bundle)
    assert not host.is_running(first)
    [found] = await host.runtime.list()
    assert found.process == second


async def test_attempts_of_one_task_share_the_log(host: Host) -> None:
    first = host.bundle("echo", "one")
    text = await run(host, first)
    text = await run(host, host.bundle("echo", "two", task=first.task, attempt=2))
    assert [line.split(" F ")[1] for line in text.splitlines()] == ["one", "two"]


async def test_remove_is_idempotent_and_kills(host: Host) -> None:
    bundle = host.bundle("sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exec sleep 1000")
    process = await host.runtime.start(bundle)
    await host.runtime.remove(bundle.task, 1)
    assert not host.is_running(process)
    assert host.leftovers() == []
    await host.runtime.remove(bundle.task, 1)


async def test_cancelled_in_the_middle_leaves_nothing_after_remove(host: Host) -> None:
    for milliseconds in (0, 1, 2, 3, 4, 6, 8, 10, 12):
        bundle = host.bundle("sleep", "1000")
        starting = asyncio.create_task(host.runtime.start(bundle))
        await asyncio.sleep(milliseconds / 1000)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await host.runtime.remove(bundle.task, 1)
        assert host.leftovers() == [], milliseconds


async def test_creator_killed_in_the_middle_is_swept(host: Host) -> None:
    """SIGKILL of the process that starts containers, at different points; another one finds and removes what is left."""
    child = (
        "import asyncio, json, sys; from pathlib import Path\n"
        "from agent.kit.layout import Layout; from agent.ports import Bundle, Sandbox\n"
        "from agent.runtime.runtime import CrunRuntime\n"
        "root, instance, task, config = sys.argv[1:]\n"
        "bundle = Bundle(task, 1, 's', 'w', Path(root, 'rootfs'), Sandbox(task, Path('/'), Path('/'), 0),\n"
        "                json.loads(config), Path(root, 'log'))\n"
        "print(flush=True)\n"
        "asyncio.run(CrunRuntime(Layout.at(root), instance).start(bundle))\n"
    )
    for milliseconds in (1, 3, 5, 8, 12, 20):
        bundle = host.bundle("sleep", "1000")
        creator = subprocess.Popen(  # noqa: ASYNC220 - it is killed within milliseconds
            [sys.executable, "-c", child, str(host.root), host.instance, bundle.task, json.dumps(bundle.config)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert creator.stdout is not None
        creator.stdout.readline()
        await asyncio.sleep(milliseconds / 1000)
        creator.kill()
        creator.communicate()
        for _ in range(
            100
        ):  # killed between fork and exec, its child becomes a conmon only now: it has to end by itself
            for found in await host.runtime.list():
                await host.runtime.remove(found.task, found.attempt)
            await host.runtime.remove(bundle.task, 1)
            if not host.leftovers():
                break
            await asyncio.sleep(0.05)
        assert host.leftovers() == [], milliseconds


async def test_created_but_never_started_is_not_taken_for_running(host: Host) -> None:
    bundle = host.bundle("sleep", "1000")
    await host.runtime.start(bundle)
    os.mkfifo(host.layout.crun_root / f"{bundle.task}.1" / "exec.fifo")  # as it is before the start
    [found] = await host.runtime.list()
    assert (found.process, found.exit) == (None, None)


async def test_update_changes_limits_in_place(host: Host) -> None:
    bundle = host.bundle("sleep", "1000", resources=Resources(memory=64 << 20, cpus=0.5, pids=50))
    process = await host.runtime.start(bundle)
    for wanted, memory, pids in (
        (Resources(memory=128 << 20, cpus=1.5, pids=70), str(128 << 20), "70"),
        (Resources(memory=32 << 20), str(32 << 20), "4096"),
        (Resources(), None, "4096"),
    ):
        await host.runtime.update(bundle.task, 1, wanted)
        assert limit(host, bundle, "memory.max", "memory/memory.limit_in_bytes") in (
            memory,
            "max",
            "9223372036854771712",
        )
        if memory is not None:
            assert limit(host, bundle, "memory.max", "memory/memory.limit_in_bytes") == memory
        assert limit(host, bundle, "pids.max", "pids/pids.max") == pids
    assert pidfd.start_ticks(process.pid) == process.start_ticks


def limit(host: Host, bundle: Bundle, v2: str, v1: str) -> str:
    name = f"gorae-{host.instance}/{bundle.task}.{bundle.attempt}"
    if host.runtime.cgroup_version() == "v2":
        return Path(f"/sys/fs/cgroup/{name}/{v2}").read_text().strip()
    controller, _, file = v1.partition("/")
    return Path(f"/sys/fs/cgroup/{controller}/{name}/{file}").read_text().strip()


async def test_fork_bomb_ends_at_the_pids_limit(host: Host) -> None:
    script = "for i in $(seq 40); do sleep 1000 & done; echo done"
    text = await run(host, host.bundle("sh", "-c", script, resources=Resources(pids=20)))
    assert "can't fork" in text


async def test_two_hundred_starts_leave_nothing(host: Host) -> None:
    gate = asyncio.Semaphore(4)

    async def once() -> None:
        async with gate:
            bundle = host.bundle("true")
            process = await host.runtime.start(bundle)
            assert (await host.runtime.wait(bundle.task, 1, process)).code == 0
            await host.runtime.remove(bundle.task, 1)

    before = len(list(Path("/proc/self/fd").iterdir()))
    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(once())
    assert host.leftovers() == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # the inotify of the exit files, crun


def test_sandbox_of_the_fixture_is_not_the_hosts(host: Host) -> None:
    assert isinstance(host.sandbox, Sandbox)
    assert host.sandbox.net_ns.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
