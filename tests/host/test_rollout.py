"""Updates with real containers under load: nobody who connects notices, and what never gets well goes back by itself."""

from __future__ import annotations

import http.client
import random
import threading
import time

import pytest

from tests.support.host import Host, free_port, until

pytestmark = pytest.mark.host

REPLICAS = 4
RATE = 220  # requests a second
SERVICE = """
services:
  web:
    image: gorae/busybox:1
    command: ["sh", "-c", "mkdir -p /www && echo $$WHAT > /www/index.html && exec httpd -f -p 8000 -h /www"]
    environment: {{WHAT: "{what}"}}
    ports: ["{port}:8000"]
    stop_grace_period: 200ms
    deploy: {{replicas: {replicas}, update_config: {{parallelism: 2}}, rollback_config: {{parallelism: 2}}}}
    x-gorae-healthcheck: {{http: {{port: {probed}}}, interval: 200ms, timeout: 1s, retries: 3}}
"""


class Load:
    """Fresh connections at a steady pace, from a few threads; no request is tried twice."""

    def __init__(self, port: int) -> None:
        self.sent, self.failed, self.bodies = 0, list[str](), set[str]()
        self._port, self._over, self._lock = port, threading.Event(), threading.Lock()
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
        pause = len(self._threads) / RATE
        due = time.monotonic()
        while not self._over.is_set():
            due = max(due + pause, time.monotonic() - 1)
            self._over.wait(max(0.0, due - time.monotonic()))
            try:
                body, failure = self._ask(), ""
            except OSError as error:
                body, failure = "", f"{time.time():.3f} {error!r}"
            except http.client.HTTPException as error:
                body, failure = "", f"{time.time():.3f} {error!r}"
            with self._lock:
                self.sent += 1
                self.bodies.add(body)
                self.failed += [failure] if failure else []

    def _ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/index.html", headers={"Connection": "close"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"status {answer.status}")
            return answer.read().decode().strip()
        finally:
            connection.close()


def slots(host: Host, stack: str) -> list[int]:
    return sorted(task["slot"] for task in host.tasks(stack))


def test_updates_under_load_lose_no_request_and_bad_ones_go_back(shared: Host, request: pytest.FixtureRequest) -> None:
    rounds, seed = (request.config.getoption(name) for name in ("--rounds", "--seed"))
    port, total = free_port(), rounds or 4
    bad = set(random.Random(seed).sample(range(total), max(1, total // 4)))
    text = {"what": "v0", "port": port, "replicas": REPLICAS, "probed": 8000}
    shared.up("roll", SERVICE.format(**text))
    good = "v0"
    try:
        with Load(port) as load:
            for number in range(total):
                wanted = {**text, "what": f"v{number + 1}", "probed": 9 if number in bad else 8000}
                said = shared.up("roll", SERVICE.format(**wanted), check=number not in bad)
                if number in bad:
                    assert said.returncode == 1 and "back to revision" in said.stderr, said
                else:
                    good = wanted["what"]
                assert slots(shared, "roll") == [1, 2, 3, 4]
                assert load.failed == []
                load.bodies.clear()
                until(lambda: load.bodies, "an answer")
        assert load.bodies <= {good}
        print(
            f"{total} updates, {len(bad)} of them bad; {load.sent} requests, {load.rate:.0f} a second, failed: {load.failed}"
        )
        assert load.failed == []
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
    text = {"what": "v0", "port": port, "replicas": REPLICAS, "probed": 8000}
    own.up("roll", SERVICE.format(**text))
    with Load(port) as load:
        for number in range(total):
            victim = ("orchestrator", "agent", "broker")[number % 3]
            wanted = SERVICE.format(**{**text, "what": f"v{number + 1}"})
            until(
                lambda wanted=wanted: own.up("roll", wanted, "--no-wait", check=False).returncode == 0,
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
            until(lambda: load.bodies - {""}, "an answer")
            assert load.bodies - {""} <= {f"v{number + 1}"}
    print(f"{total} kills; {load.sent} requests, {load.rate:.0f} a second, failed: {load.failed}")
    # A request that goes through at the very moment may be cut off: seen once in some 60 kills, 220 requests a second.
    assert len(load.failed) <= max(1, total // 20)
