"""The full-screen view: what it shows, which keys it knows, and how it leaves a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import overseeing
from orchestrator.cli.fullscreen import named
from orchestrator.cli.main import main
from orchestrator.cli.overseeing import View, frame, tree
from orchestrator.cli.render import cells
from tests.orchestrator.cli.fakes import HOLD, FakeDaemon, document, service, stack, task
from tests.support.host import CLI


def use(id: str, cpu: float, memory: int, received: float | None = 0.0) -> dict[str, Any]:
    return {"task": id, "cpu_percent": cpu, "memory": memory, "received_rate": received, "sent_rate": 0.0}


STATUS = document(
    stack("shop", service("web", task(1, health="healthy"), task(2, restarts=3), task(10)), service("db", task(4))),
    stack("blog", service("app", task(5, state="backoff", pid=None), state="backoff"), state="backoff"),
)
STATS = {
    **{"at": 1000.0, "cpus": 2, "memory": 8 << 30},
    "tasks": [
        use("t00000000001", 10.0, 100 << 20),
        use("t00000000002", 20.0, 50 << 20, 5000.0),
        use("t00000000010", 1.0, 1 << 20, None),
        use("t00000000004", 50.0, 10 << 20),
    ],
}


def names(sort: str) -> list[str]:
    return [row.name for row in tree(STATUS, STATS, sort)]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["blog", "app", "app.5", "shop", "db", "db.4", "web", "web.1", "web.2", "web.10"]),
        ("cpu", ["shop", "db", "db.4", "web", "web.2", "web.1", "web.10", "blog", "app", "app.5"]),
        ("memory", ["shop", "web", "web.1", "web.2", "web.10", "db", "db.4", "blog", "app", "app.5"]),
        ("net", ["shop", "web", "web.2", "web.1", "web.10", "db", "db.4", "blog", "app", "app.5"]),
        ("restarts", ["shop", "web", "web.2", "web.1", "web.10", "db", "db.4", "blog", "app", "app.5"]),
    ],
)
def test_order_holds_within_each_level(sort: str, order: list[str]) -> None:
    assert names(sort) == order


def test_sums_are_of_what_is_known() -> None:
    rows = {row.name: row for row in tree(STATUS, STATS, "name")}
    assert (rows["web"].cpu, rows["web"].memory, rows["web"].received) == (31.0, 151 << 20, 5000.0)
    assert (rows["shop"].cpu, rows["shop"].restarts, rows["shop"].ready) == (81.0, 3, "4/4")
    assert (rows["blog"].cpu, rows["app.5"].memory) == (None, None)


def plain(_: Any, text: str) -> str:
    return text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 50), (80, 5), (80, 1)])
def test_a_frame_fits_its_screen(width: int, height: int) -> None:
    lines = frame(STATUS, STATS, View(), width, height, plain)
    assert len(lines) == height and max(map(cells, lines)) <= width


def test_a_frame_says_what_is_wrong() -> None:
    lines = frame(STATUS, STATS, View(), 80, 24, plain, "the daemon is away; trying again")
    assert lines[0] == "gorae  2 stacks, 4 containers  cpu 81% of 200%  memory 161M of 8.0G"
    assert lines[-1] == "the daemon is away; trying again"
    (row,) = [line for line in lines if line.strip().startswith("app.5")]
    assert "backoff" in row
    assert "healthy" in next(line for line in lines if line.strip().startswith("web.1 "))


def test_a_name_steers_no_terminal() -> None:
    evil = document(stack("shop", service("we\x1b[2Jb", task(1))))
    assert not any("\x1b" in line for line in frame(evil, STATS, View(), 80, 24, plain))


def test_scrolling_stops_at_both_ends() -> None:
    view, rows, height = View(), 10, 8  # five rows on the screen
    assert view.pressed("up", rows, height).top == 0
    assert view.pressed("pagedown", rows, height).top == 5
    assert view.pressed("end", rows, height).top == 5
    assert view.pressed("down", rows, height).pressed("down", rows, height).top == 2
    assert view.pressed("pagedown", 3, height).top == 0
    lines = frame(STATUS, STATS, View(top=99), 80, height, plain)
    assert "web.10" in lines[-2] and "6-10 of 10" in lines[-1]


def test_s_goes_through_all_columns() -> None:
    view, seen = View(), []
    for _ in overseeing.SORTS:
        seen.append(view.sort)
        view = view.pressed("s", 10, 24)
    assert tuple(seen) == overseeing.SORTS and view.sort == seen[0]


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"S", ["s"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[A\x1bOBq", ["up", "down", "q"]),
        (b"\x1b[5~\x1b[6~ ", ["pageup", "pagedown", "pagedown"]),
        (b"\x1b[1;5Cq", ["q"]),  # a key without a name here is left out, whole
        (b"\xc3\xa9\x00q", ["q"]),
        (b"\x1bxq", ["q"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert named(data) == keys


def test_without_a_terminal_it_says_what_else_there_is(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top"]) == 1
    assert "this is no terminal" in capsys.readouterr().err


class Shown:
    """`gorae top` on a terminal of its own; what the terminal shows is kept line by line."""

    def __init__(self, root: Path) -> None:
        self.screen, terminal = pty.openpty()
        self.terminal = terminal
        self.resize(24, 80)
        self.before = termios.tcgetattr(terminal)
        env = {**os.environ, "GORAE_ROOT": str(root), "TERM": "xterm", "NO_COLOR": "1"}
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen([*CLI, "top"], env=env, stdin=terminal, stdout=terminal, start_new_session=True)
        self.text = ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, wanted: str) -> None:
        end = time.monotonic() + 20
        while not re.search(wanted, self.text, re.DOTALL):
            ready, _, _ = select.select([self.screen], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {wanted!r}; the terminal got {self.text[-2000:]!r}"
            self.text += os.read(self.screen, 65536).decode()

    def press(self, keys: bytes) -> None:
        self.text = ""
        os.write(self.screen, keys)

    def ended(self) -> int:
        self.until(re.escape("\x1b[?25h\x1b[?1049l"))
        code = self.process.wait(20)
        assert termios.tcgetattr(self.terminal) == self.before
        return code


@pytest.fixture
def shown(daemon: FakeDaemon) -> Iterator[Shown]:
    daemon.answers["GET", "/v1/status"] = STATUS
    daemon.answers["GET", "/v1/stats"] = deque([[STATS], *([[STATS, HOLD]] * 50)])
    made = Shown(daemon.root)
    try:
        yield made
    finally:
        daemon.held.set()
        made.process.kill()
        made.process.wait()
        for fd in (made.screen, made.terminal):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.mark.parametrize(("keys", "code"), [(b"q", 0), (b"\x1b", 0), (b"\x03", 0)], ids=["q", "escape", "ctrl-c"])
def test_it_leaves_the_terminal_as_it_was(shown: Shown, keys: bytes, code: int) -> None:
    if keys == b"\x03":
        shown.until("web.10")
        shown.process.send_signal(signal.SIGINT)
        shown.text = ""
    else:
        shown.until(re.escape("\x1b[?1049h") + ".*web.10")
        shown.press(keys)
    assert shown.ended() == code


def test_it_leaves_the_terminal_as_it_was_when_it_is_ended(shown: Shown) -> None:
    shown.until("web.10")
    shown.text = ""
    shown.process.terminate()
    assert shown.ended() == 143


def test_it_draws_anew_when_the_size_changes_and_when_it_is_sorted(shown: Shown) -> None:
    shown.until("s sorts: name")
    shown.text = ""
    shown.resize(8, 60)
    shown.process.send_signal(signal.SIGWINCH)  # it has no controlling terminal here
    shown.until("1-5 of 10")
    last = shown.text[shown.text.rindex("\x1b[H") + 3 :]
    lines = [re.sub(r"\x1b\[[KJ]|\r", "", line) for line in last.split("\r\n")]
    assert max(map(cells, lines)) <= 60, lines
    shown.press(b"s\x1b[B")
    shown.until("s sorts: cpu  2-6 of 10")
