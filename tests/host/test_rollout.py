"""Updates with real containers under load: nobody who connects notices, and what never gets well goes back by itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import announcing
from tests.support.host import Host, free_port, until

pytestmark = pytest.mark.host

REPLICAS = 4
RATE = 220  # requests a second
KEPT = 100  # requests a second over connections that are kept
PLAIN = """
    image: gorae/busybox:1
    command: ["sh", "-c", "mkdir -p /www && echo $$WHAT > /www/index.html && exec httpd -f -p 8000 -h /www"]
    stop_grace_period: 200ms"""
# Its clients have their connections to the end: the drain ends by its limit, and the server announces its close after.
ANNOUNCING = f"""
    image: gorae/visits-web:1
    command: {json.dumps(["python3", "-S", "-c", Path(announcing.__file__).read_text().replace("$", "$$")])}
    stop_grace_period: 5s
    x-gorae-drain: 300ms"""
SERVICE = """
services:
  web:{program}
    environment: {{WHAT: "{what}"}}
    ports: ["{port}:8000"]
    deploy: {{replicas: {replicas}, update_config: {{parallelism: 2}}, rollback_config: {{parallelism: 2}}}}
    x-gorae-healthcheck: {{http: {{port: {probed}}}, interval: 200ms, timeout: 1s, retries: 3}}
"""


class Load:
    """Requests at a steady pace, from a few threads, over fresh connections, or, `kept`, over one of each thread for as
    long as the server does not announce its close. No request is tried twice."""

    def __init__(self, port: int, rate: int = RATE, *, kept: bool = False) -> None:
        self.sent, self.failed, self.bodies = 0, list[str](), set[str]()
        self.connections = 0
        self._port, self._rate, self._kept = port, rate, kept
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(4)]

    def __enter__(self) -> Load:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.rate = self.sent / (time.monotonic() - self.began)

    def _work(self) -> None:
        pause = len(self._threads) / self._rate
        due = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            while not self._over.is_set():
                due = max(due + pause, time.monotonic() - 1)
                self._over.wait(max(0.0, due - time.monotonic()))
                try:
                    body, failure = self._ask(connection), ""
                except (OSError, http.client.HTTPException) as error:
                    body, failure = "", f"{time.time():.3f} {error!r}"
                with self._lock:
                    self.sent += 1
                    self.bodies.add(body)
                    self.failed += [failure] if failure else []

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        """http.client connects anew where the answer before was the last one of its connection."""
        fresh = connection.sock is None
        try:
            connection.request("GET", "/index.html", headers={} if self._kept else {"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read().decode().strip()
            if answer.status != 200:
                raise OSError(f"status {answer.status}")
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        with self._lock:
            self.connections += fresh
        return body

    def __str__(self) -> str:
        kind = "over kept connections" if self._kept else "over fresh ones"
        return f"{self.sent} requests {kind} ({self.connections}), {self.rate:.0f} a second, failed: {self.failed}"


def slots(host: Host, stack: str) -> list[int]:
    return sorted(task["slot"] for task in host.tasks(stack))


def taken(host: Host, text: str) -> bool:
    return host.up("roll", text, "--no-wait", check=False).returncode == 0


def test_updates_under_load_lose_no_request_and_bad_ones_go_back(shared: Host, request: pytest.FixtureRequest) -> None:
    rounds, seed = (request.config.getoption(name) for name in ("--rounds", "--seed"))
    port, total = free_port(), rounds or 4
    bad = set(random.Random(seed).sample(range(total), max(1, total // 4)))
    text: dict[str, Any] = {"what": "v0", "port": port, "replicas": REPLICAS, "probed": 8000, "program": ANNOUNCING}
    shared.up("roll", SERVICE.format(**text))
    good = "v0"
    try:
        with Load(port) as load, Load(port, KEPT, kept=True) as kept:
            for number in range(total):
                wanted = {**text, "what": f"v{number + 1}", "probed": 9 if number in bad else 8000}
                said = shared.up("roll", SERVICE.format(**wanted), check=number not in bad)
                if number in bad:
                    assert said.returncode == 1 and "back to revision" in said.stderr, said
                else:
                    good = wanted["what"]
                assert slots(shared, "roll") == [1, 2, 3, 4]
                assert load.failed == kept.failed == []
                load.bodies.clear()
                until(lambda: bool(load.bodies), "an answer")
        assert load.bodies <= {good}
        print(f"{total} updates, {len(bad)} of them bad; {load}; {kept}")
        assert load.failed == kept.failed == []
        assert REPLICAS < kept.connections < kept.sent / 10, "connections were kept, and given up when announced"
        revisions = shared.get("/v1/stacks/roll/revisions")["revisions"]
        assert len(revisions) == total + 1 and [row["current"] for row in revisions].count(True) == 1
        why = shared.cli("why", "roll/web").stdout
        assert why.startswith("web.") and "because" in why
        ran = shared.cli("run", "-e", "A=ran", "roll/web", "sh", "-c", "echo $A; exit 3", check=False)
        assert (ran.returncode, ran.stdout) == (3, "ran\n"), ran
        planned = text | {"what": "other"}
        file = str(shared.compose("roll", SERVICE.format(**planned)))
        said = shared.cli("plan", "-f", file, "-p", "roll", check=False)
        assert said.returncode == 2 and "rolling, 4 containers; downtime: none" in said.stdout
        assert load.rate > 100, "a machine that is too slow for the load shows nothing"
    finally:
        shared.down("roll")


def test_a_kill_in_the_middle_changes_nothing(own: Host, request: pytest.FixtureRequest) -> None:
    rounds, seed = (request.config.getoption(name) for name in ("--rounds", "--seed"))
    chance, port, total = random.Random(seed), free_port(), rounds or 3
    text: dict[str, Any] = {"what": "v0", "port": port, "replicas": REPLICAS, "probed": 8000, "program": PLAIN}
    own.up("roll", SERVICE.format(**text))
    with Load(port) as load:
        for number in range(total):
            victim = ("orchestrator", "agent", "broker")[number % 3]
            wanted = SERVICE.format(**{**text, "what": f"v{number + 1}"})
            until(
                partial(taken, own, wanted),
                "the daemons to take an update",
                tell=own.log,
            )
            time.sleep(chance.uniform(0.0, 2.5))  # the moment is the point
            own.kill_daemon(victim)
            own.wait_ready()
            until(
                lambda: own.status("roll")["converged"],
                f"the rollout to end after kill -9 of the {victim}",
                tell=own.log,
            )
            assert own.status("roll")["update"] is None, own.status("roll")["update"]
            assert slots(own, "roll") == [1, 2, 3, 4], "no orphan, nothing doubled"
            load.bodies.clear()
            until(lambda: bool(load.bodies - {""}), "an answer")
            assert load.bodies - {""} <= {f"v{number + 1}"}
    print(f"{total} kills; {load}")
    assert load.failed == []
