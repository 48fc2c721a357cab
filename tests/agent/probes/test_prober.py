"""exec probes in a real container: as whom they run, what is kept of their output, what is left of them (nothing)."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kit.layout import Layout
from agent.ports import ProbeResult, Process, UserIds
from agent.probes import prober
from agent.probes.prober import HostProber
from agent.runtime.cgroups import Cgroups
from agent.runtime.spawn import Child, spawn
from agent.sandbox.link import Helper
from agent.wire.messages import Healthcheck, Hook
from tests.agent.runtime.host import Host

# What a process may know of itself.
SELF = (
    "grep -E '^(Umask|Uid|Gid|Groups|Cap|NoNew|Seccomp|Specul|Sig[BIC]|Cpus_allowed)' /proc/$$/status",
    "cat /proc/$$/limits /proc/$$/oom_score_adj /proc/$$/cgroup",
    "ls -l /proc/self/ns | busybox sed 's/.*->//'",
    "for fd in 0 1 2 3 4 5 6 7 8 9 10 11 12; do test -e /proc/$$/fd/$fd && echo $fd; done; tty",
    "export; pwd",
)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (("CMD", "a", "b"), ["a", "b"]),
        (("CMD-SHELL", "a | b"), ["/bin/sh", "-c", "a | b"]),
        (("CMD",), []),
        (("NONE",), []),
        ((), []),
        (("CMD-SHELL", "a", "b"), []),
    ],
)
def test_arguments(test: tuple[str, ...], expected: list[str]) -> None:
    assert prober.arguments(test) == expected


@pytest.mark.parametrize(
    "check", [Healthcheck(kind="http"), Healthcheck(kind="tcp"), Healthcheck(test=("CMD",))], ids=str
)
async def test_an_incomplete_check_fails_and_says_so(check: Healthcheck, tmp_path: Path) -> None:
    result = await HostProber(Layout.at(tmp_path), "0badcafe", Helper()).probe(
        "t1", 1, Process(1, 1, None), check, "127.0.0.1", 1
    )
    assert not result.ok
    assert "needs a port or a command" in result.output


@pytest.mark.host
class TestExec:
    async def ask(self, host: Host, *test: str, timeout: float = 5.0, ids: UserIds | None = None) -> ProbeResult:
        bundle = host.bundle("sh", "-c", "cd /tmp; while :; do sleep 1; done", ids=ids, environment={"WHO": "me"})
        process = await host.runtime.start(bundle)
        self.bundle = host.layout.run_tasks / bundle.task / "1"
        before = {path.name for path in self.bundle.iterdir()}
        check = Healthcheck(test=test)
        result = await HostProber(host.layout, host.instance, host.helper).probe(
            bundle.task, 1, process, check, "", timeout
        )
        made = {path.name for path in self.bundle.iterdir()} - before
        assert len(made) <= 1 and all(name.startswith("entry-") for name in made), "what it is, once for all"
        return result

    async def test_runs_as_the_container(self, host: Host) -> None:
        script = "id; echo $WHO $HOSTNAME; pwd; grep -E 'CapEff|NoNew|Seccomp:' /proc/self/status; exit 4"
        result = await self.ask(host, "CMD-SHELL", script, ids=UserIds(1000, 1001))
        assert (result.ok, result.code) == (False, 4)
        assert result.output.splitlines() == [
            "uid=1000 gid=1001",
            "me web-1",
            "/",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ]

    @pytest.mark.parametrize("ids", [UserIds(0, 0), UserIds(1000, 1001, (7, 8))], ids=["root", "user"])
    async def test_is_what_crun_would_make_of_it(self, host: Host, ids: UserIds) -> None:
        bundle = host.bundle("sleep", "1000", ids=ids, environment={"WHO": "me"}, working_dir="/tmp")
        process = await host.runtime.start(bundle)
        asked = HostProber(host.layout, host.instance, host.helper)
        spec = host.root / "process.json"
        crun = ["crun", f"--root={host.layout.crun_root}", "--cgroup-manager=cgroupfs", "exec", "--process", str(spec)]
        for script in SELF:
            words = ("CMD-SHELL", f"{script}; exit 1")
            spec.write_text(json.dumps(prober.process_spec(bundle.config, prober.arguments(words))))
            theirs = subprocess.run(  # noqa: ASYNC221 (nothing else goes on here)
                [*crun, "--cgroup=checks", f"{bundle.task}.1"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            ours = await asked.probe(bundle.task, 1, process, Healthcheck(test=words), "", 5)
            assert (ours.code, ours.output) == (1, theirs.stdout.decode()) and ours.output

    async def test_only_the_tail_is_kept(self, host: Host) -> None:
        result = await self.ask(host, "CMD-SHELL", "seq 200000; echo end >&2; exit 1")
        assert not result.ok
        assert len(result.output) == 4096
        assert result.output.endswith("200000\nend\n")

    async def test_binary_output(self, host: Host) -> None:
        result = await self.ask(host, "CMD-SHELL", r"printf 'a\377b'; exit 1")
        assert result.output == "a\ufffdb"

    async def test_nobody_reads_what_a_check_says_that_ends_soon_and_well(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        readers = list[list[str]]()

        def start(argv: list[str], **how: int) -> Child:
            readers.append(argv)
            return spawn(argv, **how)  # type: ignore[arg-type]  # descriptors

        monkeypatch.setattr(prober, "spawn", start)
        monkeypatch.setattr(prober, "_SOON", 5.0)  # also on a busy machine
        assert await self.ask(host, "CMD", "echo", "fine") == ProbeResult(True, "", 0)
        assert readers == []
        assert (await self.ask(host, "CMD-SHELL", "echo ill; exit 1")).output == "ill\n"
        assert len(readers) == 1

    async def test_what_it_is_given_is_made_once_for_each_check_of_an_attempt(self, host: Host) -> None:
        bundle = host.bundle("sleep", "4740")
        process, at = await host.runtime.start(bundle), HostProber(host.layout, host.instance, host.helper)
        place = host.layout.run_tasks / bundle.task / "1"
        seen = list[set[tuple[str, int]]]()
        for words in (("true",), ("true",), ("echo", "no")):
            assert (await at.probe(bundle.task, 1, process, Healthcheck(test=("CMD", *words)), "", 5)).ok
            seen.append({(path.name, path.stat().st_ino) for path in place.glob("entry-*")})
        assert seen[0] == seen[1] < seen[2] and len(seen[2]) == 2

    async def test_no_such_command(self, host: Host) -> None:
        result = await self.ask(host, "CMD", "nosuch")
        assert not result.ok
        assert "nosuch" in result.output

    async def test_reopened_stdout(self, host: Host) -> None:
        result = await self.ask(host, "CMD-SHELL", "echo x > /dev/stdout; exit 1", ids=UserIds(1000, 1000))
        assert (result.code, result.output) == (1, "x\n")

    async def test_at_the_timeout_everything_of_it_is_killed(self, host: Host) -> None:
        began = time.monotonic()
        script = "echo begun; sleep 4711 & (sleep 4712 &) ; setsid sleep 4713 & setsid sh -c 'sleep 4715 &'; sleep 4714"
        result = await self.ask(host, "CMD-SHELL", script, timeout=0.4)
        assert (result.ok, result.code, result.timed_out) == (False, None, True)
        assert result.output == "begun\n\nended after 0.4 s"
        assert time.monotonic() - began < 2
        assert _running(b"sleep\x00471") == []

    async def test_nothing_that_it_started_outlives_it(self, host: Host) -> None:
        result = await self.ask(host, "CMD-SHELL", "setsid sh -c 'sleep 4721 &'; sleep 4722 & exit 0")
        assert result.ok
        await until(lambda: _running(b"sleep\x00472") == [])

    async def test_what_a_killed_agent_left_of_one_goes_with_the_next(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = host.bundle("sleep", "4730")
        process = await host.runtime.start(bundle)

        async def ask(prober: HostProber, line: str) -> ProbeResult:
            return await prober.probe(bundle.task, 1, process, Healthcheck(test=("CMD-SHELL", line)), "", 60)

        killed = HostProber(host.layout, host.instance, host.helper)
        monkeypatch.setattr(killed, "_clear", lambda _: asyncio.sleep(0))  # the dead tidy nothing up
        hanging = asyncio.ensure_future(ask(killed, "sleep 4731"))
        await until(lambda: len(_running(b"sleep\x004731")) > 0)
        left = _running(b"sleep\x004731")
        other = HostProber(host.layout, host.instance, host.helper)
        assert (await ask(other, "true")).ok
        assert _running(b"sleep\x00473") == [process.pid] and left != []
        assert not (await hanging).ok

    async def test_it_counts_for_the_containers_limits(self, host: Host) -> None:
        result = await self.ask(host, "CMD-SHELL", "cat /proc/self/cgroup; exit 1")
        task = self.bundle.parent.name
        places = {line.split(":", 2)[2] for line in result.output.splitlines()}
        assert places in ({f"/gorae-{host.instance}/{task}.1/checks"}, {"/checks"}), "v1, or v2 with a namespace"

    async def test_a_background_process_does_not_hold_the_result(self, host: Host) -> None:
        began = time.monotonic()
        result = await self.ask(host, "CMD-SHELL", "sleep 30 & exit 0", timeout=20)
        assert result.ok
        assert time.monotonic() - began < 2

    async def test_a_container_that_is_gone(self, host: Host) -> None:
        bundle = host.bundle("true")
        process = await host.runtime.start(bundle)
        await host.runtime.wait(bundle.task, 1, process)
        check = Healthcheck(test=("CMD", "true"))
        result = await HostProber(host.layout, host.instance, host.helper).probe(bundle.task, 1, process, check, "", 5)
        assert not result.ok

    async def test_no_descriptor_leads_out(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """The container may make its working directory a link to /proc/self/fd/N while a check starts: nothing of ours
        or crun's must be there."""
        plain = prober.process_spec
        outside = Path("/").stat().st_ino
        for number in range(3, 12):
            monkeypatch.setattr(
                prober, "process_spec", lambda c, a, n=number: {**plain(c, a), "cwd": f"/proc/self/fd/{n}"}
            )
            result = await self.ask(host, "CMD-SHELL", "ls -di . ../../../../..")
            assert str(outside) not in result.output.split()

    async def test_nobody_inside_looks_into_one_that_begins(self, host: Host) -> None:
        """It has the container's user before it has the container's program."""
        look = "while :; do ls -l /proc/[0-9]*/exe /proc/[0-9]*/fd 2>/dev/null | grep -e python -e gorae; done"
        bundle = host.bundle("sh", "-c", f"echo begun; {look}")
        process = await host.runtime.start(bundle)
        await host.says(bundle, "begun")
        asked = HostProber(host.layout, host.instance, host.helper)
        for _ in range(100):
            assert (await asked.probe(bundle.task, 1, process, Healthcheck(test=("CMD", "true")), "", 5)).ok
        assert host.log(bundle).split()[-1] == "begun"

    async def test_nor_does_one_who_may_do_everything_there(self, host: Host) -> None:
        """CAP_SYS_PTRACE is a capability over every process of the user namespace, and /proc tells of mounts and
        network without any."""
        process = await host.runtime.start(host.bundle("sleep", "1000", task="t1"))
        asked = HostProber(host.layout, host.instance, host.helper)
        with intruder(process, "look") as said:
            for _ in range(30):
                assert (await asked.probe("t1", 1, process, Healthcheck(test=("CMD", "true")), "", 5)).ok
        assert set(said) == set()

    async def test_one_that_is_held_even_dead_keeps_nobody_else_waiting(self, host: Host) -> None:
        """Whoever traces a process is told of its end before its parent is, and may never ask."""
        inside = await host.runtime.start(host.bundle("sleep", "1000", task="t1"))
        process = await host.runtime.start(host.bundle("sleep", "1000", task="t2"))
        asked = HostProber(host.layout, host.instance, host.helper)
        with intruder(inside, "hold") as said:
            held = asyncio.ensure_future(
                asked.probe("t1", 1, inside, Healthcheck(test=("CMD", "sleep", "0.5")), "", 20)
            )
            await until(lambda: said != [])
            await asyncio.sleep(0.7)
            assert (await asked.probe("t2", 1, process, Healthcheck(test=("CMD", "true")), "", 5)).ok
            more = await asked.probe("t1", 1, inside, Healthcheck(test=("CMD", "true")), "", 5)
            assert "somebody inside traces one that has ended" in more.output
            assert not held.done()
        assert (await held).ok, "it is told of once the one that held it is gone"

    async def test_a_helper_that_dies_fails_the_check_and_the_next_has_another(self, host: Host) -> None:
        bundle = host.bundle("sleep", "1000")
        process = await host.runtime.start(bundle)
        asked = HostProber(host.layout, host.instance, host.helper)

        def ask(*words: str) -> asyncio.Future[ProbeResult]:
            return asyncio.ensure_future(
                asked.probe(bundle.task, 1, process, Healthcheck(test=("CMD", *words)), "", 20)
            )

        hanging = ask("sleep", "4751")
        await until(lambda: len(_running(b"sleep\x004751")) > 0)
        host.helper.ready().process.kill()
        assert "the sandbox helper: it has ended" in (await hanging).output
        await until(lambda: _running(b"sleep\x004751") == [])
        assert (await ask("true")).ok

    async def test_a_helper_without_room_for_more_says_so_and_goes_on(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = await host.runtime.start(host.bundle("sleep", "1000", task="t1"))
        asked = HostProber(host.layout, host.instance, host.helper)
        monkeypatch.setattr(asked, "_clear", lambda _: asyncio.sleep(0))  # they are many in one container

        async def ask() -> ProbeResult:
            return await asked.probe("t1", 1, process, Healthcheck(test=("CMD", "sleep", "0.2")), "", 20)

        assert (await ask()).ok
        pid = host.helper.ready().process.pid
        held = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (held + 20, held + 20))
        results = await asyncio.gather(*(ask() for _ in range(60)))
        failed = [result for result in results if not result.ok]
        assert 0 < len(failed) < 60 and all("Too many open files" in result.output for result in failed)
        assert (await ask()).ok and host.helper.ready().process.pid == pid

    async def test_one_that_is_just_beginning_as_the_helper_dies_does_not_run(self, host: Host) -> None:
        """It is nobody's then, and would run as long as the container does."""
        process = await host.runtime.start(host.bundle("sleep", "1000", task="t1"))
        hook = Hook(command=("sleep", "4771"))
        await host.runtime.update("t1", 1, frozen=True)  # it stands still as soon as it is in the container's cgroup
        asked = HostProber(host.layout, host.instance, host.helper)
        begun = asyncio.ensure_future(asked.run("t1", 1, process, hook, None, 20))
        groups = Cgroups(host.instance)
        await until(lambda: len(groups.pids("t1.1/hooks")) > 0)
        host.helper.ready().process.kill()
        assert "the sandbox helper: it has ended" in (await begun).output
        await host.runtime.update("t1", 1, frozen=False)
        await until(lambda: len(groups.pids("t1.1/hooks")) == 0)

    async def test_a_cancelled_check_is_gone(self, host: Host) -> None:
        bundle = host.bundle("sleep", "1000")
        process = await host.runtime.start(bundle)
        asked = HostProber(host.layout, host.instance, host.helper)
        check = Healthcheck(test=("CMD-SHELL", "setsid sleep 4761 & exec sleep 4762"))
        hanging = asyncio.ensure_future(asked.probe(bundle.task, 1, process, check, "", 20))
        await until(lambda: len(_running(b"sleep\x00476")) == 2)
        hanging.cancel()
        await until(lambda: _running(b"sleep\x00476") == [])


@contextmanager
def intruder(process: Process, what: str) -> Iterator[list[str]]:
    """What it says, when it is over and while it lasts."""
    said = list[str]()
    command = [sys.executable, "-m", "tests.agent.probes.intruder", str(process.pid), what]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], text=True)
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    reader = threading.Thread(target=lambda: said.extend(child.stdout or ()))
    reader.start()
    try:
        yield said
    finally:
        child.terminate()
        child.wait()
        reader.join()
        child.stdout.close()


def _running(words: bytes) -> list[int]:
    return sorted(int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if words in _read(p))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  (what other processes do has no event here)
            await asyncio.sleep(0.01)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
