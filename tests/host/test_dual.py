"""IPv6 and chosen addresses of real stacks, with curl, dig and an echo request."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.host.test_names import inside
from tests.host.test_networks import first, service
from tests.support.host import Host, until

pytestmark = pytest.mark.host

SERVE = """
import socket
ear = socket.socket(socket.AF_INET6)
ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
ear.bind(("::", 8000))
ear.listen(64)
while True:
    talk, client = ear.accept()
    talk.recv(9999)
    talk.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{socket.gethostname()} sees {client[0].removeprefix('::ffff:')}".encode())
    talk.close()
"""
SERVER = json.dumps(["python3", "-c", SERVE])
ECHO = """
import socket, sys
echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
echo.settimeout(5)
echo.sendto(bytes.fromhex("8000000000010001"), (sys.argv[1], 0))
print(echo.recvfrom(99)[0][0])
"""
FILE = (
    "services:\n"
    + service("web", SERVER, "ports: ['18680:8000']", "networks: [six]")
    + service("client", SERVER, "networks: [six, four]")
    + service("old", SERVER, "networks: [four]")
    + "networks: {six: {enable_ipv6: true, driver_opts: {com.docker.network.driver.mtu: 1300}}, four: }\n"
)


def curl(host: Host, stack: str, name: str, url: str, *options: str) -> str:
    """In the container's network and with its names: the answer, or the exit code of curl."""
    enter = ("nsenter", "-t", first(host, stack, name).name, "-n")
    done = subprocess.run(
        [*enter, "curl", "-sgm5", *options, url], capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout or f"curl {done.returncode}"


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


def link(host: Host, stack: str, name: str) -> str:
    return run(*inside(host, stack, name).enter, "ip", "link", "show", "eth0")


def refused(host: Host, stack: str, text: str) -> str:
    done = host.up(stack, text, check=False)
    assert done.returncode == 1
    return done.stderr


def ready(host: Host, stack: str, *names: str) -> None:
    for name in names:
        until(lambda name=name: "sees" in curl(host, stack, name, "http://[::1]:8000/"), f"{name} to serve")


def test_a_stack_in_both_families(shared: Host) -> None:
    shared.up("dualone", FILE)
    shared.up("dualtwo", "services:\n" + service("app", SERVER) + "networks: {default: {enable_ipv6: true}}\n")
    try:
        ready(shared, "dualone", "web", "client", "old")
        ready(shared, "dualtwo", "app")
        client, old = inside(shared, "dualone", "client"), inside(shared, "dualone", "old")
        (virtual,) = client.dig("web", "AAAA")
        (own,) = client.dig("tasks.web", "AAAA")
        (me,) = client.dig("tasks.client", "AAAA")
        assert all(address.startswith("fd67:6f72:6165:") for address in (virtual, own, me))
        assert client.dig("-x", own) == ["dualone-web-1.dualone_six."]
        assert f"{virtual}\tweb\n" in (first(shared, "dualone", "client") / "root/etc/hosts").read_text()
        assert old.dig("client", "AAAA") == [] != old.dig("client", "A")

        assert curl(shared, "dualone", "client", f"http://[{virtual}]:8000/", "-6") == f"web-1 sees {me}"
        looked = "import socket; print(socket.getaddrinfo('web', 8000, socket.AF_INET6, socket.SOCK_STREAM)[0][4][0])"
        assert client.python(looked) == f"{virtual}\n", "out of /etc/hosts"
        assert run(*client.enter, "python3", "-c", ECHO, virtual) == "129\n", "an echo reply"

        (other,) = inside(shared, "dualtwo", "app").dig("tasks.app", "AAAA")
        assert curl(shared, "dualone", "client", f"http://[{other}]:8000/") == "curl 7", "another stack is closed"
        assert curl(shared, "dualtwo", "app", f"http://[{own}]:8000/") == "curl 7"
        assert curl(shared, "dualone", "old", f"http://[{own}]:8000/") == "curl 7", "a network without IPv6"

        assert "mtu 1300 " in link(shared, "dualone", "client")
        listed = json.loads(run("ip", "-6", "-j", "address", "show", "scope", "global"))
        links = [one for one in listed if not one["ifname"].startswith(f"g{shared.instance}")]
        here = [address["local"] for one in links for address in one["addr_info"] if "local" in address]
        for url in (*(f"http://[{address}]:18680/" for address in (*here, "::1")), "http://127.0.0.1:18680/"):
            assert run("curl", "-sgm5", url).startswith("web-1 sees "), url
        assert run("curl", "-sgm5", f"http://[{virtual}]:8000/").startswith("web-1 sees "), "the host, as itself"
    finally:
        shared.down("dualone")
        shared.down("dualtwo")


MAC = "mac_address: 02:42:ac:1c:00:0a"
CHOSEN = (
    "services:\n"
    + service(
        "db",
        SERVER,
        MAC,
        "networks: {back: {ipv4_address: 172.31.77.10, ipv6_address: '2001:db8:77::a'}}",
    )
    + service("app", SERVER, "networks: [back]", "deploy: {replicas: 2}")
    + "networks:\n  back:\n    ipam:\n      config:\n        - subnet: 172.31.77.0/24\n        - subnet: 2001:db8:77::/64\n"
)


def test_chosen_addresses_are_kept_and_held(shared: Host) -> None:
    shared.up("dualfix", CHOSEN)
    try:
        ready(shared, "dualfix", "db")
        (db,) = shared.tasks("dualfix", "db")
        assert db["address"] == "172.31.77.10"
        apps = {task["address"] for task in shared.tasks("dualfix", "app")}
        assert len(apps) == 2 and all(address.startswith("172.31.77.") for address in apps)
        app = inside(shared, "dualfix", "app")
        assert app.dig("tasks.db", "A") == ["172.31.77.10"] and app.dig("tasks.db", "AAAA") == ["2001:db8:77::a"]
        (one,) = [task["address"] for task in shared.tasks("dualfix", "app") if task["pid"] == app.pid]
        assert curl(shared, "dualfix", "app", "http://172.31.77.10:8000/") == f"db-1 sees {one}"
        assert MAC.split()[1] in link(shared, "dualfix", "db")

        shared.up("dualfix", CHOSEN.replace(MAC, "labels: {new: 'yes'}"))
        (again,) = shared.tasks("dualfix", "db")
        assert (again["id"] != db["id"], again["address"]) == (True, "172.31.77.10")
        ready(shared, "dualfix", "db")
        assert curl(shared, "dualfix", "app", "http://[2001:db8:77::a]:8000/").startswith("db-1 sees 2001:db8:77::")

        taker = "services:\n" + service("x", SERVER, "networks: [n]")
        error = refused(shared, "dualtaker", taker + "networks: {n: {ipam: {config: [{subnet: 172.31.77.0/25}]}}}\n")
        assert "overlaps 172.31.77.0/24 of network dualfix_back (stack dualfix)" in error
        error = refused(shared, "dualfix", CHOSEN.replace(MAC, "deploy: {replicas: 2}"))
        assert "an address belongs to one" in error
        (still,) = shared.tasks("dualfix", "db")
        assert still["id"] == again["id"], "a refusal changes nothing"
    finally:
        shared.down("dualfix")
