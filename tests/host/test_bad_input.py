"""Bad input and a bad host: one paragraph that names the thing and the next step, an exit code, and what ran runs on."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import host_on_a_disk, import_images
from tests.support.host import Host, free_port, until

pytestmark = pytest.mark.host

GOOD = """
services:
  app: {image: "gorae/busybox:1", command: [sleep, "3600"], restart: always, stop_grace_period: 100ms}
"""


@pytest.fixture
def running(shared: Host) -> Iterator[dict[str, int]]:
    """A stack that must not notice anything."""
    shared.up("good", GOOD)
    pids = shared.pids("good")
    yield pids
    assert shared.pids("good") == pids
    shared.down("good")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        pytest.param(
            'services: {app: {image: "127.0.0.1:1/no/such:1"}}',
            1,
            ["127.0.0.1:1/no/such:1", "try"],
            id="missing-image",
        ),
        pytest.param("services:\n  app: [\n", 2, ["compose.yaml:", "cannot"], id="syntax-error"),
        pytest.param(
            'services:\n  app:\n    image: "gorae/busybox:1"\n    helthcheck: {}\n',
            2,
            ["compose.yaml:4:5", "helthcheck", "healthcheck"],
            id="unknown-key",
        ),
        pytest.param(
            'services:\n  app:\n    image: "gorae/busybox:1"\n    privileged: true\n',
            2,
            ["compose.yaml:4", "privileged"],
            id="key-not-supported-yet",
        ),
        pytest.param(
            'services: {app: {image: "gorae/busybox:1", command: [no-such-command]}}',
            1,
            ["app", "no-such-command", "try"],
            id="no-such-command",
        ),
        pytest.param(
            'services: {app: {image: "gorae/busybox:1", command: [sh, -c, "echo the-last-words; exit 3"]}}',
            1,
            ["app", "exit 3", "the-last-words"],
            id="ends-at-once-with-its-log",
        ),
        pytest.param(
            'services: {app: {image: "gorae/busybox:1", command: [sleep, "9"], user: nobody-here}}',
            1,
            ["nobody-here"],
            id="unknown-user",
        ),
    ],
)
def test_bad_files(shared: Host, running: dict[str, int], text: str, code: int, says: list[str]) -> None:
    done = shared.up("bad", text, check=False)
    try:
        assert done.returncode == code, done.stdout + done.stderr
        assert "cannot" in done.stderr
        assert all(word in done.stderr for word in says), done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) < 12, done.stderr
    finally:
        shared.cli("down", "bad", check=False)


def test_a_port_in_use_is_refused_and_its_holder_named(shared: Host, running: dict[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        text = GOOD.replace("restart: always", f'restart: always, ports: ["{port}:80"]')
        done = shared.up("bad", text, check=False)
        assert done.returncode == 1
        assert str(port) in done.stderr and str(os.getpid()) in done.stderr and "try" in done.stderr
    port = free_port()
    text = GOOD.replace("restart: always", f'restart: always, ports: ["{port}:80"]')
    shared.up("first", text)
    try:
        done = shared.up("bad", text, check=False)
        assert done.returncode == 1
        assert f"port {port}" in done.stderr and "stack first" in done.stderr
        assert shared.get("/v1/stacks")["stacks"][0]["name"] != "bad"
    finally:
        shared.down("first")


def test_more_memory_than_the_host_has_is_refused(shared: Host, running: dict[str, int]) -> None:
    text = GOOD.replace("restart: always", "restart: always, mem_reservation: 4000g")
    done = shared.up("bad", text, check=False)
    assert done.returncode == 1 and "memory" in done.stderr and "try" in done.stderr


def test_an_unreachable_daemon() -> None:
    host = Host()
    try:
        done = host.cli("status", check=False)
        assert done.returncode == 3
        assert "cannot reach gorae" in done.stderr and "gorae daemon" in done.stderr
    finally:
        host.destroy()


def fill(path: Path) -> None:
    for piece in (65536, 512):  # to the last block: a small stack needs little
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as ballast:
            while ballast.write(b"x" * piece) == piece:
                pass


def test_an_agent_whose_disk_is_full_says_so_and_goes_on_by_itself_once_there_is_room(tars: dict[str, Path]) -> None:
    host = Host()
    journals = host.root / "state" / "agent"  # alone on a small disk: the orchestrator can store what the agent cannot
    journals.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(journals)], check=True)
    try:
        host.start()
        import_images(host, tars, "busybox")
        host.up("good", GOOD)
        pids = host.pids("good")
        fill(journals / "ballast")
        more = str(host.compose("more", GOOD))
        applied = host.cli("up", "-f", more, "-p", "more", check=False)
        assert applied.returncode == 1 and host.tasks("more")[0]["state"] == "pending"
        said = f"cannot write the journal journal.db: no space left on the disk of {journals}"
        assert f"cannot bring up more: {said}\ntry  free some of it" in applied.stderr, applied.stderr
        host.kill_daemon("agent")  # one that cannot even begin
        until(lambda: not host.get("/v1/version")["agent"]["online"], "the agent's end to be noticed")
        until(lambda: bool(host.get("/v1/version")["troubles"]), "the new agent to tell its trouble", tell=host.log)
        assert said in host.cli("status").stderr
        doctor = host.cli("doctor", "--json", check=False)
        assert said in [found["text"] for found in json.loads(doctor.stdout)["findings"] if found["state"] == "bad"]
        assert host.pids("good") == pids
        (journals / "ballast").unlink()
        host.wait("more", lambda document: bool(document["converged"]), "the rest to go on by itself")
        assert host.pids("good") == pids and host.get("/v1/version")["troubles"] == []
    finally:
        host.close()


def test_a_full_disk_is_said_and_touches_nothing_that_runs(tars: dict[str, Path]) -> None:
    with host_on_a_disk(128 * 1024 * 1024) as host:
        host.start()
        import_images(host, tars, "busybox")
        host.up("good", GOOD)
        pids = host.pids("good")
        more = str(host.compose("more", GOOD))
        fill(host.root / "ballast")
        imported = host.cli(
            "image", "import", str(tars["redis"]), "--config", f"{tars['redis']}.json", "gorae/redis:7", check=False
        )
        assert imported.returncode == 1
        assert "cannot" in imported.stderr and "free" in imported.stderr, imported.stderr
        applied = host.cli("up", "-f", more, "-p", "more", check=False)
        assert applied.returncode == 1, applied.stdout
        assert "cannot" in applied.stderr and "try" in applied.stderr and "Traceback" not in applied.stderr
        assert {pid: True for pid in pids.values() if Path(f"/proc/{pid}").exists()} == dict.fromkeys(
            pids.values(), True
        )
        (host.root / "ballast").unlink()
        host.cli("up", "-f", more, "-p", "more")
        assert host.pids("good") == pids
        host.down("more")
        host.down("good")
