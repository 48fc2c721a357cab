"""The main job with real parts: up, seen, healed, changed, down, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.host import CLONE, Host, cgroup_files, fetch, free_port, until
from tests.support.leaks import leftovers, snapshot

pytestmark = pytest.mark.host

SLEEPER = """
services:
  app:
    image: gorae/busybox:1
    command: ["sleep", "3600"]
    stop_grace_period: 100ms
"""


def test_the_sample_stack_from_up_to_down_leaves_nothing(own: Host) -> None:
    before = snapshot()
    port = free_port()
    own.env["VISITS_PORT"] = str(port)
    compose = str(CLONE / "specs/visits/compose.yaml")
    said = own.cli("up", "-f", compose).stdout
    assert "visits" in said

    counts = [int("".join(filter(str.isdigit, fetch(port).split("visit")[0][-12:])) or -1) for _ in range(6)]
    hosts = {fetch(port) for _ in range(12)}
    assert len(hosts) > 2, "several web tasks answer"
    assert counts is not None

    table = own.cli("status").stdout
    assert "visits" in table and "3/3" in table and str(port) in table
    assert max(map(len, table.splitlines())) <= 80
    document = json.loads(own.cli("status", "--json").stdout)
    assert document["version"] == 1 and document["stacks"][0]["converged"]

    pids = own.pids("visits")
    assert len(pids) == 4
    again = own.cli("up", "-f", compose)
    assert own.pids("visits") == pids, "a second up changes nothing"
    assert "nothing changed" in again.stdout

    own.cli("down", "visits", "--volumes")
    assert own.get("/v1/stacks")["stacks"] == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    left = [line for line in leftovers(own.instance, own.root, before) if "/run/" not in line and "daemon" not in line]
    assert not [line for line in left if "cgroup" in line or "veth" in line or "mount" in line or "conmon" in line], (
        left
    )


def test_data_in_a_named_volume_outlives_down(shared: Host) -> None:
    text = """
services:
  keep:
    image: gorae/busybox:1
    command: ["sh", "-c", "test -f /data/x || echo first > /data/x; cat /data/x; sleep 3600"]
    stop_grace_period: 100ms
    volumes: ["data:/data"]
volumes: {data: {}}
"""
    shared.up("vol", text)
    data = shared.root / "state/volumes/vol_data"
    files = list(data.rglob("x"))
    assert [f.read_text() for f in files] == ["first\n"]
    assert files[0].stat().st_uid == 0, "container root's files belong to root on the host, whatever its uid range"
    files[0].write_text("kept\n")
    shared.down("vol")
    assert files[0].read_text() == "kept\n"
    shared.up("vol", text)
    until(lambda: "kept" in shared.cli("logs", "vol").stdout, "the container to read the volume")
    shared.down("vol", "--volumes")
    assert not data.exists()


def test_kill_of_the_process_brings_it_back_at_once(shared: Host) -> None:
    shared.up("crash", SLEEPER + "    restart: always\n")
    try:
        task = shared.tasks("crash")[0]
        until(lambda: time.time() - task["started_at"] > 10, "10 s of stable run")
        began = time.monotonic()
        os.kill(task["pid"], signal.SIGKILL)
        new = shared.wait_task("crash", "app", lambda t: t["state"] == "running" and t["pid"] != task["pid"], "restart")
        took = time.monotonic() - began
        assert new["id"] == task["id"] and new["attempt"] == 2 and new["address"] == task["address"]
        assert took < 2.0, took
        until(lambda: any(e["kind"] == "task.exited" for e in shared.events("crash")), "its event")
    finally:
        shared.down("crash")


def test_an_unhealthy_container_is_restarted_and_says_why(shared: Host) -> None:
    shared.up(
        "sick",
        SLEEPER
        + """
    healthcheck: {test: ["CMD", "test", "!", "-e", "/tmp/sick"], interval: 200ms, timeout: 2s, retries: 2}
    tmpfs: ["/run/x"]
""",
    )
    try:
        task = shared.wait_task("sick", "app", lambda t: t["health"] == "healthy", "health")
        Path(f"/proc/{task['pid']}/root/tmp").mkdir(exist_ok=True)
        Path(f"/proc/{task['pid']}/root/tmp/sick").touch()
        shared.wait_task("sick", "app", lambda t: t["attempt"] >= 2, "a restart of the unhealthy container")
        until(lambda: any(e["kind"] == "task.unhealthy" for e in shared.events("sick")), "the event of its illness")
        events = shared.events("sick")
        unhealthy = next(e for e in events if e["kind"] == "task.unhealthy")
        assert unhealthy["evidence"], "the probe's output is kept"
        ids = {e["id"] for e in events}
        assert all(e["cause"] in ids for e in events if e["cause"] and e["task"]), "every cause exists"
    finally:
        shared.down("sick")


@pytest.mark.parametrize(
    ("restart", "command", "state"),
    [
        pytest.param("", "exit 0", "completed", id="absent-exit-0-rests"),
        pytest.param("", "exit 3", "failed", id="absent-exit-3-rests"),
        pytest.param('"no"', "exit 3", "failed", id="no-rests"),
        pytest.param("on-failure", "exit 0", "completed", id="on-failure-exit-0-rests"),
        pytest.param("on-failure:2", "exit 3", "failed", id="on-failure-2-gives-up"),
        pytest.param("always", "exit 0", "backoff", id="always-comes-back"),
        pytest.param("unless-stopped", "exit 3", "backoff", id="unless-stopped-comes-back"),
    ],
)
def test_restart_policies(shared: Host, restart: str, command: str, state: str) -> None:
    stack = f"pol-{abs(hash((restart, command))) % 10**6}"
    shared.up(
        stack,
        f"""
services:
  app:
    image: gorae/busybox:1
    command: ["sh", "-c", "{command}"]
    {f"restart: {restart}" if restart else ""}
""",
        "--no-wait",
    )
    try:
        if state == "backoff":
            task = shared.wait_task(stack, "app", lambda t: t["restarts"] >= 3, "three restarts")
        else:
            task = shared.wait_task(stack, "app", lambda t: t["state"] == state, f"state {state}")
            assert task["exit_code"] == int(command.split()[1])
            if restart == "on-failure:2":
                assert task["restarts"] == 2
            elif restart in ("", '"no"'):
                assert task["restarts"] == 0
    finally:
        shared.down(stack)


def test_dependencies_start_in_order_and_stop_in_reverse(shared: Host) -> None:
    shared.up(
        "order",
        """
services:
  web: {image: "gorae/busybox:1", command: [sleep, "3600"], stop_grace_period: 100ms,
        depends_on: {db: {condition: service_healthy}, prepare: {condition: service_completed_successfully}}}
  prepare: {image: "gorae/busybox:1", command: [sh, -c, "sleep 0.3"], depends_on: [db]}
  db: {image: "gorae/busybox:1", command: [sh, -c, "sleep 0.5; touch /ready; sleep 3600"], stop_grace_period: 100ms,
       healthcheck: {test: [CMD, test, -e, /ready], interval: 100ms, start_interval: 100ms, start_period: 5s}}
""",
    )
    started = {t["service"]: t["started_at"] for t in shared.tasks("order")}
    assert started["db"] < started["prepare"] < started["web"]
    assert started["web"] - started["db"] > 0.5
    shared.down("order")
    ended = [
        e["service"]
        for e in shared.events("order")
        if e["kind"] in ("task.exited", "task.stopped") and e["service"] != "prepare"
    ]
    assert ended.index("web") < ended.index("db")


def test_stop_start_restart_recreate_scale(shared: Host) -> None:
    shared.up("verbs", SLEEPER + "    restart: unless-stopped\n    deploy: {replicas: 2}\n")
    try:
        first = shared.pids("verbs")
        shared.cli("stop", "verbs/app")
        shared.wait("verbs", lambda d: all(t["state"] == "stopped" for s in d["services"] for t in s["tasks"]), "stop")
        assert not any(Path(f"/proc/{pid}").exists() for pid in first.values())
        shared.cli("start", "verbs/app")
        shared.wait("verbs", lambda d: d["converged"], "start")
        second = shared.pids("verbs")
        assert set(second) == set(first) and not set(second.values()) & set(first.values())

        shared.cli("restart", "verbs/app")
        shared.wait(
            "verbs",
            lambda d: d["converged"] and all(t["attempt"] >= 3 for s in d["services"] for t in s["tasks"]),
            "restart",
        )
        third = shared.pids("verbs")
        assert set(third) == set(first) and not set(third.values()) & set(second.values())

        shared.cli("recreate", "verbs/app")
        shared.wait(
            "verbs",
            lambda d: d["converged"] and not {t["id"] for s in d["services"] for t in s["tasks"]} & set(first),
            "recreate",
        )

        kept = shared.pids("verbs")
        shared.cli("scale", "verbs", "app=3")
        shared.wait("verbs", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == 3, "three tasks")
        assert kept.items() <= shared.pids("verbs").items(), "scaling up touches nobody"
        shared.cli("scale", "verbs", "app=1")
        shared.wait("verbs", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == 1, "one task")
        assert [t["slot"] for t in shared.tasks("verbs")] == [1]
    finally:
        shared.down("verbs")


def test_graceful_stop_then_kill_after_the_grace(shared: Host) -> None:
    shared.up(
        "grace",
        """
services:
  polite: {image: "gorae/busybox:1", stop_signal: SIGUSR1, stop_grace_period: 20s,
           command: [sh, -c, "trap 'echo bye; exit 0' USR1; while :; do sleep 0.05; done"]}
  deaf: {image: "gorae/busybox:1", stop_grace_period: 500ms,
         command: [sh, -c, "trap '' TERM; while :; do sleep 0.05; done"]}
""",
    )
    began = time.monotonic()
    shared.cli("stop", "grace")
    shared.wait("grace", lambda d: all(t["state"] == "stopped" for s in d["services"] for t in s["tasks"]), "stop")
    assert 0.4 < time.monotonic() - began < 10
    codes = {t["service"]: t["exit_code"] for t in shared.tasks("grace")}
    assert codes == {"polite": 0, "deaf": 137}
    assert "bye" in shared.cli("logs", "grace/polite").stdout
    shared.down("grace")


def test_limits_are_in_the_cgroup_and_an_oom_kill_is_told_apart(shared: Host) -> None:
    shared.up(
        "limits",
        """
services:
  app: {image: "gorae/busybox:1", command: [sleep, "3600"], stop_grace_period: 100ms,
        deploy: {resources: {limits: {memory: 64M, cpus: "0.5", pids: 50}}}}
  eater: {image: "gorae/busybox:1", mem_limit: 16m,
          command: [sh, -c, "x=$$(head -c 1000000 /dev/zero | tr '\\\\0' x); while :; do x=$$x$$x; done"]}
""",
        "--no-wait",
    )
    try:
        eater = shared.wait_task("limits", "eater", lambda t: t["state"] == "failed", "the OOM kill")
        assert eater["oom"] and eater["exit_code"] == 137
        until(
            lambda: any(e["evidence"].get("oom") for e in shared.events("limits") if e["kind"] == "task.exited"),
            "the event of the OOM kill",
        )
        app = shared.wait_task("limits", "app", lambda t: t["state"] == "running", "app")
        found = {}
        for name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max"):
            for path in cgroup_files(shared.instance, f"{app['id']}.{app['attempt']}", name):
                found[name] = path.read_text().strip()
        assert str(64 * 1024 * 1024) in found.values(), found
        assert found["pids.max"] == "50"
        assert any(v.startswith("50000") for n, v in found.items() if n.startswith("cpu")), found
    finally:
        shared.down("limits")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(
            'memory: 64M, cpus: "0.5", pids: 50',
            'memory: 96M, cpus: "0.25", pids: 60',
            (96 << 20, 25000, 60),
            id="raised",
        ),
        pytest.param('memory: 64M, cpus: "0.5", pids: 50', "memory: 32M, pids: 20", (32 << 20, None, 20), id="lowered"),
        pytest.param("pids: 50", 'memory: 48M, cpus: "1.5"', (48 << 20, 150000, 4096), id="given"),
        pytest.param('memory: 64M, cpus: "0.5"', "pids: 30", (None, None, 30), id="lifted"),
    ],
)
def test_changed_limits_are_applied_to_what_runs(
    shared: Host, before: str, after: str, expected: tuple[int | None, int | None, int]
) -> None:
    def text(limits: str) -> str:
        return SLEEPER + f"    deploy: {{resources: {{limits: {{{limits}}}}}}}\n"

    shared.up("live", text(before))
    try:
        pids = shared.pids("live")
        task = shared.tasks("live")[0]["id"]
        cgroup = f"{task}.1"
        shared.up("live", text(after))
        until(lambda: limits(shared, cgroup) == expected, "the new limits", tell=lambda: str(limits(shared, cgroup)))
        assert shared.pids("live") == pids, "the same process runs on"

        def told(kind: str) -> int:
            return sum(e["task"] == task and e["kind"] == kind for e in shared.events("live"))

        until(lambda: told("task.updated") == 1, "the event")
        assert told("task.started") == 1
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        shared.wait_task("live", "app", lambda t: t["state"] == "failed", "its end")
        shared.cli("restart", "live")
        shared.wait_task("live", "app", lambda t: t["state"] == "running", "its next attempt")
        assert limits(shared, f"{task}.2") == expected, "the next attempt has them from the start"
    finally:
        shared.down("live")


def limits(host: Host, cgroup: str) -> tuple[int | None, int | None, int | None]:
    """Memory (bytes), cpu (µs of each 100 ms) and pids that the kernel enforces; None: unlimited. v2's files or v1's."""
    found: dict[str, str] = {}
    for name in ("memory.max", "memory.limit_in_bytes", "cpu.max", "cpu.cfs_quota_us", "pids.max"):
        for path in cgroup_files(host.instance, cgroup, name):
            found[name.partition(".")[0]] = path.read_text().split()[0]
    numbers = {name: None if value in ("max", "-1") else int(value) for name, value in found.items()}
    memory = numbers.get("memory")
    return None if memory is None or memory > 1 << 60 else memory, numbers.get("cpu"), numbers.get("pids")


def test_isolation_by_default(shared: Host) -> None:
    shared.up("iso", SLEEPER)
    shared.up("other", SLEEPER)
    try:
        task, other = shared.tasks("iso")[0], shared.tasks("other")[0]
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{task['pid']}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert int(status["Uid"].split()[0]) >= 0x70000000, "root of the container is nobody on the host"
        assert int(status["CapBnd"], 16).bit_count() == 11
        for kind in ("user", "net", "pid", "mnt", "ipc", "uts"):
            mine, theirs, hosts = (Path(f"/proc/{p}/ns/{kind}").readlink() for p in (task["pid"], other["pid"], "self"))
            assert len({mine, theirs, hosts}) == 3, kind
        root = Path(f"/proc/{task['pid']}/root")
        assert (root / "sys").stat().st_dev != Path("/sys").stat().st_dev, "not the host's /sys"
        assert (root / "dev").stat().st_dev != root.stat().st_dev, "/dev is a tmpfs of its own"
        uid_map = Path(f"/proc/{task['pid']}/uid_map").read_text().split()
        assert uid_map[0] == "0" and uid_map[2] == "65536"
        assert uid_map != Path(f"/proc/{other['pid']}/uid_map").read_text().split()
    finally:
        shared.down("iso")
        shared.down("other")


def test_names_published_ports_and_closed_neighbours(shared: Host) -> None:
    port = free_port()
    server = "httpd -f -p 80 -h /www"
    shared.up(
        "net",
        f"""
services:
  web: {{image: "gorae/busybox:1", command: [sh, -c, "mkdir /www; echo hello $$HOSTNAME > /www/index.html; exec {server}"],
         ports: ["{port}:80"], stop_grace_period: 100ms, deploy: {{replicas: 2}}}}
  ask: {{image: "gorae/busybox:1", stop_grace_period: 100ms,
         command: [sh, -c, "until wget -qO- http://web/; do sleep 0.1; done; cat /etc/hosts; sleep 3600"]}}
""",
    )
    try:
        until(lambda: "hello" in shared.cli("logs", "net/ask").stdout, "one service to reach another by name")
        answers = set()
        for _ in range(12):
            answers.add(fetch(port))
        assert len(answers) == 2, "requests are spread over the tasks"
        address = next(t["address"] for t in shared.tasks("net", "web"))
        shared.up(
            "stranger",
            f"""
services:
  peek: {{image: "gorae/busybox:1", stop_grace_period: 100ms,
          command: [sh, -c, "wget -qO- http://{address}/ && echo OPEN || echo CLOSED; sleep 3600"]}}
""",
        )
        until(lambda: "CLOSED" in shared.cli("logs", "stranger").stdout, "the other stack to be refused")
        assert "OPEN" not in shared.cli("logs", "stranger").stdout
    finally:
        shared.down("net")
        shared.down("stranger")
    with pytest.raises(OSError):
        fetch(port)


def test_checks_in_flight_do_not_keep_a_killed_container_from_ending(shared: Host) -> None:
    """A check that is entering the container as it is killed becomes an orphan of the agent, to be reaped."""
    for _ in range(3):
        shared.up(
            "busy",
            """
services:
  app: {image: "gorae/busybox:1", command: [sleep, "3600"], stop_grace_period: 50ms, deploy: {replicas: 4},
        healthcheck: {test: [CMD, "true"], interval: 50ms, start_interval: 50ms, start_period: 5s}}
""",
        )
        shared.cli("down", "busy", timeout=20)
