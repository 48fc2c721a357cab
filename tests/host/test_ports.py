"""Published ports of real stacks: who is met where, who has what, and what stays when things are killed."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from tests.host.test_networks import SERVER, service
from tests.support.host import Host, free_port, until
from tests.support.leaks import FORWARDING

pytestmark = pytest.mark.host

ECHO = """
import socket
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("0.0.0.0", 8001))
while True:
    data, client = ear.recvfrom(100)
    ear.sendto(data.upper(), client)
"""


def met(address: str, port: int) -> str:
    """Who answers; "" when nobody does."""
    try:
        with socket.create_connection((address, port), 5) as talk:
            return talk.recv(99).decode()
    except OSError:
        return ""


def echoed(address: str, port: int) -> bytes:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((address, port))
        try:
            client.send(b"hello")
            return client.recv(100)
        except OSError:
            return b""


def ports(host: Host, stack: str) -> dict[str, Any]:
    """By service and port of the container."""
    rows = json.loads(host.cli("ports", stack, "--json").stdout)["ports"]
    return {f"{row['service']} {row['target']}": row for row in rows}


def test_published_ports(shared: Host) -> None:
    first, udp = free_port(), free_port()
    text = (
        "services:\n"
        + service("web", SERVER, "hostname: the-web", f'ports: ["{first}-{first + 9}:8000", "127.0.0.1::9000"]')
        + service(
            "echo",
            json.dumps(["python3", "-c", ECHO]),
            f"ports: [{{target: 8001, published: {udp}, protocol: udp, mode: host}}]",
        )
    )
    with socket.create_server(("127.0.0.1", first)):
        shared.up("ports", text)
    try:
        found = ports(shared, "ports")
        web, other = found["web 8000"]["published"], found["web 9000"]
        assert first < web <= first + 9, "the first of the range was in use"
        reached = {name: row["reach"] for name, row in found.items()}
        assert reached == {"web 8000": "everyone", "web 9000": "this host", "echo 8001": "everyone"}
        for address in ("127.0.0.1", "::1"):
            until(lambda address=address: met(address, web) == "the-web", f"an answer on {address}")
            until(lambda address=address: echoed(address, udp) == b"HELLO", f"an echo on {address}")

        shared.cli("restart", "ports/web")
        assert ports(shared, "ports")["web 8000"]["published"] == web
        shared.kill_daemon("agent")
        assert met("127.0.0.1", web) == "the-web", "without an agent"
        shared.wait_ready()
        until(lambda: met("::1", web) == "the-web", "the next agent to answer on ::1")
        again = ports(shared, "ports")
        assert (again["web 8000"]["published"], again["web 9000"]["published"]) == (web, other["published"])

        for port, holder in ((web, "stack ports (service web)"), (udp, "stack ports (service echo)")):
            kind = "/udp" if port == udp else ""
            taken = "services:\n" + service("late", SERVER, f'ports: ["127.0.0.1:{port}:8000{kind}"]')
            done = shared.up("late", taken, check=False)
            assert done.returncode == 1 and f"port {port}{kind} is held by {holder}" in done.stderr

        shared.cli("stop", "ports/web")
        assert met("127.0.0.1", web) == met("::1", web) == ""
        assert ports(shared, "ports")["web 8000"]["state"] == "closed"
        with socket.create_server(("::1", web), family=socket.AF_INET6):
            done = shared.cli("start", "ports/web", check=False)
            assert done.returncode == 0, "what it was given stays its own"
    finally:
        shared.down("ports")


def test_a_program_that_has_a_port_on_one_address_is_named(shared: Host) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as foreign:
        port = foreign.getsockname()[1]
        text = "services:\n" + service("web", SERVER, f'ports: ["{port}:8000"]')
        done = shared.up("taken", text, check=False)
        assert done.returncode == 1
        assert f"port {port} is in use by" in done.stderr and f"(pid {os.getpid()})" in done.stderr
        shared.up("taken", text.replace(f'"{port}:', f'"127.0.0.1:{port}:'))
        shared.down("taken")


def test_doctor_names_what_is_changed_while_containers_run(shared: Host) -> None:
    shared.up("changes", "services:\n" + service("web", SERVER))
    try:
        findings = json.loads(shared.cli("doctor", "--json", check=False).stdout)["findings"]
        said = [finding["text"] for finding in findings if finding["what"] == "sysctls"]
        before = json.loads(FORWARDING.read_text())["before"]
        assert len(said) == (before == "0"), "nothing, on a host that forwarded before"
        assert all("net.ipv4.ip_forward: 0 → 1" in text for text in said)
        assert all(finding["cure"] for finding in findings if finding["what"] == "firewall")
    finally:
        shared.down("changes")
