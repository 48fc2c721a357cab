"""What takes room on the disk, with real containers: written by them, logged by them, and freed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import import_images, service
from tests.support.host import Host, until

pytestmark = pytest.mark.host
MB = 1 << 20


def df(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.cli("df", "--json").stdout)
    return found


def row(usage: dict[str, Any], stack: str) -> dict[str, Any]:
    (found,) = [task for task in usage["tasks"] if task["stack"] == stack]
    assert isinstance(found, dict)
    return found


def test_what_a_container_writes_is_its_own_until_it_is_gone(shared: Host) -> None:
    before = df(shared)
    write = "dd if=/dev/zero of=/file bs=1M count=50; dd if=/dev/zero of=/data/file bs=1M count=20; ln /file /again"
    shared.up(
        "writer",
        service(f"{write}; echo done; sleep 3600", "volumes: ['data:/data']") + "volumes: {data: {}}\n",
    )
    until(lambda: "done" in shared.cli("logs", "writer").stdout, "it to have written")
    usage = df(shared)
    task = row(usage, "writer")
    assert (task["service"], task["slot"], task["state"]) == ("app", 1, "running")
    assert 50 * MB <= task["writable"] < 52 * MB, "a file with two names counts once"
    assert 0 < task["logs"] < MB
    (volume,) = [one for one in usage["volumes"] if one["name"] == "writer_data"]
    assert 20 * MB <= volume["size"] < 21 * MB and volume["used_by"] == "writer/app"
    kinds, was = usage["kinds"], before["kinds"]
    assert kinds["writable"]["active"] == was["writable"]["active"] + 1
    assert kinds["writable"]["reclaimable"] == was["writable"]["reclaimable"]
    table = shared.cli("df", "-v").stdout
    assert any(line.split()[:1] == ["writer/app.1"] and "52." in line for line in table.splitlines()), table
    assert all(len(line) <= 80 for line in table.splitlines())

    shared.cli("stop", "writer")
    stopped = df(shared)
    assert row(stopped, "writer")["state"] == "stopped"
    assert stopped["kinds"]["writable"]["reclaimable"] >= was["writable"]["reclaimable"] + 50 * MB
    shared.cli("start", "writer")

    shared.down("writer")
    after = df(shared)
    assert not [task for task in after["tasks"] if task["stack"] == "writer"]
    assert after["kinds"]["writable"] == was["writable"] and after["kinds"]["logs"] == was["logs"]
    (volume,) = [one for one in after["volumes"] if one["name"] == "writer_data"]
    assert volume["used_by"] == "" and volume["size"] >= 20 * MB, "down keeps data, which df calls reclaimable"
    assert after["kinds"]["volumes"]["reclaimable"] == was["volumes"]["reclaimable"] + volume["size"]
    shared.cli("volume", "rm", "writer_data")
    assert df(shared)["kinds"]["volumes"] == was["volumes"]


@pytest.fixture
def frugal(tars: dict[str, Path]) -> Iterator[Host]:
    """Its logs may take 4 MiB."""
    host = Host()
    (host.root / "etc").mkdir(mode=0o755)
    (host.root / "etc/gorae.toml").write_text('[logs]\nbudget = "4m"\n')
    with host:
        import_images(host, tars)
        yield host


def test_a_flood_of_logs_keeps_to_the_budget(frugal: Host) -> None:
    """80 MB of it. What is being written stays: the last lines of each are there."""
    frugal.up("dead", service("seq 100000; echo last words", "restart: 'no'"), "--no-wait")
    frugal.wait_task("dead", "app", lambda task: task["state"] == "completed", "the job to end")
    frugal.up("quiet", service("echo hello; sleep 3600"))
    line = "x" * 100
    flood = f"i=0; while [ $i -lt 40 ]; do yes {line} | head -n 20000; i=$((i+1)); sleep 0.2; done"
    frugal.up("flood", service(f"{flood}; while true; do echo end; sleep 0.1; done"))
    budget = df(frugal)["log_budget"]
    assert budget == 4 * MB

    def last(stack: str) -> str:
        return frugal.cli("logs", stack, "--tail", "1").stdout

    until(lambda: "end" in last("flood"), "the flood to end", tell=lambda: last("flood"))
    until(
        lambda: bool(df(frugal)["kinds"]["logs"]["size"] <= budget),
        "the logs to be within their budget",
        tell=lambda: json.dumps(df(frugal)["tasks"]) + frugal.log(),
    )
    assert "hello" in last("quiet") and "end" in last("flood")
    told = [json.loads(line) for line in frugal.stream("/v1/events?limit=1000")]
    (dropped,) = [event for event in told if event["kind"] == "agent.logs-dropped"]
    assert dropped["evidence"]["budget"] == budget and dropped["evidence"]["files"] >= 1
    for stack in ("flood", "dead", "quiet"):
        frugal.down(stack)
    assert df(frugal)["kinds"]["logs"] == {"total": 0, "active": 0, "size": 0, "reclaimable": 0}
