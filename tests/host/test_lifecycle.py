"""Hooks, init, pausing, signals, draining and what becomes of a sick container, in real ones. One gorae for all."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.support.host import Host, free_port, until

pytestmark = pytest.mark.host


def stack(command: str, *lines: str) -> str:
    text = f"""
services:
  app:
    image: gorae/busybox:1
    command: ["sh", "-c", {json.dumps(command)}]
    stop_grace_period: 2s
    volumes: [data:/data]
"""
    return text + "".join(f"    {line}\n" for line in lines) + "volumes: {data: {}}\n"


FOREVER = "trap 'echo term >> /data/said; exit 0' TERM; echo program >> /data/said; while :; do sleep 0.05; done"


def said(host: Host, name: str) -> list[str]:
    files = list(host.root.glob(f"state/volumes/**/{name}_data/**/said"))
    return files[0].read_text().split("\n")[:-1] if files else []


def test_hooks_run_in_their_order_as_whom_they_say(shared: Host) -> None:
    hooks = (
        "user: '1000'",
        'pre_start: [{command: ["sh", "-c", "echo pre $$(id -u) > /data/said; chmod 666 /data/said"], user: "0"}]',
        'post_start: [{command: ["sh", "-c", "sleep 0.2; echo post $$(id -u) $$WHO >> /data/said"], environment: {WHO: me}}]',
        'pre_stop: [{command: ["sh", "-c", "echo pre_stop >> /data/said"]}]',
    )
    shared.up("hooks", stack(FOREVER, *hooks))
    assert said(shared, "hooks") == ["pre 0", "program", "post 1000 me"], "up returns when post_start is done"
    shared.cli("stop", "hooks/")
    assert said(shared, "hooks")[3:] == ["pre_stop", "term"]
    shared.cli("start", "hooks/")
    assert said(shared, "hooks")[5:] == ["program", "post 1000 me"], "pre_start is once for a container"
    shared.down("hooks", "--volumes")


def test_a_hook_that_fails_is_told_with_what_it_said(shared: Host) -> None:
    line = 'pre_start: [{command: ["sh", "-c", "echo no such table; exit 3"]}]'
    shared.up("badhook", stack(FOREVER, line), "--no-wait")
    task = shared.wait_task("badhook", "app", lambda t: t["state"] == "backoff", "the failure")
    assert "ended with 3" in task["message"] and "no such table" in task["evidence"]["hook_output"]
    assert said(shared, "badhook") == []
    shared.down("badhook", "--volumes")


def test_init_is_pid_1_reaps_and_hands_on_signals(shared: Host) -> None:
    orphan = "(sh -c 'sleep 0.1 & exit 0'); trap 'exit 7' TERM; while :; do sleep 0.05; done"
    shared.up("init", stack(orphan, "init: true", "restart: 'no'"))
    pid = shared.tasks("init")[0]["pid"]
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/dev/init\0--\0sh\0-c\0")
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: all(_state(int(c)) != "Z" for c in children.read_text().split()), "the orphan to be reaped")
    shared.cli("kill", "-s", "TERM", "init/app")
    task = shared.wait_task("init", "app", lambda t: t["state"] == "failed", "its end")
    assert task["exit_code"] == 7
    shared.down("init", "--volumes")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_kill_is_an_exit_that_the_policy_judges(shared: Host) -> None:
    shared.up("killed", stack(FOREVER, "restart: always"))
    before = shared.tasks("killed")[0]["pid"]
    shared.cli("kill", "killed/app")
    shared.wait_task("killed", "app", lambda t: t["state"] == "running" and t["pid"] != before, "the next attempt")
    events = {event["kind"]: event for event in shared.events("killed")}
    assert events["task.signalled"]["evidence"]["signal"] == 9
    assert events["task.exited"]["message"].startswith("killed by signal 9")
    refused = shared.cli("kill", "-s", "NOSUCH", "killed/app", check=False)
    assert refused.returncode != 0 and "cannot send the signal NOSUCH" in refused.stderr
    shared.down("killed", "--volumes")


def test_pause_holds_everything_still_also_over_an_agent(shared: Host) -> None:
    shared.up("paused", stack("while :; do echo x >> /data/said; sleep 0.02; done"))
    shared.cli("pause", "paused/app")
    count = len(said(shared, "paused"))
    time.sleep(0.3)
    assert len(said(shared, "paused")) == count > 0
    assert "paused" in shared.cli("status", "paused").stdout
    shared.cli("unpause", "paused/app")
    until(lambda: len(said(shared, "paused")) > count, "it to go on")
    shared.cli("pause", "paused/app")
    shared.down("paused", "--volumes")


SERVER = "while :; do nc -l -p 80 -e sh -c 'echo hello; sleep 4; echo bye' ; done"


@pytest.mark.parametrize("drain", ["10s", "1s"])
def test_a_connection_is_let_end_or_has_its_time(shared: Host, drain: str) -> None:
    port, name = free_port(), f"drain{drain}"
    lines = (
        f"ports: ['127.0.0.1:{port}:80']",
        f"x-gorae-drain: {drain}",
        'pre_stop: [{command: ["sh", "-c", "echo pre_stop >> /data/said"]}]',
    )
    shared.up(name, stack(f"trap 'exit 0' TERM; {SERVER}", *lines))

    def hello() -> socket.socket | None:
        connection = socket.create_connection(("127.0.0.1", port), 5)
        connection.settimeout(15)
        return connection if connection.recv(6) == b"hello\n" else None

    connection = hello()
    assert connection is not None
    began = time.monotonic()
    shared.cli("stop", f"{name}/", "--no-wait")
    shared.wait_task(name, "app", lambda t: t["state"] == "stopping", "it to be stopped")
    with pytest.raises(OSError):
        until(
            lambda: socket.create_connection(("127.0.0.1", port), 5).close() is not None,
            "no more to be let in",
            patience=2,
        )
    assert said(shared, name) == [], "pre_stop waits for the connection"
    rest = connection.recv(100)
    connection.close()
    assert (rest == b"bye\n") == (drain == "10s")
    shared.wait_task(name, "app", lambda t: t["state"] == "stopped", "the end")
    assert said(shared, name) == ["pre_stop"]
    assert time.monotonic() - began < 9
    shared.down(name, "--volumes")


def test_unhealthy_to_be_made_anew_keeps_nothing_but_volumes(shared: Host) -> None:
    lines = (
        'healthcheck: {test: ["CMD-SHELL", "! test -e /sick"], interval: 200ms, retries: 2}',
        "x-gorae-on-unhealthy: recreate",
    )
    shared.up("anew", stack("echo here >> /data/said; while :; do sleep 0.05; done", *lines))
    task = shared.tasks("anew")[0]
    (Path(f"/proc/{task['pid']}/root/sick")).touch()
    shared.wait_task("anew", "app", lambda t: t["attempt"] == 2 and t["health"] == "healthy", "a healthy one")
    assert shared.tasks("anew")[0]["id"] == task["id"] and said(shared, "anew") == ["here", "here"]
    kinds = [event["kind"] for event in shared.events("anew")]
    assert kinds.index("task.unhealthy") < kinds.index("task.stopping")
    shared.down("anew", "--volumes")


JOB = """
services:
  job:
    image: gorae/busybox:1
    command: ["sh", "-c", "echo {what} >> /data/said; test {what} != bad"]
    volumes: [data:/data]
    deploy:
      mode: replicated-job
      replicas: 2
      restart_policy: {{condition: on-failure, max_attempts: 1}}
volumes:
  data:
"""


def test_a_job_is_up_when_it_is_done_is_not_done_twice_and_begins_anew_when_it_changes(shared: Host) -> None:
    shared.up("job", JOB.format(what="one"))
    assert said(shared, "job") == ["one"] * 2, "up returns when all of them are done"
    assert [task["state"] for task in shared.tasks("job")] == ["completed"] * 2
    assert "nothing changed" in shared.up("job", JOB.format(what="one")).stdout
    shared.up("job", JOB.format(what="two"))
    assert said(shared, "job")[2:] == ["two"] * 2
    failed = shared.up("job", JOB.format(what="bad"), check=False)
    assert failed.returncode == 1 and " failed: exit 1; back to revision 2" in failed.stderr, failed
    assert 3 <= said(shared, "job")[4:].count("bad") <= 4, "the one that failed first was tried once more"
    assert said(shared, "job")[-2:] == ["two"] * 2, "the revision before is what its job does"
    shared.cli("start", "job/job")
    shared.wait("job", lambda d: d["converged"], "the job to be done once more")
    assert said(shared, "job")[-4:] == ["two"] * 4
    shared.down("job", "--volumes")
