"""gorae port-forward with a real program in the container, which listens on its 127.0.0.1 alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.host.conftest import service
from tests.support.host import CLI, Host, fetch, until

pytestmark = pytest.mark.host
PATIENCE = 60
SIZE = 8 << 20
AT_ONCE = 60
WEB, TAKE, GIVE, ECHO, RESET, NOBODY = 8000, 8001, 8002, 8003, 8004, 9
PROGRAM = """
import os, socket, struct, threading
who = os.urandom(8).hex()
kept = []
busy = threading.Lock()
def rest(c):
    parts = []
    while data := c.recv(65536):
        parts.append(data)
    return b"".join(parts)
def web(c):
    c.recv(65536)
    c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + who.encode())
def take(c):
    with busy:
        try:
            kept[:] = [rest(c)]
        except ConnectionResetError:
            kept[:] = [b"reset"]
            return
    c.sendall(b"%d" % len(kept[0]))
def give(c):
    with busy:
        c.sendall(kept[0])
        c.shutdown(socket.SHUT_WR)
        kept[0] = rest(c)
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
def reset(c):
    c.recv(1)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
def one(answer, c):
    with c:
        answer(c)
def serve(listener, answer):
    while True:
        threading.Thread(target=one, args=(answer, listener.accept()[0])).start()
for port, answer in ((8000, web), (8001, take), (8002, give), (8003, echo), (8004, reset)):
    listener = socket.create_server(("127.0.0.1", port), backlog=200)
    threading.Thread(target=serve, args=(listener, answer)).start()
print("listening", flush=True)
"""
STACK = f"""
services:
  app:
    image: gorae/visits-web:1
    command: ["python3", "-S", "-c", {json.dumps(PROGRAM)}]
    stop_grace_period: 100ms
"""


class Forward:
    """`gorae port-forward`, with a free port here for each of the container's."""

    def __init__(self, host: Host, ports: Sequence[int] = (WEB, TAKE, GIVE, ECHO, RESET, NOBODY)) -> None:
        words = [f":{port}" for port in ports]
        self.process = subprocess.Popen(
            [*CLI, "port-forward", "forward/app", *words],
            env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.local = {}
        for port in ports:
            line = self.process.stdout.readline()
            here, _, there = line.strip().partition(" → ")
            assert there == f"forward/app:{port}", line + self.ended()
            self.local[port] = int(here.removeprefix("127.0.0.1:"))

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.ended()

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.local[port]), timeout=PATIENCE)

    def ended(self) -> str:
        """What it said on stderr."""
        return self.process.communicate(timeout=PATIENCE)[1]

    def line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()


def send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def rest(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def descriptors(host: Host) -> list[int]:
    """How many descriptors the agent and the orchestrator have open."""
    pids = host.daemons()
    return [len(list(Path(f"/proc/{pids[name]}/fd").iterdir())) for name in ("agent", "orchestrator")]


@pytest.fixture(scope="module")
def host(shared: Host) -> Iterator[Host]:
    shared.up("forward", STACK)
    listening(shared)
    yield shared
    shared.down("forward")


def listening(host: Host, times: int = 1) -> None:
    until(lambda: host.cli("logs", "forward", "--no-prefix").stdout.count("listening") == times, "the program")


@pytest.fixture
def open_(host: Host) -> Iterator[Forward]:
    with Forward(host) as forward:
        yield forward


def test_much_both_ways_each_with_an_end_of_its_own(open_: Forward) -> None:
    data, more = os.urandom(SIZE), os.urandom(SIZE)
    with open_.connect(TAKE) as connection:
        send(connection, data)
        assert rest(connection) == str(SIZE).encode()  # after our end
    with open_.connect(GIVE) as connection:
        assert hashlib.sha256(rest(connection)).digest() == hashlib.sha256(data).digest()
        send(connection, more)  # after its end
        assert rest(connection) == b""
    with open_.connect(GIVE) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert hashlib.sha256(rest(connection)).digest() == hashlib.sha256(more).digest()
    url = f"http://127.0.0.1:{open_.local[WEB]}/"
    curl = subprocess.run(["curl", "-sSf", "--noproxy", "*", url], capture_output=True, text=True, timeout=PATIENCE)
    assert (curl.returncode, len(curl.stdout)) == (0, 16), curl.stderr


def test_many_at_once_do_not_wait_for_each_other(open_: Forward) -> None:
    """One of them takes nothing of what comes back."""
    all_there = threading.Barrier(AT_ONCE, timeout=PATIENCE)

    def talk(number: int) -> bool:
        data = bytes((number,)) * 200_000
        with open_.connect(ECHO) as connection:
            connection.sendall(data[:10])
            got = connection.recv(10)
            all_there.wait()
            threading.Thread(target=send, args=(connection, data[10:])).start()
            return got + rest(connection) == data

    with open_.connect(ECHO) as stuck, ThreadPoolExecutor(AT_ONCE) as pool:
        stuck.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                stuck.send(bytes(65536))
        assert all(pool.map(talk, range(AT_ONCE)))


def test_what_is_refused_or_reset_is_said_and_the_rest_goes_on(open_: Forward) -> None:
    for _ in range(2):
        with open_.connect(NOBODY) as connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert open_.line() == f"cannot reach port {NOBODY} of forward/app.1: connection refused\n"
    with open_.connect(RESET) as connection, pytest.raises(ConnectionResetError):
        connection.sendall(b"x")
        connection.recv(1)
    assert open_.line() == f"cannot go on with port {RESET}: the connection was reset\n"
    assert len(fetch(open_.local[WEB])) == 16


def test_after_a_restart_it_leads_to_what_runs_then(host: Host, open_: Forward) -> None:
    before = fetch(open_.local[WEB])
    with open_.connect(ECHO) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        host.cli("restart", "forward/app")
        listening(host, 2)
        assert rest(connection) == b""
    assert fetch(open_.local[WEB]) != before
    host.cli("stop", "forward/app")
    with open_.connect(WEB) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    host.cli("start", "forward/app")
    listening(host, 3)
    assert len(fetch(open_.local[WEB])) == 16
    open_.process.send_signal(signal.SIGINT)
    assert open_.ended().splitlines()[-2:] == ["cannot reach a port of forward/app: no container runs", ""]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_however_it_ends_nothing_is_left(host: Host, open_: Forward, number: int, code: int) -> None:
    before = descriptors(host)
    idle, full = open_.connect(ECHO), open_.connect(ECHO)
    with idle, full, open_.connect(TAKE) as half:
        idle.sendall(b"x")
        assert idle.recv(1) == b"x"
        half.sendall(b"half of it")
        full.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                full.send(bytes(65536))
        assert all(now > then for now, then in zip(descriptors(host), before, strict=True))
        open_.process.send_signal(number)
        said = open_.ended()
        assert (open_.process.returncode, said.strip()) == (code, "")
        if number != signal.SIGKILL:
            with pytest.raises(ConnectionResetError):
                half.recv(1)
    until(
        lambda: all(now <= then for now, then in zip(descriptors(host), before, strict=True)),
        "descriptors to be closed",
        tell=lambda: f"{before} {descriptors(host)}",
    )
    with Forward(host, [GIVE]) as again, again.connect(GIVE) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert rest(connection) == b"reset"  # half of it did not pass for all


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["forward/ap", ":80"], 1, "try  is it app?", id="near miss"),
        pytest.param(["forwart/app", ":80"], 1, "cannot find stack forwart", id="no such stack"),
        pytest.param(["--index", "7", "forward/app", ":80"], 1, "forward/app.7: no container runs", id="no such slot"),
        pytest.param(["idle/app", ":80"], 1, "cannot reach a port of idle/app: no container runs", id="not running"),
        pytest.param(["forward/app", "TAKEN:80"], 1, "cannot listen on 127.0.0.1:TAKEN: address", id="in use"),
        pytest.param(["--address", "192.0.2.1", "forward/app", ":80"], 1, "cannot assign", id="not of this host"),
        pytest.param(["forward/app", "80:80:80"], 2, "cannot understand the port 80:80:80", id="no port"),
    ],
)
def test_codes_and_words(host: Host, request: pytest.FixtureRequest, words: list[str], code: int, said: str) -> None:
    if request.node.callspec.id == "not running":
        host.up("idle", service("sleep 100000"))
        host.cli("stop", "idle/app")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        done = host.cli("port-forward", *(word.replace("TAKEN", number) for word in words), check=False)
    assert (done.returncode, said.replace("TAKEN", number) in done.stderr) == (code, True), done.stderr
    assert done.stdout == ""
