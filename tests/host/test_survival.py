"""Any of our processes may die at any time: what runs keeps running, and what died comes back."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.support.host import (
    CLI,
    Host,
    Load,
    cgroup_dirs,
    cgroup_pids,
    container_pids,
    fetch,
    free_port,
    mounts_below,
    power_cut,
    processes,
    until,
)

pytestmark = pytest.mark.host

WEB = """
services:
  web:
    image: gorae/busybox:1
    command: [sh, -c, "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"]
    ports: ["{port}:80"]
    restart: always
    stop_grace_period: 100ms
    deploy: {{replicas: 2}}
    healthcheck: {{test: [CMD, wget, -qO, /dev/null, "http://127.0.0.1/"], interval: 1s, start_period: 5s, start_interval: 200ms}}
"""
SLEEPER = """
services:
  app: {image: "gorae/busybox:1", command: [sleep, "3600"], restart: always, stop_grace_period: 100ms}
"""


@pytest.mark.parametrize("rounds", [pytest.param(2, id="two-rounds")])
def test_kill_9_of_every_daemon_in_turn_and_at_once_under_load(
    own: Host, rounds: int, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--rounds") or rounds
    dice = random.Random(request.config.getoption("--seed"))
    port = free_port()
    own.up("web", WEB.format(port=port))
    pids = own.pids("web")
    with Load(port) as load:
        for _ in range(rounds):
            victims: list[tuple[str, ...]] = [
                ("agent",),
                ("orchestrator",),
                ("broker",),
                ("agent", "orchestrator", "broker"),
            ]
            dice.shuffle(victims)
            for names in victims:
                old = {name: own.kill_daemon(name) for name in names}
                load.more()
                until(
                    lambda old=old: all(own.daemons().get(n, p) != p for n, p in old.items()),
                    f"{names} to be started again",
                )
                own.wait_ready()
                load.more()
    assert not load.failed, load.failed
    assert load.done > 100
    own.wait("web", lambda d: d["converged"], "the status to be complete again")
    assert own.pids("web") == pids


def test_kill_9_of_the_supervisor_ends_the_daemons_and_a_new_one_adopts(own: Host) -> None:
    own.up("app", SLEEPER)
    pids = own.pids("app")
    own.stop(signal.SIGKILL)
    assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
    own.start()
    own.wait("app", lambda d: d["converged"], "adoption")
    assert own.pids("app") == pids


def start_alone(host: Host, module: str) -> subprocess.Popen[bytes]:
    """One daemon without the supervisor."""
    with (host.root / "daemon.log").open("ab") as log:
        return subprocess.Popen(
            [CLI[0], "-P", "-m", module, "--root", str(host.root)],
            env=host.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def test_the_agent_alone_restarts_what_crashes(own: Host) -> None:
    own.up("app", SLEEPER)
    task = own.tasks("app")[0]
    own.stop()
    agent = start_alone(own, "agent.main")
    try:
        until(lambda: (own.root / "run/agent.sock").exists(), "the agent")
        os.kill(task["pid"], signal.SIGKILL)
        until(lambda: container_pids(own.instance) - {task["pid"]} != set(), "a new process", tell=own.log)
    finally:
        agent.terminate()
        agent.wait(30)
    own.start()
    new = own.wait_task("app", "app", lambda t: t["state"] == "running" and t["pid"] != task["pid"], "the report")
    assert new["id"] == task["id"] and new["restarts"] >= 1


def test_a_reboot_comes_up_in_order_with_the_agent_alone(own: Host) -> None:
    own.up(
        "boot",
        """
services:
  web: {image: "gorae/busybox:1", command: [sh, -c, "cut -d' ' -f1 /proc/uptime > /out/web; sleep 3600"], volumes: ["out:/out"], restart: always,
        depends_on: {db: {condition: service_healthy}}, stop_grace_period: 100ms}
  db: {image: "gorae/busybox:1", command: [sh, -c, "rm -f /ready; sleep 0.4; cut -d' ' -f1 /proc/uptime > /out/db; touch /ready; sleep 3600"],
       volumes: ["out:/out"], stop_grace_period: 100ms,
       healthcheck: {test: [CMD, test, -e, /ready], interval: 100ms, start_period: 9s, start_interval: 100ms}}
  never: {image: "gorae/busybox:1", command: [sh, -c, "echo ran >> /out/never"], volumes: ["out:/out"]}
  halted: {image: "gorae/busybox:1", command: [sh, -c, "echo ran >> /out/halted; sleep 3600"], volumes: ["out:/out"],
           restart: unless-stopped, stop_grace_period: 100ms}
volumes: {out: {}}
""",
    )
    own.cli("stop", "boot/halted")
    own.wait(
        "boot", lambda d: any(t["state"] == "stopped" for s in d["services"] for t in s["tasks"]), "halted to stop"
    )
    out = next((own.root / "state/volumes/boot_out").rglob("web")).parent
    own.stop()
    power_cut(own)
    for name in ("web", "db"):
        (out / name).unlink()
    agent = start_alone(own, "agent.main")
    try:
        until(lambda: (out / "web").exists() and (out / "web").read_text() != "", "web after the reboot", tell=own.log)
        assert float((out / "db").read_text()) < float((out / "web").read_text())
    finally:
        agent.terminate()
        agent.wait(30)
    own.start()
    own.wait("boot", lambda d: d["converged"], "convergence after the reboot")
    assert (out / "never").read_text() == "ran\n", "a completed one-shot stays completed"
    assert (out / "halted").read_text() == "ran\n", "what the user stopped stays stopped"


def test_a_deleted_database_is_rebuilt_from_what_runs(own: Host) -> None:
    own.up("app", SLEEPER)
    pids = own.pids("app")
    generation = own.status("app")["generation"]
    own.stop()
    for file in (own.root / "state/orchestrator").iterdir():
        file.unlink()
    own.start()
    own.wait("app", lambda d: d.get("converged", False), "adoption")
    assert own.pids("app") == pids
    assert own.status("app")["generation"] >= generation
    own.up("app", SLEEPER)
    assert own.pids("app") == pids, "up of the same file still changes nothing"
    own.cli("restart", "app")
    own.wait(
        "app",
        lambda d: d["converged"] and set(own.pids("app").values()) != set(pids.values()),
        "the agent to obey the new database",
    )


def test_a_database_restored_three_generations_old_adopts_what_runs(own: Host) -> None:
    own.up("app", SLEEPER)
    own.stop()
    copy = own.root / "copy"
    shutil.copytree(own.root / "state/orchestrator", copy)
    own.start()
    own.up("gone", SLEEPER)
    own.cli("scale", "app", "app=2")
    own.wait("app", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == 2, "two")
    own.up("later", SLEEPER)
    own.cli("scale", "app", "app=3")
    own.wait("app", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == 3, "three")
    own.down("gone")
    pids = {**own.pids("app"), **own.pids("later")}
    assert len(pids) == 4
    own.stop()
    for file in (own.root / "state/orchestrator").iterdir():
        file.unlink()
    for file in copy.iterdir():
        target = own.root / "state/orchestrator" / file.name
        shutil.copy2(file, target)
        os.chown(target, file.stat().st_uid, file.stat().st_gid)
    own.start()
    own.wait("later", lambda d: d.get("converged", False), "adoption of the stack the copy did not know")
    own.wait(
        "app", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == 3, "adoption of the newer generation"
    )
    assert {**own.pids("app"), **own.pids("later")} == pids


@pytest.mark.parametrize("more", [True, False], ids=["and more changed", "nothing else changed"])
def test_a_stack_removed_after_the_copy_does_not_come_back(own: Host, more: bool) -> None:
    own.up("app", SLEEPER)
    own.up("gone", SLEEPER)
    own.stop()
    copy = own.root / "copy"
    shutil.copytree(own.root / "state/orchestrator", copy)
    own.start()
    own.down("gone")
    until(lambda: any(e["kind"] == "task.removed" for e in own.events("gone")), "its last event")
    count = 2 if more else 1
    if more:
        own.cli("scale", "app", "app=2")
    own.wait("app", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == count, "convergence")
    pids = own.pids("app")
    own.stop()
    for file in (own.root / "state/orchestrator").iterdir():
        file.unlink()
    for file in copy.iterdir():
        target = own.root / "state/orchestrator" / file.name
        shutil.copy2(file, target)
        os.chown(target, file.stat().st_uid, file.stat().st_gid)
    own.start()
    own.wait("app", lambda d: d["converged"] and len(d["services"][0]["tasks"]) == count, "adoption")
    until(lambda: any(e["kind"] == "stack.held" for e in own.events("gone")), "it to be held")
    assert own.pids("app") == pids
    assert not own.pids("gone") and len(container_pids(own.instance)) == count


def test_a_second_agent_on_the_same_root_is_refused(own: Host) -> None:
    pid = own.daemons()["agent"]
    second = subprocess.run(
        [CLI[0], "-P", "-m", "agent.main", "--root", str(own.root)],
        env=own.env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode != 0
    assert "cannot" in second.stderr and str(pid) in second.stderr
    third = own.cli("daemon", check=False)
    assert third.returncode != 0 and "cannot" in third.stderr


def test_two_instances_do_not_touch_each_other(own: Host, tars: dict[str, Path]) -> None:
    from tests.host.conftest import import_images

    with Host() as other:
        import_images(other, tars, "busybox")
        own.up("app", SLEEPER)
        other.up("app", SLEEPER)
        mine = own.pids("app")
        assert {t["address"] for t in own.tasks("app")}.isdisjoint({t["address"] for t in other.tasks("app")})
        other.down("app")
        other.kill_daemon("agent")
        until(lambda: "agent" in other.daemons(), "the other agent to sweep and serve again")
        other.wait_ready()
        assert own.pids("app") == mine
    assert own.pids("app") == mine


def attempts_of(host: Host, task: str) -> set[int]:
    """Pids in the task's cgroups that have become the command."""
    pids: set[int] = set()
    for directory in cgroup_dirs(host.instance):
        if directory.name.startswith(f"{task}."):
            with contextlib.suppress(OSError):
                pids.update(map(int, (directory / "cgroup.procs").read_text().split()))
    return {pid for pid in pids if is_sleep(pid)}


def is_sleep(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")
    return False


def test_five_crashes_and_an_oom_during_an_outage_are_six_events_in_order(own: Host) -> None:
    own.up(
        "outage",
        """
services:
  app: {image: "gorae/busybox:1", command: [sleep, "3600"], restart: always, stop_grace_period: 100ms}
  eater: {image: "gorae/busybox:1", mem_limit: 16m, volumes: ["flag:/flag"],
          command: [sh, -c, "until test -e /flag/eat; do sleep 0.05; done; x=$$(head -c 1000000 /dev/zero | tr '\\\\0' x); while :; do x=$$x$$x; done"]}
volumes: {flag: {}}
""",
    )
    flag = own.root / "state/volumes/outage_flag"
    app = next(t for t in own.tasks("outage", "app"))
    eater = next(t for t in own.tasks("outage", "eater"))
    own.stop()
    agent = start_alone(own, "agent.main")
    try:
        until(lambda: (own.root / "run/agent.sock").exists(), "the agent")
        gone = {app["pid"], eater["pid"]}
        last = app["pid"]
        for _ in range(5):
            until(lambda last=last: Path(f"/proc/{last}").exists(), "the process")
            os.kill(last, signal.SIGKILL)
            until(lambda: attempts_of(own, app["id"]) - gone != set(), "the next attempt", tell=own.log)
            last = (attempts_of(own, app["id"]) - gone).pop()
            gone.add(last)
        gone.discard(last)
        next(p for p in [flag / "_data", flag] if p.is_dir()).joinpath("eat").touch()
        until(lambda: not Path(f"/proc/{eater['pid']}").exists(), "the OOM kill")
    finally:
        agent.terminate()
        agent.wait(30)
    assert Path(f"/proc/{last}").exists()
    own.start()
    own.wait_task("outage", "eater", lambda t: t["state"] == "failed", "the report of the OOM")
    until(
        lambda: len([e for e in own.events("outage") if e["kind"] == "task.exited"]) >= 6,
        "six events",
        tell=lambda: json.dumps(own.events("outage")),
    )
    exits = [(e["service"], bool(e["evidence"].get("oom"))) for e in own.events("outage") if e["kind"] == "task.exited"]
    assert exits == [("app", False)] * 5 + [("eater", True)]
    assert own.tasks("outage", "app")[0]["pid"] == last


def test_orphans_of_our_instance_are_swept(own: Host) -> None:
    """A journal that is lost: the containers of no task end, with all they hold; nothing else does."""
    own.up("app", SLEEPER)
    pids = own.pids("app")
    instance = own.instance
    own.stop()
    with sqlite3.connect(own.root / "state/agent/journal.db") as journal:
        tables = [row[0] for row in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if "assign" in table or "record" in table:
                journal.execute(f"DELETE FROM {table}")
    journal.close()
    shutil.move(own.root / "state/orchestrator", own.root / "aside")
    agent = start_alone(own, "agent.main")
    try:
        until(lambda: not cgroup_pids(instance), "the sweep", tell=own.log)
        until(lambda: not [m for m in mounts_below(own.root) if "/tasks/" in m], "the mounts to go")
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
        assert not list(Path("/sys/class/net").glob(f"g{instance}*"))
    finally:
        agent.terminate()
        agent.wait(30)
    shutil.move(own.root / "aside", own.root / "state/orchestrator")


def test_a_lost_journal_is_read_again_from_what_runs(own: Host) -> None:
    own.up("app", SLEEPER)
    pids = own.pids("app")
    addresses = {t["id"]: t["address"] for t in own.tasks("app")}
    own.stop()
    for file in (own.root / "state/agent").glob("journal.db*"):
        file.unlink()
    own.start()
    own.wait("app", lambda d: d["converged"], "adoption")
    assert own.pids("app") == pids
    assert {t["id"]: t["address"] for t in own.tasks("app")} == addresses


def test_kill_9_of_conmon_is_noticed(own: Host) -> None:
    own.up("app", SLEEPER)
    task = own.tasks("app")[0]
    conmon = next(pid for pid, argv in processes() if "conmon" in argv[0] and any(task["id"] in w for w in argv))
    os.kill(conmon, signal.SIGKILL)
    new = own.wait_task(
        "app", "app", lambda t: t["state"] == "running" and t["pid"] != task["pid"], "a new attempt with its logs"
    )
    assert new["id"] == task["id"]
    assert not Path(f"/proc/{task['pid']}").exists()
    with pytest.raises(OSError):
        fetch(free_port())
