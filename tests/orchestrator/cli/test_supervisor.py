"""The supervisor with stand-in commands: order, restarts, privileges, and that nothing is left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kit.errors import UserError
from agent.kit.layout import Layout
from orchestrator.cli import household
from orchestrator.cli.main import main
from orchestrator.cli.supervisor import User, log

REPOSITORY = Path(__file__).parents[3]

# A supervisor of two stand-ins that write what happens to one pipe: "a PID", "b PID", "a ends", "b ends".
PROGRAM = """
import os, sys
from agent.kit.errors import UserError
from orchestrator.cli.supervisor import Daemon, Supervisor, User
out = int(sys.argv[1])
stubborn = sys.argv[2] == "stubborn"
user = User(65534, 65534) if sys.argv[2] == "nobody" else None
def shell(name, trap):
    return ["/bin/bash", "-c", f'trap "{trap}" TERM; echo {name} $$ $(id -u) >&{out}; while :; do sleep 0.05; done']
missing = ["a"] if sys.argv[2] == "missing" else []
def command(name):
    os.set_inheritable(out, True)
    if name in missing:
        missing.remove(name)
        raise UserError("cannot start it: its program is not installed")
    trap = "" if stubborn and name == "b" else f"echo {name} ends >&{out}; exit 0"
    return shell(name, trap)
import orchestrator.cli.supervisor as s
spawn = s.subprocess.Popen
s.subprocess.Popen = lambda *a, **k: spawn(*a, pass_fds=[out], **k)
daemons = [Daemon("a", lambda: command("a")), Daemon("b", lambda: command("b"), user)]
sys.exit(Supervisor(daemons, lambda text: os.write(out, f"log {text}\\n".encode())).run())
"""


class Running:
    def __init__(self, how: str) -> None:
        reading, writing = os.pipe()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(writing), how], pass_fds=[writing], env=environment
        )
        os.close(writing)
        self.reading = reading
        self._seen = b""

    def read(self) -> list[str]:
        """The words of the next line."""
        while b"\n" not in self._seen:
            ready, _, _ = select.select([self.reading], [], [], 10)
            assert ready, "nothing was said for 10 s"
            self._seen += os.read(self.reading, 4096)
        line, _, self._seen = self._seen.partition(b"\n")
        return line.decode().split()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Running]:
    running = Running(getattr(request, "param", "plain"))
    yield running
    running.process.kill()
    running.process.wait()
    os.close(running.reading)


def gone(pid: int) -> bool:
    """Waits until the process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    return bool(ready)


def test_starts_in_order_and_stops_in_reverse(run: Running) -> None:
    assert sorted(line[0] for line in (run.read(), run.read())) == ["a", "b"]
    run.process.send_signal(signal.SIGTERM)
    assert [run.read(), run.read()] == [["b", "ends"], ["a", "ends"]]
    assert run.process.wait(10) == 0


def test_what_dies_is_started_again(run: Running) -> None:
    first = dict(line[:2] for line in (run.read(), run.read()))
    os.kill(int(first["a"]), signal.SIGKILL)
    assert run.read() == ["log", "a", "was", "killed", "by", "SIGKILL;", "starting", "it", "again"]
    name, pid, _ = run.read()
    assert name == "a"
    assert pid != first["a"]


def test_a_signal_without_a_name_ends_nobody_else(run: Running) -> None:
    first = dict(line[:2] for line in (run.read(), run.read()))
    os.kill(int(first["a"]), signal.SIGRTMIN + 6)
    assert run.read()[:6] == ["log", "a", "was", "killed", "by", "signal"]
    assert run.read()[0] == "a"


@pytest.mark.parametrize("run", ["missing"], indirect=True)
def test_what_cannot_be_prepared_now_is_tried_again(run: Running) -> None:
    lines = [run.read(), run.read(), run.read()]
    assert (
        " ".join(lines[0]) == "log a does not start: cannot start it: its program is not installed; starting it again"
    )
    assert sorted(line[0] for line in lines[1:]) == ["a", "b"]


def test_children_die_with_a_killed_supervisor(run: Running) -> None:
    pids = [int(run.read()[1]), int(run.read()[1])]
    run.process.kill()
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("run", ["stubborn"], indirect=True)
def test_a_second_signal_forces(run: Running) -> None:
    pids = [int(run.read()[1]), int(run.read()[1])]
    run.process.send_signal(signal.SIGINT)
    timer = threading.Timer(0.2, run.process.send_signal, [signal.SIGINT])
    timer.start()
    assert run.read() == ["log", "b", "is", "killed:", "asked", "twice"]
    assert run.process.wait(10) == 1
    assert all(gone(pid) for pid in pids)
    timer.join()


@pytest.mark.host
@pytest.mark.parametrize("run", ["nobody"], indirect=True)
def test_a_daemon_of_another_user_still_dies_with_us(run: Running) -> None:
    lines = {line[0]: line for line in (run.read(), run.read())}
    assert lines["b"][2] == "65534"
    run.process.kill()
    assert gone(int(lines["b"][1]))


@pytest.mark.host
def test_directories_have_their_owners_and_modes(root: Path) -> None:
    layout = Layout.at(root)
    household.directories(layout, User(12345, 12346))
    seen = {
        path.relative_to(root).as_posix(): (path.stat().st_uid, path.stat().st_mode & 0o7777)
        for path in (layout.state, layout.run, layout.agent_dir, layout.orchestrator_dir, layout.api_dir)
    }
    assert seen == {
        "state": (0, 0o711),
        "run": (0, 0o711),
        "state/agent": (0, 0o700),
        "state/orchestrator": (12345, 0o700),
        "run/api": (12345, 0o755),
    }
    layout.database.write_text("")
    household.directories(layout, None)
    assert layout.orchestrator_dir.stat().st_uid == 0


@pytest.mark.host
def test_a_directory_that_is_a_link_is_not_followed(root: Path) -> None:
    layout = Layout.at(root)
    layout.state.mkdir()
    layout.orchestrator_dir.symlink_to("/etc")
    with pytest.raises(UserError, match="cannot prepare the directory"):
        household.directories(layout, User(12345, 12346))
    assert Path("/etc").stat().st_uid == 0


def test_one_supervisor_per_root(root: Path) -> None:
    layout = Layout.at(root)
    layout.state.mkdir()
    assert household.holder(layout) is None
    lock = household.hold(layout)
    assert household.holder(layout) == os.getpid()
    with pytest.raises(UserError, match=f"process {os.getpid()} already runs for {layout.state}"):
        household.hold(layout)
    os.close(lock)
    assert household.holder(layout) is None


@pytest.mark.host
def test_stopping_what_does_not_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["daemon", "--stop", "--root", str(root)]) == 0
    assert capsys.readouterr().out == "gorae does not run\n"


@pytest.mark.host
def test_code_that_nobody_may_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = root / "closed"
    secret.mkdir(mode=0o700)
    (secret / "python").write_text("")
    monkeypatch.setattr("sys.executable", str(secret / "python"))
    assert household.unreadable(User(65534, 65534)) == str(secret / "python")
    assert household.unreadable(User(0, 0)) is None


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(sys, "stderr", os.fdopen(descriptor, "w", buffering=1, closefd=False))
    for _ in range(3):
        log("gorae-agent ended")
    os.close(descriptor)
