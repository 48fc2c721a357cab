"""Power cuts at any moment, in real containers: what comes back comes in its order, once, and as it was last wanted."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.host import Host, cgroup_dirs, power_cut, until

pytestmark = pytest.mark.host

# Everybody writes into one file, whose lines so are in the order of what happened. Each leaves its mark where others of
# its slot would leave theirs: who does not find its own there is not alone.
WORDS = """
x-said: &said
  image: gorae/busybox:1
  volumes: [data:/data]
  stop_grace_period: 100ms
services:
  db:
    <<: *said
    command:
      - sh
      - -c
      - |
        rm -f /ready; me=$$(cat /proc/sys/kernel/random/uuid); echo $$me > /data/db
        echo db starts >> /data/said; sleep 0.3; echo db is ready >> /data/said; touch /ready
        while sleep 0.05; do [ $$(cat /data/db) = $$me ] || echo doubled db >> /data/said; done
    healthcheck: {{test: ["CMD", "test", "-e", "/ready"], interval: 1s, start_period: 20s, start_interval: 100ms}}
  job:
    <<: *said
    command: ["sh", "-c", "echo job >> /data/said"]
    deploy: {{mode: replicated-job}}
  web:
    <<: *said
    command:
      - sh
      - -c
      - |
        me=$$(cat /proc/sys/kernel/random/uuid); place=/data/$$(hostname); echo $$me > $$place
        echo web {version} >> /data/said
        while sleep 0.05; do [ $$(cat $$place) = $$me ] || echo doubled $$place >> /data/said; done
    deploy: {{replicas: 2}}
    restart: unless-stopped
    depends_on: {{db: {{condition: service_healthy}}, job: {{condition: service_completed_successfully}}}}
  loop:
    <<: *said
    command: ["sh", "-c", "sleep 0.4; exit 1"]
    restart: always
  halted:
    <<: *said
    command: ["sh", "-c", "echo halted >> /data/said; while :; do sleep 0.1; done"]
    restart: always
volumes:
  data:
"""


def test_reboots_in_random_states_keep_the_order_and_double_nothing(own: Host, request: pytest.FixtureRequest) -> None:
    rounds = request.config.getoption("--rounds") or 3
    dice = random.Random(request.config.getoption("--seed"))
    version = 0
    text = WORDS.format(version=version)
    own.up("boot", text, "--no-wait")
    own.wait("boot", settled, "the first start")
    own.cli("stop", "boot/halted")
    said = next(own.root.glob("state/volumes/**/boot_data/**/said"))
    halted = lines(said).count("halted")

    def update() -> None:
        nonlocal version
        version += 1
        own.up("boot", WORDS.format(version=version), "--no-wait", "web")

    def crash() -> None:
        pid = dice.choice([task["pid"] for task in own.tasks("boot") if task["pid"] and task["service"] != "loop"])
        os.kill(pid, signal.SIGKILL)

    happenings: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "an update": update,
        "a restart": lambda: own.cli("restart", "boot/web", "--no-wait"),
        "a recreation": lambda: own.cli("recreate", "boot/db", "--no-wait"),
        "a crash": crash,
        "a killed agent": lambda: own.kill_daemon("agent"),
        "a killed orchestrator": lambda: own.kill_daemon("orchestrator"),
        "a drain": lambda: own.cli("drain", "--no-wait"),
    }
    names = list(happenings)
    for number in range(rounds):
        name = names[number] if number < len(names) and rounds > len(names) else dice.choice(names)
        happenings[name]()
        time.sleep(dice.uniform(0, 1.5))  # the moment is the point
        own.stop(signal.SIGKILL)
        power_cut(own)
        with said.open("a") as file:
            file.write(f"boot {number} after {name}\n")
        own.start()
        if name == "a drain":
            own.wait("boot", lambda d: d["converged"], "everything to be down")
            assert not running(own) and lines(said)[-1].startswith("boot "), "nothing starts on a drained host"
            assert "the host is drained" in own.cli("status").stdout
            own.cli("drain", "--undo", "--no-wait")
        mark = f"boot {number} after {name}"

        new = f"web {version}"
        until(partial(both, said, mark, new), f"both of them, {mark}", tell=said.read_text)
        own.wait("boot", settled, mark)
        until(lambda: running(own) == assigned(own), "what runs to be what is assigned", tell=lambda: str(running(own)))
        found = since(said, mark)
        webs = [line for line in found if line.startswith("web")]
        assert "doubled" not in said.read_text(), found
        assert found.index("db is ready") < found.index(webs[0]), found
        # Between the two new ones may come an old one: of the slot that the update had not reached yet.
        assert webs[-1] == new and webs.count(new) >= 2, found
        if name not in ("an update", "a restart", "a recreation"):
            assert (len(webs), found.count("db starts")) == (2, 1), found
        assert lines(said).count("halted") == halted, "what the user stopped stays stopped"
        assert lines(said).count("job") == 1, "what is done is not done again"
        print(f"{mark}: {len(found) - 1} starts and marks")


def lines(said: Path) -> list[str]:
    return said.read_text().splitlines()


def since(said: Path, mark: str) -> list[str]:
    found = lines(said)
    return found[found.index(mark) :]


def both(said: Path, mark: str, new: str) -> bool:
    found = since(said, mark)
    return found[-1:] == [new] and found.count(new) >= 2


def settled(document: dict[str, object]) -> bool:
    """All but the one that ends again and again are as they should be."""
    services = document["services"]
    assert isinstance(services, list)
    return (
        bool(services) and document["update"] is None and all(s["converged"] for s in services if s["name"] != "loop")
    )


def running(host: Host) -> set[str]:
    """TASK of every container that has a process, but for the one that comes and goes."""
    looping = {task["id"] for task in host.tasks("boot", "loop")}
    places = {path.name for path in cgroup_dirs(host.instance) if "." in path.name and _lives(path)}
    return {name.rpartition(".")[0] for name in places} - looping


def _lives(place: Path) -> bool:
    try:
        return bool((place / "cgroup.procs").read_text())
    except OSError:
        return False


def assigned(host: Host) -> set[str]:
    return {task["id"] for name in ("db", "web") for task in host.tasks("boot", name)}
