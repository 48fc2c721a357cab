"""Looking into containers that run: what they use, their processes, all there is to say of them, and their end."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import CLI, Host, until

pytestmark = pytest.mark.host

BUSY = r"""
services:
  busy:
    image: gorae/busybox:1
    command: [sh, -c, "cat /dev/zero > /dev/null; :", "bu\tsy\e[31m"]
    mem_limit: 64m
    pids_limit: 50
    user: "33"
    environment: {DB_PASSWORD: hunter2, TZ: UTC}
    stop_grace_period: 100ms
  talk:
    image: gorae/busybox:1
    command: [sh, -c, "dd if=/dev/zero of=/dev/shm/fill bs=1M count=20; while :; do wget -q -O /dev/null http://files/big; done"]
    stop_grace_period: 100ms
  files:
    image: gorae/busybox:1
    command: [sh, -c, "mkdir /w; dd if=/dev/zero of=/w/big bs=1M count=4; exec httpd -f -p 80 -h /w"]
    stop_grace_period: 100ms
"""


def stats(host: Host, *args: str) -> dict[str, dict[str, Any]]:
    document = json.loads(host.cli("stats", *args, "--no-stream", "--json").stdout)
    return {task["service"]: task for task in document["tasks"]}


def test_stats_top_and_inspect(shared: Host) -> None:
    shared.up("look", BUSY)
    until(lambda: (stats(shared, "look")["talk"]["received_rate"] or 0) > 1_000_000, "bytes to flow")
    found = stats(shared, "look")
    assert set(found) == {"busy", "talk", "files"}
    busy, talk, files = found["busy"], found["talk"], found["files"]
    assert busy["cpu_percent"] > 5 > files["memory"] / 1e9
    assert (busy["memory_limit"], busy["pids_limit"]) == (64 << 20, 50)
    assert busy["pids"] == 2 and busy["memory"] < 16 << 20
    assert 18 << 20 < talk["memory"] < 64 << 20, "what lies in memory counts, the file cache does not"
    assert talk["received"] > 1_000_000 < files["sent"] and talk["received"] > 5 * talk["sent"]
    assert busy["sent_rate"] == 0.0

    table = shared.cli("stats", "look/busy", "--no-stream").stdout.splitlines()
    assert len(table) == 2 and "/64.0M" in table[1] and all(len(line) <= 80 for line in table)

    (container,) = json.loads(shared.cli("top", "look/busy", "--json").stdout)["containers"]
    process, child = container["processes"]
    pid = next(task["pid"] for task in shared.tasks("look", "busy"))
    assert (process["pid"], process["host_pid"], process["parent"]) == (1, pid, 0)
    assert process["user"] == "33" and process["rss"] > 0
    assert child["parent"] == 1 and child["cpu"] > 0 and child["command"] == "cat /dev/zero"
    said = shared.cli("top", "look/busy").stdout
    assert "\t" not in said and "\x1b" not in said

    document = json.loads(shared.cli("inspect", "look/busy").stdout)
    (task,) = document["tasks"]
    assert (document["kind"], task["process"]["pid"], task["uid_base"] > 0) == ("service", pid, True)
    assert task["container"]["user"]["uid"] == 33 and task["network"]["address"]
    text = json.dumps(document)
    assert "hunter2" not in text and "TZ=UTC" in text and task["image_id"].startswith("sha256:")
    for name, kind in (("look", "stack"), ("look_default", "network"), ("gorae/busybox:1", "image")):
        assert json.loads(shared.cli("inspect", name).stdout)["kind"] == kind
    for args, what in (
        (("top", "look/bsuy"), "cannot find service bsuy"),
        (("inspect", "nothing-of-that-name"), "no stack, service, volume, network or image"),
        (("stats", "lok"), "cannot find stack lok"),
        (("wait", "look/bsuy"), "cannot find service bsuy"),
    ):
        refused = shared.cli(*args, check=False)
        assert refused.returncode == 1 and what in refused.stderr, args
    shared.cli("stop", "look/busy")
    refused = shared.cli("top", "look/busy", check=False)
    assert refused.returncode == 1 and "no container runs" in refused.stderr
    shared.down("look")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def sockets(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(path.readlink().name)
    return {link for link in found if link.startswith("socket:")}


def test_whoever_stops_looking_leaves_nothing_open(shared: Host) -> None:
    shared.up("look", BUSY)
    agent = shared.daemons()["agent"]
    before = descriptors(agent)
    for _ in range(3):
        watching = subprocess.Popen([*CLI, "stats", "--json"], env=shared.env, stdout=subprocess.PIPE)
        assert watching.stdout is not None and watching.stdout.readline()
        watching.kill()
        watching.wait()
        watching.stdout.close()
    until(lambda: descriptors(agent) <= before, "the descriptors to be closed")
    shared.down("look")


def test_wait_tells_the_end_over_a_restart_of_the_orchestrator(shared: Host) -> None:
    shared.up(
        "end",
        """
services:
  job:
    image: gorae/busybox:1
    command: [sh, -c, "trap 'exit 7' USR1; while :; do sleep 0.1; done"]
    restart: "no"
""",
    )
    waiting = subprocess.Popen([*CLI, "wait", "end/job"], env=shared.env, stdout=subprocess.PIPE, text=True)
    seen: list[set[str]] = []

    def watches() -> bool:  # one connection, for longer than a question takes
        seen.append(sockets(waiting.pid))
        return bool(seen[-1]) and seen[-20:] == [seen[-1]] * 20

    until(watches, "it to watch")
    orchestrator = shared.kill_daemon("orchestrator")
    until(lambda: shared.daemons().get("orchestrator") not in (None, orchestrator), "the orchestrator to be back")
    shared.wait_ready()
    assert waiting.poll() is None
    shared.cli("kill", "-s", "USR1", "end/job")
    out, _ = waiting.communicate(timeout=60)
    assert (out, waiting.returncode) == ("7\n", 7)
    assert shared.cli("wait", "end/job", check=False).returncode == 7, "what has ended is told at once"
    shared.down("end")
