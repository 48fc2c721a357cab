"""What the client does while the daemons are being started again."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import client
from orchestrator.cli.client import Client, Unreachable
from tests.orchestrator.cli.fakes import FakeDaemon


@pytest.fixture
def supervised(root: Path) -> Iterator[None]:
    """Somebody holds the lock of the one who starts the daemons."""
    (root / "state").mkdir()
    lock = os.open(root / "state" / "daemon.lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b"4711")
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


def test_a_daemon_that_is_being_started_again_is_waited_for(root: Path, supervised: None) -> None:
    made: list[FakeDaemon] = []

    def start() -> None:
        made.append(FakeDaemon(root, {("GET", "/v1/version"): {"version": "1"}}))

    later = threading.Timer(0.2, start)
    later.start()
    try:
        assert Client(str(root)).get("/v1/version") == {"version": "1"}
    finally:
        later.join()
        made[0].close()


def test_one_that_does_not_come_is_said_to_be_on_its_way(
    root: Path, supervised: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RETURN", 0.1)
    with pytest.raises(Unreachable, match=r"gorae daemon \(process 4711\) is starting it again"):
        Client(str(root)).get("/v1/version")


def test_without_anybody_who_starts_it_it_is_not_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.time, "sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(Unreachable, match="it is not running"):
        Client(str(root)).get("/v1/version")
