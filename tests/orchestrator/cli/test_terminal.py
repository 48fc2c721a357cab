"""What a person sees on a terminal of 80 columns, and what Ctrl-C does: through a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.orchestrator.cli.fakes import HOLD, FakeDaemon, document, service, stack, task
from tests.support.logs import said

REPOSITORY = Path(__file__).parents[3]
CREATE = {"action": "create", "service": "web", "slot": 1, "cause": "new"}


class Terminal:
    def __init__(self, words: list[str], cwd: Path, size: tuple[int, int] = (24, 80), **environment: str) -> None:
        """`size`: rows and columns."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        given = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", **environment}
        given.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=given,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
        )
        os.close(slave)
        self.text = ""

    def until(self, pattern: str) -> str:
        """Everything written so far, once `pattern` is in it."""
        while not re.search(pattern, self.text):
            ready, _, _ = select.select([self._master], [], [], 10)
            assert ready, f"waited 10 s for {pattern!r} in {self.text!r}"
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: the process has ended
                data = b""
            assert data, f"ended without {pattern!r}: {self.text!r}"
            self.text += data.decode()
        return self.text

    def end(self) -> int:
        code = self.process.wait(10)
        os.close(self._master)
        return code


@pytest.fixture
def folder(root: Path, daemon: FakeDaemon) -> Path:
    (root / "compose.yaml").write_text("name: shop\nservices:\n  web: {image: web}\n")
    done = {"result": {"stack": "shop", "generation": 3, "revision": 2, "actions": [CREATE]}}
    daemon.answers["POST", "/v1/stacks/shop"] = [
        {"progress": {"image": "web", "step": "pulling", "done": 5_000_000, "total": 20_000_000}},
        done,
    ]
    return root


STARTING = document(stack("shop", service("web", task(state="starting", pid=None)), converged=False))
RUNNING = document(stack("shop", service("web", task(health="healthy"))))


def test_up_draws_again_and_leaves_a_summary(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [STARTING, HOLD, RUNNING]
    terminal = Terminal(["up"], folder)
    terminal.until("web  0/1  .*starting")
    daemon.held.set()
    text = terminal.until("is up")
    assert "web  pulling  5.0 MB of 20.0 MB" in text
    assert "\x1b[33m" in text  # starting is yellow
    assert text.count("\x1b[J") >= 3  # each drawing clears what was below
    assert terminal.end() == 0


def test_layers_are_drawn_while_they_come(daemon: FakeDaemon, folder: Path) -> None:
    layer = {"image": "web", "layer": "aabbccddeeff", "total": 20_000_000}
    daemon.answers["POST", "/v1/stacks/shop"] = [
        {"progress": {"image": "web", "step": "pulling", "done": 5_000_000, "total": 20_000_000}},
        {"progress": {**layer, "step": "pulling", "done": 5_000_000}},
        HOLD,
        {"progress": {**layer, "step": "done", "done": 20_000_000}},
        {"progress": {"image": "web", "step": "unpacking", "done": 20_000_000, "total": 20_000_000}},
        {"result": {"stack": "shop", "generation": 3, "revision": 2, "actions": [CREATE]}},
    ]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [RUNNING]
    terminal = Terminal(["up"], folder)
    drawn = terminal.until("aabbccddeeff")
    assert "  web  pulling  5.0 MB of 20.0 MB" in drawn
    assert "    aabbccddeeff  pulling  5.0 MB of 20.0 MB" in drawn
    daemon.held.set()
    assert "aabbccddeeff" not in terminal.until("is up").rpartition("unpacking")[2]
    assert terminal.end() == 0


def test_a_terminal_that_does_not_know_its_size_has_24_rows_of_80(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [STARTING, HOLD, RUNNING]
    terminal = Terminal(["up"], folder, size=(0, 0))
    terminal.until("web  0/1  .*starting")
    daemon.held.set()
    assert "… " not in terminal.until("is up")
    assert terminal.end() == 0


def test_sentences_are_broken_between_words(daemon: FakeDaemon, root: Path) -> None:
    names = [f"t{number:011d}-{'a' * 12}" for number in range(5)]
    daemon.answers["POST", "/v1/volumes/remove"] = [{"result": {"removed": names, "freed": 5}}]
    terminal = Terminal(["volume", "rm", "x"], root)
    lines = terminal.until("freed 5 B").replace("\r", "").splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(lines) == f"removed {', '.join(names)}, freed 5 B"
    assert terminal.end() == 0


def test_no_color_is_honoured(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["GET", "/v1/status"] = RUNNING
    terminal = Terminal(["status"], folder, NO_COLOR="1")
    assert "\x1b[" not in terminal.until("healthy")
    assert terminal.end() == 0


def test_ctrl_c_stops_waiting_and_says_so(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [STARTING, HOLD]
    terminal = Terminal(["up"], folder)
    terminal.until("starting")
    terminal.process.send_signal(signal.SIGINT)
    text = terminal.until("gorae down shop")
    assert "stopped waiting; stack shop stays as it is" in text
    assert "Traceback" not in text
    assert terminal.end() == 130


def test_ctrl_c_before_the_change_was_stored_promises_nothing(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [{"progress": {"image": "web", "step": "pulling"}}, HOLD]
    terminal = Terminal(["up"], folder)
    terminal.until("pulling")
    terminal.process.send_signal(signal.SIGINT)
    text = terminal.until("gorae up again")
    assert "stopped before the daemon said that stack shop was changed" in text
    assert terminal.end() == 130


def test_following_ends_with_ctrl_c(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["GET", "/v1/logs"] = [said("bad \x1b[2J"), HOLD]
    terminal = Terminal(["logs", "-f", "shop"], folder)
    assert "\x1b[2J" not in terminal.until("bad")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
