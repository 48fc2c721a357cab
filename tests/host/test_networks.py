"""Networks of real stacks: who reaches whom, by which names, and what a container without one has."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

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


def first(host: Host, stack: str, name: str) -> Path:
    """/proc/PID of a service's first container."""
    (task,) = [task for task in host.tasks(stack, name) if task["slot"] == 1]
    return Path(f"/proc/{task['pid']}")


def asked(host: Host, stack: str, name: str, peer: str) -> str:
    """The peer's host name, or why it does not come."""
    enter = ("nsenter", f"--target={first(host, stack, name).name}", "--all", "--")
    command = (*enter, "python3", "-c", ASK, peer)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout + done.stderr).strip()


def hosts(host: Host, stack: str, name: str) -> str:
    return (first(host, stack, name) / "root/etc/hosts").read_text()


def names(host: Host, stack: str, name: str) -> set[str]:
    found = set(hosts(host, stack, name).split())
    assert name in found
    return found


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


def probing(*peers: str) -> str:
    """A healthcheck that needs them all."""
    test = ["CMD", "python3", "-c", "import socket, sys\nfor p in sys.argv[1:]: socket.create_connection((p, 8000), 2)"]
    return f"healthcheck: {{test: {json.dumps([*test, *peers])}, interval: 200ms, timeout: 5s, retries: 200}}"


def test_a_healthcheck_calls_its_own_service(shared: Host) -> None:
    """By its name, which is its own address; by an alias, which is the virtual one: it comes back to itself."""
    text = "services:\n" + service("app", SERVER, "networks: {default: {aliases: [me]}}", probing("app", "me"))
    shared.up("netself", text)
    try:
        (task,) = shared.tasks("netself", "app")
        assert task["health"] == "healthy"
        lines = hosts(shared, "netself", "app").splitlines()
        assert f"{task['address']}\tapp" in lines and f"{task['address']}\tme" not in lines
        assert sum(line.endswith("\tme") for line in lines) == 1
    finally:
        shared.down("netself")


def test_a_group_whose_members_need_each_other_before_they_are_healthy(shared: Host) -> None:
    members = ("one", "two", "three")
    shared.up("netgroup", "services:\n" + "".join(service(name, SERVER, probing(*members)) for name in members))
    try:
        assert {task["health"] for task in shared.tasks("netgroup")} == {"healthy"}
    finally:
        shared.down("netgroup")


MANY = """
import os, socket
def asked():
    try:
        return os.read(0, 1)
    except BlockingIOError:
        return b"more"
os.set_blocking(0, False)
failed, heard = 0, {}
while asked():
    try:
        said = socket.create_connection(("web", 8000), 5).recv(99).decode()
        heard[said] = heard.get(said, 0) + 1
    except OSError as error:
        failed += 1
print(failed, len(heard), min(heard.values()))
"""


def test_no_request_fails_while_tasks_come_and_go(shared: Host) -> None:
    """And the name, the address behind it and the containers that use them stay as they are."""
    shared.up(
        "netvip",
        "services:\n"
        + service("web", SERVER, "deploy: {replicas: 3}", probing("127.0.0.1"))
        + service("client", SERVER),
    )
    try:
        before = hosts(shared, "netvip", "client")
        addresses = {task["address"] for task in shared.tasks("netvip", "web")}
        assert before.count("\tweb\n") == 1 and not addresses & set(before.split())
        enter = ("nsenter", f"--target={first(shared, 'netvip', 'client').name}", "--all", "--", "python3", "-c", MANY)
        with subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
            shared.cli("scale", "netvip", "web=1")
            shared.wait("netvip", lambda stack: len(shared.tasks("netvip", "web")) == 1, "two to go")
            shared.cli("scale", "netvip", "web=3")
            shared.wait("netvip", lambda stack: stack["converged"], "two to come")
            said = load.communicate(timeout=30)[0]
        failed, names, fewest = map(int, said.split())
        assert (failed, names) == (0, 3) and fewest > 0
        assert hosts(shared, "netvip", "client") == before
    finally:
        shared.down("netvip")
