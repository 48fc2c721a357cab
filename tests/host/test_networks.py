"""Networks of real stacks: who reaches whom, by which names, and what a container without one has."""

from __future__ import annotations

import json
import subprocess
import textwrap

import pytest

from tests.support.host import Host, until

pytestmark = pytest.mark.host

SERVE = """
import socket
ear = socket.create_server(("0.0.0.0", 8000), backlog=64)
while True:
    talk, _ = ear.accept()
    talk.sendall(socket.gethostname().encode())
    talk.close()
"""
ASK = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], 8000), 5).recv(99).decode())
except OSError as error:
    print(error)
"""
SERVER = json.dumps(["python3", "-c", SERVE])


def service(name: str, command: str, *lines: str) -> str:
    text = f"{name}:\n  image: gorae/visits-web:1\n  command: {command}\n  stop_grace_period: 100ms\n"
    return textwrap.indent(text + "".join(f"  {line}\n" for line in lines), "  ")


def inside(host: Host, stack: str, name: str, *command: str) -> str:
    """What a command says in a service's first container."""
    (task,) = [task for task in host.tasks(stack, name) if task["slot"] == 1]
    enter = ("nsenter", f"--target={task['pid']}", "--all", "--")
    done = subprocess.run((*enter, *command), capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout + done.stderr).strip()


def asked(host: Host, stack: str, name: str, peer: str) -> str:
    """The peer's host name, or why it does not come."""
    return inside(host, stack, name, "python3", "-c", ASK, peer)


def names(host: Host, stack: str, name: str) -> set[str]:
    return set(inside(host, stack, name, "cat", "/etc/hosts").split())


def serving(host: Host, stack: str, *services: str) -> None:
    for name in services:
        until(lambda name=name: "refused" not in asked(host, stack, name, "127.0.0.1"), f"{name} to serve")


def test_stacks_meet_on_a_network_that_both_name(shared: Host) -> None:
    shared.up(
        "netblog",
        "services:\n"
        + service("app", SERVER, "hostname: the-app", "networks: {web: {aliases: [blog]}, default: }")
        + service("db", SERVER, "hostname: the-db")
        + "networks: {web: {external: true, name: net-shared}}\n",
    )
    shared.up(
        "netedge",
        "services:\n"
        + service("proxy", SERVER, "hostname: the-proxy", "networks: [web]")
        + service("job", SERVER, "network_mode: none")
        + "networks: {web: {name: net-shared}}\n",
    )
    try:
        serving(shared, "netblog", "app", "db")
        serving(shared, "netedge", "proxy", "job")
        assert asked(shared, "netedge", "proxy", "blog") == "the-app"
        assert asked(shared, "netedge", "proxy", "app") == "the-app"
        assert asked(shared, "netblog", "app", "proxy") == "the-proxy"
        assert asked(shared, "netblog", "app", "db") == "the-db"
        assert "db" not in names(shared, "netedge", "proxy")
        (db,) = shared.tasks("netblog", "db")
        assert "refused" in asked(shared, "netedge", "proxy", db["address"])
        assert asked(shared, "netedge", "job", "127.0.0.1") == "job-1"
        assert "unreachable" in asked(shared, "netedge", "job", db["address"])
        pids = shared.pids("netblog")
        shared.down("netedge")
        assert "proxy" not in names(shared, "netblog", "app"), "names go with their stack"
        assert shared.pids("netblog") == pids
    finally:
        shared.down("netblog")


def test_an_internal_network_leads_nowhere_else(shared: Host) -> None:
    text = (
        "services:\n"
        + service("db", SERVER, "networks: [back]")
        + service("app", SERVER, "networks: [back, front]")
        + "networks: {back: {internal: true}, front: }\n"
    )
    shared.up("netinside", text)
    try:
        serving(shared, "netinside", "db", "app")
        assert asked(shared, "netinside", "app", "db") == "db-1"
        assert asked(shared, "netinside", "db", "app") == "app-1"
        assert "refused" in asked(shared, "netinside", "db", "192.0.2.1")
        first = shared.pids("netinside")
        shared.up("netinside", text.replace("{internal: true}", ""))
        second = shared.pids("netinside")
        assert not set(first.values()) & set(second.values()), "another network is another container"
        shared.up("netguest", "services:\n" + service("web", SERVER) + "networks: {default: {name: netinside_front}}\n")
        serving(shared, "netinside", "app")
        assert asked(shared, "netguest", "web", "app") == "app-1"
    finally:
        shared.down("netinside")
        shared.down("netguest")
