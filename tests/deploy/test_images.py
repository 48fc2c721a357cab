"""The sample images: the same bytes every time, complete enough to run, and the web program's manners."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.support.images import BUILD, sample

pytestmark = pytest.mark.host

Kind = Literal["redis", "postgres", "web", "busybox"]
KINDS: tuple[Kind, ...] = ("redis", "web", "busybox")
Unpacked = dict[Kind, Path]
CACHE = Path(os.environ.get("GORAE_TEST_CACHE", "/var/cache/gorae/images"))


@pytest.fixture(scope="module")
def unpacked() -> Iterator[Unpacked]:
    """The root file systems, unpacked with the system's tar."""
    place = Path(tempfile.mkdtemp(prefix="g-samples-", dir="/tmp"))
    place.chmod(0o755)
    found: Unpacked = {}
    for kind in KINDS:
        tar, _ = sample(kind)
        found[kind] = place / kind
        found[kind].mkdir()
        subprocess.run(["tar", "-xpf", str(tar), "-C", str(found[kind])], check=True)
    yield found
    shutil.rmtree(place)


def test_a_new_build_gives_the_same_bytes_and_the_cache_is_quick(tmp_path: Path) -> None:
    kind = "web"  # the one with most to go wrong: it holds byte code
    kept, again = tmp_path / "kept.tar", tmp_path / "again.tar"
    subprocess.run([str(BUILD), kind, str(kept), "--cache", str(CACHE)], check=True, capture_output=True)
    done = subprocess.run(
        [str(BUILD), kind, str(again), "--cache", str(CACHE), "--refresh"], check=True, capture_output=True, text=True
    )
    assert re.fullmatch(rf"gorae/\S+: {again}, \S+ MiB, from \d+ packages\n", done.stdout)
    assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
    started = time.monotonic()
    subprocess.run([str(BUILD), kind, str(again), "--cache", str(CACHE)], check=True, capture_output=True)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("kind", [*KINDS, "postgres"])
def test_licences_stay_and_nothing_is_dated_or_owned_by_chance(kind: Kind) -> None:
    tar, config = sample(kind)
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert "usr/share/doc/libc6/copyright" in names
    assert not [name for name in names if name.startswith(("usr/share/man", "usr/share/locale"))]
    assert {member.mtime for member in members} == {1_700_000_000}
    assert {member.uid for member in members} == ({0, 999} if kind in ("redis", "postgres") else {0})
    assert not [member.name for member in members if member.mode & 0o6000 or member.isdev()]
    assert config["Cmd"]


def test_busybox_runs(unpacked: Unpacked) -> None:
    done = subprocess.run(
        ["chroot", str(unpacked["busybox"]), "sh", "-c", "echo a | tr a b; id -u; wget -O- http://nothing.invalid"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.stdout == "b\n0\n"
    assert "bad address" in done.stderr  # a static busybox dies of a name it has to look up


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(root: Path, user: str, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["chroot", "--userspec", user, str(root), *command],
        env={"PATH": "/usr/sbin:/usr/bin", **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def visits(unpacked: Unpacked) -> Iterator[tuple[str, subprocess.Popen[str], subprocess.Popen[str]]]:
    """(URL, web, redis), both ready."""
    port, redis_port = free_port(), free_port()
    with ExitStack() as stack:
        redis = stack.enter_context(
            running(unpacked["redis"], "999:999", "redis-server", "--bind", "127.0.0.1", "--port", str(redis_port),
                    "--save", "", "--dir", "/data")
        )  # fmt: skip
        assert redis.stdout is not None
        while "Ready to accept connections" not in (line := redis.stdout.readline()):
            assert line, "redis ended"
        web = stack.enter_context(
            running(unpacked["web"], "1000:1000", "python3", "-S", "/app/app.py", PORT=str(port),
                    REDIS_HOST="127.0.0.1", REDIS_PORT=str(redis_port))
        )  # fmt: skip
        assert web.stdout is not None
        assert web.stdout.readline().startswith("listening on port")
        yield f"http://127.0.0.1:{port}", web, redis


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_visits_are_counted(unpacked: Unpacked) -> None:
    with visits(unpacked) as (url, _, _):
        assert get(f"{url}/health") == (200, "PONG\n")
        assert get(url) == (200, f"{socket.gethostname()}: visit number 1\n")
        assert get(f"{url}/?x=1")[1].endswith("visit number 2\n")
        assert get(f"{url}/nothing")[0] == 404
        done = subprocess.run(
            ["chroot", "--userspec", "1000:1000", str(unpacked["web"]), "python3", "-S", "/app/app.py", "health"],
            env={"PATH": "/usr/sbin:/usr/bin", "PORT": url.rpartition(":")[2]},
        )
        assert done.returncode == 0


def test_redis_away_is_503_and_coming_back_heals(unpacked: Unpacked) -> None:
    with visits(unpacked) as (url, _, redis):
        assert get(url)[0] == 200
        os.kill(redis.pid, signal.SIGKILL)
        redis.wait()
        assert get(f"{url}/health")[0] == 503
        status, body = get(url)
        assert status == 503 and body.startswith("cannot reach redis at 127.0.0.1:")


def test_kept_connections_pipelines_and_nonsense(unpacked: Unpacked) -> None:
    with visits(unpacked) as (url, _, _):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            for number in range(1, 4):
                line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert f"visit number {number}\n".encode() in line.recv(4096)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(b"nonsense\r\n\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 400 ")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(b"POST / HTTP/1.0\r\n\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 405 ")


def test_sigterm_answers_what_was_asked(unpacked: Unpacked) -> None:
    """redis is stopped, so that requests hang in flight; the signal comes; redis goes on: every request is answered."""
    with visits(unpacked) as (url, web, redis):
        redis.send_signal(signal.SIGSTOP)
        answers: list[int] = []
        clients = [threading.Thread(target=lambda: answers.append(get(url)[0])) for _ in range(8)]
        for client in clients:
            client.start()
        idle = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        status = Path(f"/proc/{web.pid}/status")
        while int(re.findall(r"Threads:\s+(\d+)", status.read_text())[0]) < 10:
            time.sleep(0.01)  # eight requests and one idle connection have their thread
        web.send_signal(signal.SIGTERM)
        redis.send_signal(signal.SIGCONT)
        for client in clients:
            client.join()
        assert web.wait(timeout=10) == 0
        assert answers == [200] * 8
        idle.close()
