"""network_mode with real containers: the host's network, and that of another service or container."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.host.test_networks import SERVE, SERVER, asked, first, hosts, service, serving
from tests.support.host import Host, until

pytestmark = pytest.mark.host


def space(host: Host, stack: str, name: str, kind: str = "net") -> int:
    return (first(host, stack, name) / "ns" / kind).stat().st_ino


def mounts(process: Path) -> dict[str, set[str]]:
    """Mount point → its options."""
    found = {}
    for line in (process / "mountinfo").read_text().splitlines():
        words = line.split()
        found[words[4]] = set(words[5].split(","))
    return found


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def test_in_the_network_of_the_host(shared: Host) -> None:
    port = free_port()
    server = SERVE.replace("8000", str(port))
    text = (
        "services:\n"
        + service("web", SERVER, "hostname: the-web")
        + service(
            "agent",
            json.dumps(["python3", "-c", server]),
            "network_mode: host",
            'ports: ["80:80"]',
            f"x-gorae-healthcheck: {{tcp: {{port: {port}}}, interval: 200ms}}",
        )
        + service("old", SERVER, "networks: [outside]")
        + "networks: {outside: {external: true, name: host}}\n"
    )
    done = shared.up("nethost", text)
    try:
        assert "agent is in the host's own network" in done.stderr and "ports of agent are ignored" in done.stderr
        (task,) = shared.tasks("nethost", "agent")
        assert (task["health"], task["address"], task["ports"]) == ("healthy", None, [])
        own = Path("/proc/self/ns/net").stat().st_ino
        assert space(shared, "nethost", "agent") == space(shared, "nethost", "old") == own
        assert space(shared, "nethost", "agent", "user") != Path("/proc/self/ns/user").stat().st_ino
        with socket.create_connection(("127.0.0.1", port), 5) as talk:
            assert talk.recv(99)
        process = first(shared, "nethost", "agent")
        below = {point: options for point, options in mounts(process).items() if f"{point}/".startswith("/sys/")}
        assert below and all("ro" in options for options in below.values())
        serving(shared, "nethost", "web")
        assert "\tweb\n" in hosts(shared, "nethost", "agent")
        assert asked(shared, "nethost", "agent", "web") == "the-web"
        assert (process / "root/etc/resolv.conf").read_text() == Path("/etc/resolv.conf").read_text()
        assert "agent" not in hosts(shared, "nethost", "web").split()
    finally:
        shared.down("nethost")


def test_in_the_network_of_another(shared: Host) -> None:
    """By service and, from another stack, by container_name; and what happens when the other is made anew."""
    sleep = '["python3", "-c", "import time; time.sleep(86400)"]'
    text = (
        "services:\n"
        + service("vpn", SERVER, "hostname: the-vpn", "container_name: the-tunnel", "environment: {TURN: '1'}")
        + service("side", sleep, "network_mode: service:vpn")
        + service("peer", SERVER)
    )
    shared.up("netside", text)
    shared.up("netfar", "services:\n" + service("far", sleep, "network_mode: container:the-tunnel", "restart: always"))
    try:
        serving(shared, "netside", "vpn", "peer")
        for stack, name in (("netside", "side"), ("netfar", "far")):
            for kind in ("net", "user"):
                assert space(shared, stack, name, kind) == space(shared, "netside", "vpn", kind)
            assert asked(shared, stack, name, "127.0.0.1") == "the-vpn"
            assert asked(shared, stack, name, "peer") == "peer-1"
            assert asked(shared, stack, name, "tasks.peer") == "peer-1", "look-ups are the other's"
        (vpn,), (side,) = shared.tasks("netside", "vpn"), shared.tasks("netside", "side")
        assert side["address"] == vpn["address"]

        (far,) = shared.tasks("netfar", "far")
        shared.cli("restart", "netside", "vpn")
        shared.wait("netside", lambda stack: stack["converged"], "the restart")
        serving(shared, "netside", "vpn")
        assert shared.tasks("netfar", "far")[0]["pid"] == far["pid"], "a restart keeps the network, and who is in it"
        assert asked(shared, "netfar", "far", "127.0.0.1") == "the-vpn"

        (first(shared, "netside", "side") / "root/left").write_text("behind")
        shared.up("netside", text.replace("'1'", "'2'"))
        for stack, name in (("netside", "side"), ("netfar", "far")):

            def moved(stack: str = stack, name: str = name) -> bool:
                live = all(task["pid"] for task in [*shared.tasks(stack, name), *shared.tasks("netside", "vpn")])
                return live and space(shared, stack, name) == space(shared, "netside", "vpn")

            until(moved, f"{name} to follow", tell=lambda: shared.log())
            until(
                lambda stack=stack, name=name: asked(shared, stack, name, "peer") == "peer-1", f"{name} to reach peer"
            )
        assert not (first(shared, "netside", "side") / "root/left").exists(), "with other ids it begins anew"
        assert shared.tasks("netside", "side")[0]["id"] == side["id"]

    finally:
        shared.down("netfar")
        shared.down("netside")
