"""Programs that people run in a real container: streams, terminals, exit codes, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.decide.execs import Wanted, process_spec
from agent.kit.errors import Permanent
from agent.ports import Process, UserIds
from agent.runtime import pidfd
from agent.runtime.execs import Execs, Execution, Stream
from tests.agent.runtime.host import Host

pytestmark = pytest.mark.host


class Place:
    def __init__(self, host: Host, task: str, process: Process) -> None:
        self.host, self.task, self.process = host, task, process
        self.execs = Execs(host.layout, host.instance)

    def spec(self, *command: str, ids: UserIds | None = None, **more: Any) -> dict[str, Any]:
        return process_spec(self.execs.config(self.task, 1), Wanted(command, **more), ids)

    def running(self, *command: str, stdin: bool = False, ids: UserIds | None = None, **more: Any) -> Any:
        return self.execs.running(
            self.task, 1, self.process, self.spec(*command, ids=ids, **more), "shop/web", stdin=stdin
        )

    async def run(self, *command: str, feed: bytes | None = None, **more: Any) -> tuple[int, bytes, bytes]:
        async with asyncio.timeout(30), self.running(*command, stdin=feed is not None, **more) as running:
            if feed is not None:
                await running.stdin.write(feed)
                running.stdin.close()
            code, out, errors = await asyncio.gather(
                running.wait(), everything(running.stdout), everything(running.stderr)
            )
            return code, out, errors

    async def until_inside(self, lines: list[str]) -> None:
        async with asyncio.timeout(20):
            while self.inside() != lines:
                pidfd.reap_orphans()  # as the agent does
                await asyncio.sleep(0.01)  # nothing tells of a process in a container

    def kill(self) -> None:
        for pid in self.execs._cgroups.pids(f"{self.task}.1") - {self.process.pid}:
            os.kill(pid, signal.SIGKILL)

    def inside(self) -> list[str]:
        """Command lines of what runs besides the container's own program, read from /proc."""
        found = []
        for pid in self.execs._cgroups.pids(f"{self.task}.1") - {self.process.pid}:
            with suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
        return sorted(found)


def descriptors() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return sorted(found)


async def everything(stream: Stream | None) -> bytes:
    if stream is None:
        return b""
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def until(stream: Stream, mark: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(20):
        while mark not in got:
            data = await stream.read()
            assert data, got
            got += data
    return got


@pytest_asyncio.fixture
async def place(host: Host) -> AsyncIterator[Place]:
    bundle = host.bundle("sleep", "1000")
    process = await host.runtime.start(bundle)
    before = descriptors()
    made = Place(host, bundle.task, process)
    yield made
    await made.until_inside([])
    async with asyncio.timeout(10):
        while len(descriptors()) > len(before) + 1:  # noqa: ASYNC110 (pidfds are closed when their process is dead)
            await asyncio.sleep(0.01)
    assert not list(host.layout.run_tasks.glob("*/*/exec-*"))
    assert not list((host.layout.run / "at").glob("exec-*"))
    await host.runtime.remove(bundle.task, 1)


async def test_streams_and_exit_codes(place: Place) -> None:
    assert await place.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert await place.run("sh", "-c", "kill -9 $$") == (137, b"", b"")
    assert await place.run("sh", "-c", "echo again > /dev/stdout", ids=UserIds(33, 33)) == (0, b"again\n", b"")
    assert await place.run("cat", feed=b"in\n") == (0, b"in\n", b"")
    code, out, _ = await place.run("sh", "-c", "id -u; pwd; echo $A $HOME", ids=UserIds(33, 44, (), "/tmp"),
                                   working_dir="/tmp", environment={"A": "b"})  # fmt: skip
    assert (code, out) == (0, b"33\n/tmp\nb /tmp\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(("no-such-program",), "command-not-found", id="not found"),
        pytest.param(("/etc/hostname",), "not-executable", id="not executable"),
        pytest.param(("/none/at/all",), "command-not-found", id="no such path"),
    ],
)
@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
async def test_what_cannot_be_run(place: Place, command: tuple[str, ...], code: str, tty: bool) -> None:
    with pytest.raises(Permanent) as caught:
        await place.run(*command, tty=tty)
    assert caught.value.code == code
    with pytest.raises(Permanent) as caught:
        await place.execs.detach(place.task, 1, place.process, place.spec(*command), "shop/web")
    assert caught.value.code == code


async def test_a_lot_of_data_both_ways(place: Place) -> None:
    data = os.urandom(1 << 20) * 8
    async with asyncio.timeout(60), place.running("cat", stdin=True) as running:

        async def feed() -> None:
            await running.stdin.write(data)
            running.stdin.close()

        got, _, code = await asyncio.gather(everything(running.stdout), feed(), running.wait())
    assert (code, got == data) == (0, True)


async def test_a_terminal(place: Place) -> None:
    async with place.running("sh", stdin=True, tty=True, size=(33, 101)) as running:
        terminal = running.stdout
        await terminal.write(b"stty size; echo $TERM; tty; echo en''d\n")
        assert b"33 101\r\nxterm\r\n/dev/pts/" in await until(terminal, b"end")
        terminal.resize(10, 20)
        await terminal.write(b"stty size; sleep 500; echo woken\n")
        await until(terminal, b"10 20")
        await place.until_inside(["sh", "sleep 500"])
        await terminal.write(b"\x03")
        await terminal.write(b"exit 5\n")
        assert await running.wait() == 5


async def test_a_user_may_use_its_terminal(place: Place) -> None:
    script = "until [ -w $(tty) ]; do :; done; echo opened > $(tty) && stty -echo && id -u"  # given a moment later
    async with place.running("sh", "-c", script, tty=True, ids=UserIds(33, 33)) as running:
        assert b"opened\r\n33\r\n" in await everything(running.stdout)
        assert await running.wait() == 0


async def test_signals_reach_the_group(place: Place) -> None:
    async with place.running("sh", "-c", "trap 'exit 9' INT; echo up; while :; do sleep 1; done") as running:
        await until(running.stdout, b"up\n")
        running.signal(signal.SIGINT)
        assert await asyncio.wait_for(running.wait(), 10) == 9


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
async def test_one_that_is_left_ends_with_its_whole_session(place: Place, tty: bool) -> None:
    script = "trap '' HUP TERM; (sleep 600 &); sleep 601 & echo up; while :; do sleep 1; done"
    async with place.running("sh", "-c", script, stdin=True, tty=tty) as running:
        await until(running.stdout, b"up")
        assert len(place.inside()) >= 3
    await place.until_inside([])


async def test_one_that_is_left_before_it_has_begun_ends_as_well(place: Place) -> None:
    async with place.running("sleep", "1000"):
        pass  # crun has not begun it, so there is nobody to hang up on
    await place.until_inside([])


async def test_one_that_is_left_ends_though_its_end_is_cancelled_again(place: Place) -> None:
    async def waits(up: asyncio.Event) -> None:
        async with place.running("sh", "-c", "trap '' HUP; sleep 600 & echo up; sleep 601") as running:
            await until(running.stdout, b"up")
            up.set()
            await running.wait()

    up = asyncio.Event()
    waiting = asyncio.ensure_future(waits(up))
    await asyncio.wait_for(up.wait(), 20)
    for _ in range(3):  # as when the agent ends: by the loop, and by whoever waits for it
        waiting.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await place.until_inside([])


async def test_what_it_leaves_in_the_background_stays(place: Place) -> None:
    code, out, _ = await place.run("sh", "-c", "sleep 602 >/dev/null 2>&1 & echo up")
    assert (code, out) == (0, b"up\n")
    await place.until_inside(["sleep 602"])
    place.kill()
    await place.until_inside([])


async def test_a_detached_one_runs_on(place: Place) -> None:
    await place.execs.detach(place.task, 1, place.process, place.spec("sleep", "603"), "shop/web")
    await place.until_inside(["sleep 603"])
    place.kill()
    await place.until_inside([])


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "/tmp/link", "/none", "/etc/hostname", "../.."])
async def test_a_directory_that_is_none_or_leads_out(place: Place, path: str) -> None:
    await place.run("sh", "-c", "ln -s /proc/self/fd/7 /tmp/link")
    with pytest.raises(Permanent) as caught:
        await place.run("pwd", working_dir=path)
    assert caught.value.code == "bad-workdir"


async def test_one_of_an_agent_that_was_killed_is_ended_by_the_next(place: Place) -> None:
    held: list[Execution] = []
    block = place.running("sh", "-c", "trap '' HUP; (sleep 604 &); echo up; while :; do sleep 1; done")
    held.append(await block.__aenter__())
    await until(held[0].stdout, b"up")  # type: ignore[arg-type]
    (place.host.layout.run / "at" / "exec-stale").touch()
    await Execs(place.host.layout, place.host.instance).sweep()
    assert await asyncio.wait_for(held[0].wait(), 10) == 137
    await block.__aexit__(None, None, None)
