"""The short way of exec beside the whole one, and JSON without the package json."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.wire.kinds import END, RESULT, SIGNAL, STDIN, STDOUT
from orchestrator.cli import conversing, light, swift
from orchestrator.cli.parsing import verb_parser
from tests.support.host import CLI, CLONE

WORDS = (
    "-T",
    "--no-tty",
    "-i",
    "-t",
    "-d",
    "-u",
    "--user",
    "-w",
    "-e",
    "--",
    "--index",
    "1",
    "shop/app",
    "shop",
    "a/b/c",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def whole_way(words: list[str]) -> tuple[object, ...]:
    said: list[tuple[object, ...]] = []

    def note(path: str, target: str, ask: dict[str, object], *, tty: bool, stdin: bool, keys: object) -> int:
        said.append((target, ask, tty, stdin))
        return 0

    arguments = verb_parser("exec").parse_args(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversing, "run", note)
        arguments.run(arguments)
    return said[0]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=8))
@example(["-T", "shop/app", "true"])
@example(["-i", "-u", "1000:1000", "--workdir", "/tmp", "my-shop/app_2", "sh", "-c", "exit 3", "--", "-T"])
@example(["-e", "A=1", "--env", "B=", "-e", "A=2=3", "shop/app", "true"])
@example(["shop/app", "true", "--root", "/x"])
def test_what_is_understood_is_what_the_whole_way_says(words: list[str]) -> None:
    if (meant := swift.understood(words)) is not None:
        assert (*meant, False, True) == whole_way(words)


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        pytest.param("shop/app true", True, id="plain"),
        pytest.param("-T -u root shop/app sh -c true", True, id="options"),
        pytest.param("app true", False, id="a service of the folder"),
        pytest.param("shop/app", False, id="no command"),
        pytest.param("shop/app --index 2 true", False, id="an option behind the service"),
        pytest.param("-t shop/app true", False, id="a terminal"),
        pytest.param("-p shop app true", False, id="a project"),
        pytest.param("shop/App true", False, id="no name"),
        pytest.param("--help", False, id="help"),
        pytest.param("-u", False, id="no value"),
    ],
)
def test_what_goes_the_short_way(words: str, understood: bool) -> None:
    assert (swift.understood(words.split()) is not None) is understood


def test_it_loads_next_to_nothing() -> None:
    code = "import sys, orchestrator.cli.main, orchestrator.cli.swift; print(*sys.modules)"
    root = Path(__file__).parents[3]
    command = [sys.executable, "-S", "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)})
    heavy = {"argparse", "re", "enum", "json", "socket", "signal", "contextlib", "typing", "collections"}
    assert not heavy & set(done.stdout.split())


@given(VALUES)
def test_json_is_that_of_the_package(value: object) -> None:
    text = json.dumps(value)
    assert light.dumps(value) == text
    assert light.loads(f" {text}\n".encode()) == value
    assert light.loads(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")) == value


@pytest.mark.parametrize("text", [b"", b" ", b"{", b"1 2", b"nope", b'{"a":}', b"\xff", b'"\x01"'], ids=repr)
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        light.loads(text)
    with pytest.raises(ValueError, match=r"."):
        json.loads(text)


class Daemon:
    """The other side of one conversation, and what `gorae` says in it."""

    def __init__(self, root: Path, stdin: int) -> None:
        path = root / "run" / "api" / "gorae.sock"
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(20)
            env = {"GORAE_ROOT": str(root), "PYTHONPATH": str(CLONE)}
            words = [*CLI, "exec", "-T", "shop/app", "true"]
            self.client = subprocess.Popen(words, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self._talk, _ = listener.accept()
        self._talk.settimeout(20)
        self._file = self._talk.makefile("rb")
        while self._file.readline().strip():
            pass
        self._talk.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.asked = json.loads(self.hear())

    def hear(self) -> bytes:
        length = self._file.read(2)[1] & 0x7F
        length = int.from_bytes(self._file.read(2), "big") if length == 126 else length
        mask, data = self._file.read(4), self._file.read(length)
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def say(self, kind: int, payload: bytes) -> None:
        self._talk.sendall(bytes((0x82, len(payload) + 1, kind)) + payload)

    def end(self) -> tuple[int, bytes, bytes]:
        out, err = self.client.communicate(timeout=20)
        self._file.close()
        self._talk.close()
        return self.client.returncode, out, err


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    held = Daemon(tmp_path, subprocess.PIPE)
    yield held
    held.client.kill()
    held.end()


def test_a_conversation(daemon: Daemon) -> None:
    assert (daemon.asked["command"], daemon.asked["stdin"]) == (["true"], True)
    assert daemon.client.stdin is not None
    daemon.client.stdin.write(b"abc")
    daemon.client.stdin.flush()
    assert daemon.hear() == bytes((STDIN,)) + b"abc"
    daemon.client.stdin.close()
    daemon.client.stdin = None
    assert daemon.hear() == bytes((END,))
    daemon.say(STDOUT, b"said")
    daemon.say(RESULT, b'{"exit_code": 7}')
    assert daemon.end() == (7, b"said", b"")


def test_dev_null_is_no_input(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, subprocess.DEVNULL)
    assert daemon.asked["stdin"] is False
    assert daemon.hear() == bytes((END,))
    daemon.say(RESULT, b'{"exit_code": 0}')
    assert daemon.end() == (0, b"", b"")


def test_ctrl_c_is_passed_on_and_ends_it_the_second_time(daemon: Daemon) -> None:
    daemon.client.send_signal(signal.SIGINT)
    assert daemon.hear() == bytes((SIGNAL,)) + b"2"
    daemon.client.send_signal(signal.SIGINT)
    assert daemon.end() == (130, b"", b"\n")


def test_sigterm_ends_it(daemon: Daemon) -> None:
    daemon.client.send_signal(signal.SIGTERM)
    assert daemon.end() == (143, b"", b"")


def test_a_daemon_that_goes_away_is_told(daemon: Daemon) -> None:
    daemon._talk.shutdown(socket.SHUT_RDWR)
    code, _, err = daemon.end()
    assert code == 3
    assert err.startswith(b"cannot go on: gorae at ")
