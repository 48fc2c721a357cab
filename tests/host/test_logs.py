"""Logs of real containers: each line once and in order whatever is restarted, replaced, rotated or killed; floods; bytes."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import import_images, service
from tests.support.host import CLI, Host, until

pytestmark = pytest.mark.host

BURST, PAD = 500, "x" * 100  # lines between two short pauses; bytes of each
WRITER = """
services:
  app:
    image: gorae/busybox:1
    command: ["sh", "-c", {program}]
    environment: {{TURN: "{turn}"}}
    volumes: [kept:/kept]
    restart: always
    deploy: {{restart_policy: {{condition: any, delay: 100ms}}}}
    stop_grace_period: 20s
    logging: {{driver: json-file, options: {{max-size: "{size}", max-file: "200"}}}}
volumes: {{kept: {{}}}}
"""
# Numbered lines, on through restarts and replacements; asked to stop, it ends between two bursts.
PROGRAM = """
trap stop=1 TERM
n=$$(cat /kept/n 2>/dev/null || echo 0)
while [ $$n -lt {total} ]; do
    awk -v n=$$n 'BEGIN {{ for (i = n; i < n + {burst}; i++) printf "%08d {pad}\\n", i }}'
    n=$$((n + {burst})); echo $$n > /kept/new; mv /kept/new /kept/n
    [ "$$stop" ] && exit 0
    usleep 40000
done
while :; do usleep 200000; [ "$$stop" ] && exit 0; done
"""


@pytest.fixture(scope="module")
def host(tars: dict[str, Path]) -> Iterator[Host]:
    """A gorae whose daemons may be killed: what they were told before is there when they are back."""
    with Host() as made:
        import_images(made, tars, "busybox")
        yield made


class Following:
    """`gorae logs -f` as somebody runs it. Lines are documents."""

    def __init__(self, host: Host, *words: str) -> None:
        self.process = subprocess.Popen(
            [*CLI, "logs", "-f", "--json", *words],
            env=host.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.found: list[dict[str, object]] = []
        self.notes = b""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._note)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.found.append(json.loads(line))

    def _note(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.notes += line

    def texts(self) -> list[str]:
        return [str(one["text"]) for one in self.found if one["kind"] == "line"]

    def until(self, count: int) -> None:
        until(lambda: len(self.texts()) >= count, f"{count} lines", patience=60, tell=self.tell)

    def until_attempt(self, count: int) -> None:
        until(lambda: len(attempts(self)) >= count, f"attempt {count}", patience=60, tell=self.tell)

    def tell(self) -> str:
        return f"{len(self.found)} so far, {self.found[-1:]}\n{self.notes.decode()}"

    def end(self, sig: int = signal.SIGINT) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(sig)
        code = self.process.wait(20)
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code


@pytest.fixture
def following(host: Host) -> Iterator[list[Following]]:
    """Those that a test has begun; they end with it."""
    begun: list[Following] = []
    yield begun
    for one in begun:
        one.end(signal.SIGKILL)


def test_each_line_comes_once_and_in_order(
    host: Host, following: list[Following], request: pytest.FixtureRequest
) -> None:
    """Through restarts, rotations, a replacement, and kill -9 of the agent and of the orchestrator, with three followers:
    the command line, Server-Sent Events with a client that goes away now and then, and the command line once more, which
    begins in the middle. Rounds are restarts."""
    rounds = request.config.getoption("--rounds") or 4
    total, luck = rounds * (5000 if rounds >= 20 else 2500), random.Random(request.config.getoption("--seed"))
    program = json.dumps(PROGRAM.format(total=total, burst=BURST, pad=PAD))
    size = total * 146 // 60  # 50 rotations, and some
    texts = {turn: WRITER.format(program=program, turn=turn, size=size) for turn in (1, 2)}
    host.up("once", texts[1], "--no-wait")
    following.append(Following(host, "once/app"))
    follower = following[0]
    follower.until(BURST)
    sse = Events(host, "/v1/stacks/once/logs?follow=true", luck)
    kills = 0
    for number in range(1, rounds + 1):
        follower.until(number * total // (rounds + 2))
        before = len(attempts(follower))
        if number % 2 == 0:
            host.kill_daemon(luck.choice(("agent", "orchestrator")) if number > 4 else ("agent", "orchestrator")[kills])
            kills += 1
        if number == rounds // 2:
            following.append(Following(host, "once/app"))
            file = host.compose("once", texts[2])  # replaced: another task goes on
            done(host, "up", "-f", str(file), "-p", "once", "--no-wait")
        else:
            done(host, "restart", "once", "--no-wait")
        follower.until_attempt(before + 1)
    expected = [f"{n:08d} {PAD}" for n in range(total)]
    for one in following:
        one.until(total)
    until(lambda: len(sse.texts()) >= total, "every event", patience=60, tell=lambda: str(sse.found[-1:]))
    assert len(attempts(follower)) > rounds
    sse.close()
    for name, texts_ in [("-f", follower.texts()), ("late -f", following[1].texts()), ("events", sse.texts())]:
        assert len(texts_) == len(expected), (name, _odd(texts_, expected))
        assert texts_ == expected, (name, _odd(texts_, expected))
    whole = host.cli("logs", "once/app", "--no-prefix").stdout
    assert whole.splitlines() == expected
    marks = attempts(follower)
    assert len(marks) == len(set(marks)), marks
    assert len({task for task, _ in marks}) >= 2, "it was replaced"
    assert [one for one in follower.found if one["kind"] == "gap"] == []
    names = [path.name for path in (host.root / "state/logs/once/app").iterdir()]
    rotations = sum(bool(re.search(r"\.log\.\d+$", name)) for name in names)
    print(f"{total} lines, {len(marks)} attempts, {rotations} rotations, {kills} kills, {sse.opened} event streams")
    assert rotations >= (50 if rounds >= 20 else 5)
    assert "--- app.1 attempt 2 ---" in host.cli("logs", "once").stdout
    assert [one.end() for one in following] == [0, 0]
    assert b"comes when it is back" in follower.notes or b"come from the agent" in follower.notes
    host.down("once", "--volumes")


def attempts(follower: Following) -> list[tuple[object, object]]:
    return [(one["task"], one["attempt"]) for one in follower.found if one["kind"] == "attempt"]


def done(host: Host, *words: str) -> None:
    """Said again until it is done: a daemon may be away just now."""
    until(lambda: host.cli(*words, check=False).returncode == 0, " ".join(words), patience=60, tell=host.log)


def _odd(found: list[str], expected: list[str]) -> object:
    return next(((n, a, b) for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), "one is shorter")


class Events:
    """A client of Server-Sent Events that goes away now and then, and comes back with the last id that it saw."""

    def __init__(self, host: Host, path: str, luck: random.Random) -> None:
        self._host, self._path, self._luck = host, path, luck
        self._last, self._over = "", False
        self.found: list[dict[str, object]] = []
        self.opened = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def texts(self) -> list[str]:
        return [str(one["text"]) for one in self.found if one["kind"] == "line"]

    def _run(self) -> None:
        while not self._over:
            with contextlib.suppress(OSError):
                self._read(self._luck.randint(20, 200))
            time.sleep(0.05)

    def _read(self, events: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(0.5)
            connection.connect(str(self._host.root / "run" / "api" / "gorae.sock"))
            head = f"GET {self._path} HTTP/1.0\r\nHost: gorae\r\nAccept: text/event-stream\r\n"
            head += f"Last-Event-ID: {self._last}\r\n" if self._last else ""
            connection.sendall(head.encode() + b"\r\n")
            data, place = b"", 0
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(1 << 16)):
                    return
                data += more
            assert data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), data[:200]
            data = data.partition(b"\r\n\r\n")[2]
            self.opened += 1
            while events > 0 and not self._over:
                while (end := data.find(b"\n\n", place)) < 0:
                    if not (more := connection.recv(1 << 16)):
                        return
                    data += more
                self._take(data[place:end].decode().split("\n"))
                place, events = end + 2, events - 1

    def _take(self, lines: list[str]) -> None:
        if any(line.startswith("event: ") for line in lines):
            return  # an error: the agent is away
        self.found += [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        self._last = next((line[4:] for line in lines if line.startswith("id: ")), self._last)

    def close(self) -> None:
        self._over = True
        self._thread.join()


def test_a_flood_stays_within_its_cap_and_slows_nobody_else(host: Host, request: pytest.FixtureRequest) -> None:
    """Rounds are seconds."""
    seconds, cap = request.config.getoption("--rounds") or 5, 30 << 20
    flood = service(f"exec yes {'flood ' * 20}")  # its cap is that of a service that says nothing of logs
    host.up("calm", service("while :; do cut -d ' ' -f 1 /proc/uptime; sleep 0.1; done"))
    agent = host.daemons()["agent"]
    host.up("flood", flood)
    [task] = host.tasks("flood")
    directory = host.root / "state/logs/flood/app"
    monitor = int((host.root / "run/tasks" / task["id"] / "1" / "conmon.pid").read_text())
    began, written, before = time.monotonic(), _written(monitor), _resident(agent)
    sizes, answers, grown = list[int](), list[float](), 0.0
    while time.monotonic() < began + seconds:
        sizes.append(_size(directory))
        grown = max(grown, _resident(agent) - before)
        asked = time.monotonic()
        host.get("/v1/stacks/calm/logs?tail=1")
        answers.append(time.monotonic() - asked)
        time.sleep(0.02)
    rate = (_written(monitor) - written) / (time.monotonic() - began) / 1e6
    answers.sort()
    late = answers[len(answers) * 95 // 100]
    print(
        f"{rate:.0f} MB/s for {seconds} s; logs took {max(sizes) / 1e6:.1f} MB at most of {cap / 1e6:.1f}; the agent grew "
        f"by {grown:.1f} MiB; others' logs in {answers[len(answers) // 2] * 1000:.0f} ms, {late * 1000:.0f} ms (95 of 100)"
    )
    assert max(sizes) < cap + rate * 1e6 * 0.05, "what comes between two looks may come on top"
    assert grown < 20
    assert late < 2
    stamps = [float(line) for line in host.cli("logs", "calm", "--no-prefix").stdout.split()]
    assert len(stamps) > seconds * 2
    assert "flood" in host.cli("logs", "flood", "--tail", "3").stdout
    for stack in ("flood", "calm"):
        host.down(stack)


def _written(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text().partition("wchar: ")[2].split()[0])


def _resident(pid: int) -> float:
    """MiB of a process's own."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024


def _size(directory: Path) -> int:
    total = 0
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_bytes_and_endless_lines_come_out_as_they_went_in(host: Host) -> None:
    command = (
        r"printf '\377\000\033[2J\r\n\n'; printf 'on stderr \376\n' >&2; "
        "head -c 1500000 /dev/zero | tr '\\0' '\\351'; echo; printf 'no newline'; sleep 1000"
    )
    host.up("bytes", service(command.replace("$", "$$")))

    def out() -> bytes:
        words = [*CLI, "logs", "bytes", "--no-prefix"]
        return subprocess.run(words, env=host.env, capture_output=True, check=True).stdout

    until(lambda: out().endswith(b"no newline\n"), "all of it", tell=lambda: repr(out()[-200:]))
    lines = out().split(b"\n")
    assert sorted(lines, key=len) == sorted(
        [b"", b"", b"no newline", b"on stderr \xfe", b"\xff\x00\x1b[2J\r", b"\xe9" * 1_500_000], key=len
    )
    documents = [json.loads(line) for line in host.stream("/v1/stacks/bytes/logs")]
    assert next(one["base64"] for one in documents if one.get("stream") == "stderr") == "b24gc3RkZXJyIP4="
    host.down("bytes")


def test_logging_is_honoured_and_changes_in_place_where_it_can(host: Host) -> None:
    command = "echo said; sleep 1000"
    said = host.up("drivers", service(command, "logging: {driver: syslog, options: {syslog-address: 'tcp://x'}}"))
    assert "services.app.logging.driver is ignored: gorae keeps logs itself" in said.stderr
    pids = host.pids("drivers")
    until(lambda: "said" in host.cli("logs", "drivers").stdout, "what it said")
    host.up("drivers", service(command, "logging: {driver: local, options: {max-size: 3m, max-file: 2}}"))
    assert host.pids("drivers") == pids, "no new container"
    host.up("drivers", service(command, "logging: {driver: none}"))
    assert host.pids("drivers") != pids
    told = host.cli("logs", "drivers")
    assert told.stderr == "note  drivers/app keeps no logs: its logging driver is none\n"
    assert told.stdout == "app.1 │ said\n", "what was kept before stays"
    bad = host.up("drivers", service(command, "logging: {options: {max-size: much}}"), check=False)
    assert bad.returncode == 2 and "services.app.logging.options.max-size" in bad.stderr
    missing = host.cli("logs", "drivers/ap", check=False)
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (1, "cannot find service ap in stack drivers")
    host.down("drivers")


def test_who_vanishes_leaves_nothing_behind(host: Host) -> None:
    host.up("many", service("while :; do echo line; usleep 50000; done", "deploy: {replicas: 3}"))
    daemons = [host.daemons()[name] for name in ("agent", "orchestrator")]

    def open_ones() -> list[int]:
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in daemons]

    host.cli("logs", "many", "--tail", "1")
    before = open_ones()
    accepts = ("text/event-stream", "application/x-gorae-batches", "*/*")
    clients = []
    for number in range(12):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(host.root / "run" / "api" / "gorae.sock"))
        head = f"GET /v1/stacks/many/logs?follow=true HTTP/1.0\r\nHost: g\r\nAccept: {accepts[number % 3]}\r\n\r\n"
        client.sendall(head.encode())
        clients.append(client)
    killed = [subprocess.Popen([*CLI, "logs", "-f", "many"], env=host.env, stdout=subprocess.PIPE) for _ in range(2)]
    for client in clients:
        assert client.recv(100)
    for process in killed:
        assert process.stdout and process.stdout.readline()
    assert all(now > then + 10 for now, then in zip(open_ones(), before, strict=True))
    for client in clients[::2]:
        client.close()
    for process in killed:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
    for client in clients[1::2]:
        client.shutdown(socket.SHUT_RDWR)
        client.close()
    until(
        lambda: all(now <= then for now, then in zip(open_ones(), before, strict=True)),
        "every descriptor to be closed",
        patience=20,
        tell=lambda: f"{before} → {open_ones()}",
    )
    host.down("many")


def test_with_the_orchestrator_away_root_asks_the_agent_itself(host: Host, following: list[Following]) -> None:
    host.up("alone", service("n=0; while :; do echo line $$n; n=$$((n + 1)); usleep 50000; done"))
    following.append(Following(host, "alone"))
    following[0].until(3)
    hidden = host.root / "run" / "api" / "hidden.sock"
    (host.root / "run" / "api" / "gorae.sock").rename(hidden)
    try:
        told = host.cli("logs", "alone", "--tail", "2")
        assert told.stderr == "note  the orchestrator is down: these logs come from the agent\n"
        assert len(told.stdout.splitlines()) == 2
        host.kill_daemon("agent")  # the follower's own answer ends, and the API is away
        following[0].until(len(following[0].texts()) + 20)
    finally:
        hidden.rename(host.root / "run" / "api" / "gorae.sock")
    numbers = [int(text.split()[1]) for text in following[0].texts()]
    assert numbers == list(range(len(numbers)))
    assert b"these logs come from the agent" in following[0].notes
    host.wait_ready()
    host.down("alone")
