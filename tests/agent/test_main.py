"""One agent per root, whatever happened to the one before; and the facts it reads from the host."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import main
from agent.host import RealHost
from agent.kit import pools
from agent.kit.errors import Temporary, UserError
from agent.kit.layout import Layout
from agent.kit.pools import UID_POOL, UID_RANGE, Slice
from agent.wire.messages import Listener, Port
from agent.wire.streams import call

CLONE = Path(__file__).parents[2]


def test_a_second_agent_is_told_who_is_first(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    lock = main.hold(layout)
    with pytest.raises(UserError, match=f"process {os.getpid()} already runs for"):
        main.hold(layout)
    os.close(lock)
    os.close(main.hold(layout))


def test_an_unusable_state_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a directory")
    with pytest.raises(UserError, match=r"cannot start the agent: .*state"):
        main.hold(Layout.at(tmp_path))


def test_the_instance_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.at(tmp_path)
    os.close(main.hold(layout))
    claim = pools.claim
    monkeypatch.setattr(
        pools, "claim", lambda instance, root, **more: claim(instance, root, tmp_path / "pools.json", **more)
    )
    layout.settings.parent.mkdir(parents=True)
    layout.settings.write_text('[network]\npool = "10.77.0.0/16"\n')
    assert main.identify(layout)[1].subnet == "10.77.0.0/21"
    layout.settings.unlink()
    first = main.identify(layout)
    assert first[1].subnet == "10.181.0.0/21", "nothing has an address yet"
    assert main.identify(layout) == first and len(first[0]) == 8
    layout.instance_file.write_text("../../etc\n")
    with pytest.raises(UserError, match="holds no instance id"):
        main.identify(layout)


# Facts --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> RealHost:
    layout = Layout.at(tmp_path)
    layout.run.mkdir()
    return RealHost(layout, Slice(2))


def test_a_run_ends_with_its_directory_or_its_boot(host: RealHost, tmp_path: Path) -> None:
    first = host.run_id()
    assert host.run_id() == first and first.startswith(host.boot_id())
    marker = tmp_path / "run" / "boot"
    marker.write_text("another-boot.12345678")
    second = host.run_id()
    assert second not in (first, "another-boot.12345678")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    assert host.run_id() not in (first, second)


def test_what_a_task_left_tells_whose_it_was(host: RealHost, tmp_path: Path) -> None:
    assert host.trace("t1") == (None, None)
    bundle = tmp_path / "run" / "tasks" / "t1" / "3"
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text('{"annotations": {"gorae.stack": "shop"}}')
    assert host.trace("t1") == ("shop", None), "though somebody has deleted its log"
    (bundle / "config.json").write_text("{")
    assert host.trace("t1") == (None, None)
    log = tmp_path / "state" / "logs" / "shop" / "web" / "2-t1.log"
    log.parent.mkdir(parents=True)
    log.touch()
    upper = tmp_path / "state" / "tasks" / "t1" / "upper"
    upper.mkdir(parents=True)
    assert host.trace("t1") == ("shop", None), "its ids are not of our slice"
    if os.geteuid() == 0:
        os.chown(upper, UID_POOL + (2 * 1024 + 5) * UID_RANGE + 999, 0)
        assert host.trace("t1") == ("shop", 5)


def test_capacity_and_ports(host: RealHost) -> None:
    capacity = host.capacity()
    assert capacity.cpus >= 1 and capacity.memory > 1 << 20 and capacity.features["seccomp"]
    port = host.free_port(Port(target=80), frozenset())
    assert 1024 < port < 65536


async def test_holders_are_not_looked_up_while_nothing_changes(host: RealHost) -> None:
    known = tuple(listener.model_copy(update={"holder": "remembered"}) for listener in await host.listeners())
    assert await host.listeners(known) in (known, await host.listeners())
    ours = Listener(protocol="tcp", address="203.0.113.1", port=1)
    assert ours not in await host.listeners((*known, ours))


async def test_a_walk_over_every_open_file_holds_nobody_up(host: RealHost, monkeypatch: pytest.MonkeyPatch) -> None:
    walked, gone_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def walk(_: object = None) -> tuple[Listener, ...]:
        loop.call_soon_threadsafe(walked.set)
        assert gone_on.wait(10), "the loop waited for it"
        return ()

    monkeypatch.setattr("agent.host.listeners", walk)
    looking = asyncio.ensure_future(host.listeners())
    await walked.wait()
    gone_on.set()
    assert await looking == ()


# The real one -------------------------------------------------------------------------------------------------------


class Real:
    def __init__(self, root: Path) -> None:
        self.root, self.layout = root, Layout.at(root)

    def start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "agent.main", "--root", str(self.root)]
        return subprocess.Popen(argv, cwd=CLONE, stderr=subprocess.PIPE, text=True)

    async def ready(self, process: subprocess.Popen[str]) -> dict[str, object]:
        while True:
            try:
                answer = await call(self.layout.agent_socket, "ping")
                assert isinstance(answer, dict)
                return answer
            except Temporary:
                assert process.poll() is None, process.stderr and process.stderr.read()
                await asyncio.sleep(0.05)  # nothing announces the socket


@pytest.fixture
def real() -> Iterator[Real]:
    root = Path(f"/tmp/g-{os.urandom(4).hex()}")
    root.mkdir(mode=0o755)
    place = Real(root)
    yield place
    if place.layout.instance_file.exists():
        pools.release(place.layout.instance_file.read_text().strip())
    shutil.rmtree(root)


@pytest.mark.host
async def test_an_agent_starts_ends_and_starts_again(real: Real) -> None:
    first = real.start()
    before = await real.ready(first)
    second = real.start()
    _, said = second.communicate(timeout=20)
    assert second.returncode == 1
    assert f"process {first.pid} already runs" in said and "try  " in said
    assert (await real.ready(first))["epoch"] == before["epoch"] == 1

    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=20)
    third = real.start()
    after = await real.ready(third)
    assert (after["instance"], after["epoch"]) == (before["instance"], 2)
    third.send_signal(signal.SIGTERM)
    _, said = third.communicate(timeout=20)
    assert third.returncode == 0 and "containers run on" in said
    assert not real.layout.agent_socket.exists()


@pytest.mark.host
async def test_why_it_cannot_start_is_one_sentence(real: Real) -> None:
    real.layout.agent_dir.mkdir(parents=True)
    database = sqlite3.connect(real.layout.journal)
    database.execute("PRAGMA user_version = 99")
    database.close()
    process = real.start()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-2].startswith("gorae-agent: cannot read") and said.splitlines()[-1].startswith("try  ")


@pytest.mark.host
async def test_it_is_small_and_idle(real: Real) -> None:
    process = real.start()
    await real.ready(process)
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 45_000, "KiB"
    await asyncio.sleep(1)
    begun = _ticks(process.pid)
    await asyncio.sleep(3)  # idleness is measured, not awaited
    assert _ticks(process.pid) - begun <= 6, "2 % of a processor"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
