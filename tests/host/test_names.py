"""Look-ups of real containers, by dig and by the image's own libc: through deaths of the agent and of the resolver,
beside a name server of the task's own, and by nginx that asks 127.0.0.11 as it does under Docker."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import PATIENCE, Host, until

pytestmark = pytest.mark.host

STACK = """
services:
  web:
    image: gorae/visits-web:1
    command: [python3, -S, -c, "import time; time.sleep(1e6)"]
    stop_signal: SIGKILL
    networks: {default: {aliases: [shopfront]}}
    deploy: {replicas: 2}
  db:
    image: gorae/busybox:1
    command: [sleep, "1000000"]
    stop_signal: SIGKILL
    hostname: base
"""

# Looks a name up as fast as it can, each time over a socket of its own; at its end it says how many, how many without
# the right answer, and the longest wait in seconds.
LOOKER = """
import os, signal, socket, sys, time
name = b"".join(bytes([len(l)]) + l.encode() for l in sys.argv[1].split(".")) + b"\\0"
count = failed = 0
longest, going = 0.0, True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
print("begun", flush=True)
while going:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect(("127.0.0.11", 53))
        asked, began = os.urandom(2), time.monotonic()
        try:
            s.send(asked + b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + b"\\0\\1\\0\\1")
            answer = s.recv(4096)
            good = answer[:2] == asked and answer[3] & 15 == 0 and answer[7] > 0
        except OSError:
            good = False
        count, failed = count + 1, failed + (not good)
        longest = max(longest, time.monotonic() - began)
print(count, failed, longest)
"""


class Inside:
    """The network of a running task, for programs of the host."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.enter = ["nsenter", "-t", str(pid), "-n"]

    def dig(self, *arguments: str) -> list[str]:
        """The lines of `dig +short`."""
        done = subprocess.run(
            [*self.enter, "dig", "+short", "+tries=1", "@127.0.0.11", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return sorted(done.stdout.split("\n")[:-1])

    def python(self, code: str) -> str:
        """In the container itself, with its libc and its files."""
        done = subprocess.run(
            [*self.enter, "-m", "-u", "-U", "--preserve-credentials", "/bin/python3", "-S", "-c", code],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def running(self, *command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen([*self.enter, *command], text=True, stdout=subprocess.PIPE, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def looking_up(self, name: str) -> Iterator[list[float]]:
        """Without a pause. Afterwards the list holds: look-ups, those that failed, the longest wait."""
        found: list[float] = []
        with self.running(sys.executable, "-c", LOOKER, name) as process:
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            yield found
            process.send_signal(signal.SIGTERM)
            found += map(float, process.stdout.read().split())


def inside(host: Host, stack: str, service: str) -> Inside:
    return Inside(next(task["pid"] for task in host.tasks(stack, service) if task["pid"]))


def addresses(host: Host, stack: str, service: str) -> list[str]:
    return sorted(task["address"] for task in host.tasks(stack, service))


def back(host: Host, name: str, pid: int) -> None:
    until(lambda: host.daemons().get(name, pid) != pid, f"another {name}")


def test_every_kind_of_name(shared: Host) -> None:
    shared.up("names", STACK)
    web, db = addresses(shared, "names", "web"), addresses(shared, "names", "db")
    task = inside(shared, "names", "db")
    (service,) = task.dig("web")
    for over in ((), ("+tcp",)):
        for name in ("web", "WEB", "shopfront", "web.names_default", "shopfront.names_default"):
            assert task.dig(*over, name) == [service], name
        assert task.dig(*over, "tasks.web") == web
        assert task.dig(*over, "-x", service) == ["web.names_default."]
        assert task.dig(*over, "db") == task.dig(*over, "base") == db, "its own name means itself"
        assert sorted([*task.dig(*over, "names-web-1"), *task.dig(*over, "names-web-2")]) == web
        assert task.dig(*over, "-t", "AAAA", "web") == []
        assert task.dig(*over, "-x", db[0]) == ["names-db-1.names_default."]
    assert task.dig("nobody") == []
    own = inside(shared, "names", "web")
    assert len(own.dig("web")) == 1 and len(own.dig("tasks.web")) == 2
    resolv = Path(f"/proc/{own.pid}/root/etc/resolv.conf").read_text()
    assert resolv.startswith("nameserver 127.0.0.11\n") and "ndots:0" in resolv
    assert own.dig("db")[0] in own.python("import socket; print(socket.gethostbyname('db'))")
    shared.cli("scale", "names", "web=3")
    until(lambda: len(task.dig("tasks.web")) == 3, "the third task's address")
    shared.down("names")


def test_another_stack_is_another_world_unless_they_share_a_network(shared: Host) -> None:
    shared.up("one", "services: {alpha: {image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL}}")
    shared.up("two", "services: {beta: {image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL}}")
    assert inside(shared, "two", "beta").dig("alpha") == []
    assert inside(shared, "one", "alpha").dig("alpha") == addresses(shared, "one", "alpha")
    for stack in ("one", "two"):
        shared.down(stack)


@pytest.mark.parametrize("victims", [("agent",), ("resolver",), ("orchestrator", "broker")], ids=" and ".join)
def test_a_daemon_killed_costs_no_look_up_but_the_resolver_s_own(own: Host, victims: tuple[str, ...]) -> None:
    own.up("names", STACK)
    task = inside(own, "names", "db")
    with task.looking_up("web") as found:
        for _ in range(3):
            for victim in victims:
                back(own, victim, own.kill_daemon(victim))
            own.wait_ready()
            assert task.dig("web")
    count, failed, longest = found
    if victims == (
        "resolver",
    ):  # what it was answering as it died is lost: its asker tries again, as resolv.conf(5) says
        assert failed <= 3 and count > 20, f"{failed} of {count}"
    else:
        assert failed == 0 and count > 100 and longest < 1.0, (count, failed, longest)


def test_both_killed_at_once_are_back_by_themselves(own: Host) -> None:
    """Nobody holds the sockets then: they are made anew."""
    own.up("names", STACK)
    task = inside(own, "names", "db")
    before = own.daemons()
    for name in ("agent", "resolver"):
        own.kill_daemon(name)
    until(lambda: all(own.daemons().get(name, before[name]) != before[name] for name in ("agent", "resolver")), "both")
    web = addresses(own, "names", "web")
    until(lambda: sorted(_answers(task, "@127.0.0.11", "tasks.web")) == web, "look-ups to work again", patience=10)
    own.wait_ready()


def test_tasks_find_each_other_while_all_of_gorae_is_down(own: Host) -> None:
    own.up("names", STACK)
    task = inside(own, "names", "web")
    db = task.dig("db")
    own.stop()
    assert task.python("import socket; print(socket.gethostbyname('db'))").split() == db
    own.start()
    until(lambda: _answers(task, "@127.0.0.11", "db") == db, "look-ups to work again", patience=10)


def test_the_resolver_has_no_privileges(shared: Host) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{shared.daemons()['resolver']}/status").read_text().splitlines()
    )
    assert {*status["Uid"].split(), *status["Gid"].split()}.isdisjoint({"0"})
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Groups"].strip() == ""


def test_a_task_may_run_a_name_server_of_its_own_on_every_address(shared: Host) -> None:
    shared.up("names", STACK)
    task = inside(shared, "names", "db")
    web = task.dig("web")
    dnsmasq = (
        "dnsmasq",
        "-k",
        "-C",
        "/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file",
        "--port=53",
    )
    with task.running(*dnsmasq, "--address=/inside.test/192.0.2.7", stderr=subprocess.PIPE) as process:
        until(
            lambda: _answers(task, "@127.0.0.1", "inside.test") == ["192.0.2.7"],
            "dnsmasq to answer",
            patience=10,
            tell=lambda: str(process.poll()),
        )
        assert task.dig("web") == web and task.dig("+tcp", "web") == web
        assert _answers(task, "@127.0.0.1", "+tcp", "inside.test") == ["192.0.2.7"]
    shared.down("names")


def _answers(task: Inside, *arguments: str) -> list[str]:
    command = [*task.enter, "dig", "+short", "+tries=1", "+time=1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def test_nginx_resolves_by_it(shared: Host, tmp_path: Path) -> None:
    """The way of many images: `resolver 127.0.0.11` and a name in a variable, looked up at each request."""
    shared.up(
        "front",
        """
services:
  app:
    image: gorae/busybox:1
    command: [sh, -c, "echo hello > /tmp/index.html; exec httpd -f -p 8000 -h /tmp"]
    stop_signal: SIGKILL
  proxy: {image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL}
""",
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""
daemon off; user root; pid {tmp_path}/pid; error_log {tmp_path}/log;
events {{}}
http {{
    access_log off; resolver 127.0.0.11;
    server {{ listen 127.0.0.1:8088; location / {{ set $to app; proxy_pass http://$to:8000; }} }}
}}
"""
    )
    proxy = inside(shared, "front", "proxy")
    fetch = [*proxy.enter, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8088/"]
    with proxy.running("nginx", "-c", str(config)):
        until(
            lambda: subprocess.run(fetch, capture_output=True, text=True, check=False).stdout == "200",
            "an answer through nginx",
            patience=20,
            tell=lambda: (tmp_path / "log").read_text(),
        )
        shared.cli("recreate", "front/app")
        until(
            lambda: subprocess.run(fetch, capture_output=True, text=True, check=False).stdout == "200",
            "an answer of the new container",
            patience=20,
            tell=lambda: (tmp_path / "log").read_text(),
        )
    shared.down("front")


@pytest.fixture
def outside() -> Iterator[str]:
    """The address of a name server on the host that knows all names under outside.test, and stops at no other."""
    address = "198.51.100.53"
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    command = ["dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file"]
    command += ["--bind-interfaces", f"--listen-address={address}", "--address=/outside.test/192.0.2.80"]
    with subprocess.Popen(command) as process:
        try:
            yield address
        finally:
            process.kill()
            subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=True)


def test_what_a_file_says_of_names(shared: Host, outside: str) -> None:
    shared.up(
        "said",
        f"""
services:
  web:
    image: gorae/visits-web:1
    command: [python3, -S, -c, "import time; time.sleep(1e6)"]
    stop_signal: SIGKILL
    hostname: front
    domainname: example.org
    dns: {outside}
    dns_search: [outside.test]
    dns_opt: ["timeout:2"]
    extra_hosts: [printer=192.0.2.9]
    links: ["db:store"]
  db: {{image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL, container_name: the_db}}
""",
    )
    web = inside(shared, "said", "web")
    db = web.dig("db")
    resolv = Path(f"/proc/{web.pid}/root/etc/resolv.conf").read_text()
    assert resolv == "nameserver 127.0.0.11\nsearch outside.test\noptions timeout:2 ndots:0\n"
    assert web.dig("store") == db and web.dig("the_db") == addresses(shared, "said", "db")
    assert inside(shared, "said", "db").dig("store") == []
    assert web.dig("printer") == ["192.0.2.9"]
    for over in ((), ("+tcp",)):
        assert web.dig(*over, "www.outside.test") == ["192.0.2.80"]
    asked = "import socket; print([socket.gethostbyname(n) for n in ('store', 'printer', 'front', 'www')], socket.getfqdn())"
    own = addresses(shared, "said", "web")
    assert web.python(asked).strip() == f"{[*db, '192.0.2.9', *own, '192.0.2.80']} front.example.org"
    assert web.python("print(open('/proc/sys/kernel/domainname').read())").strip() == "example.org"
    shared.down("said")


def test_a_look_up_out_of_the_agents_reach_survives_it(own: Host, outside: str) -> None:
    """Names of the world, while the agent is killed again and again."""
    stack = f"services: {{db: {{image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL, dns: {outside}}}}}"
    own.up("names", stack)
    task = inside(own, "names", "db")
    with task.looking_up("www.outside.test") as found:
        for _ in range(3):
            back(own, "agent", own.kill_daemon("agent"))
            own.wait_ready()
    count, failed, _ = found
    assert failed == 0 and count > 100


def test_an_internal_network_leads_nowhere(shared: Host, outside: str) -> None:
    shared.up(
        "closed",
        f"""
networks: {{default: {{internal: true}}}}
services:
  one: {{image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL, dns: {outside}}}
  two: {{image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL}}
""",
    )
    one = inside(shared, "closed", "one")
    assert one.dig("tasks.two") == addresses(shared, "closed", "two")
    assert one.dig("www.outside.test") == []
    shared.down("closed")


def test_host_gateway_opens_the_host_for_one_service(shared: Host) -> None:
    shared.up(
        "guest",
        """
services:
  guest:
    image: gorae/busybox:1
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    extra_hosts: ["docker.internal:host-gateway"]
  other: {image: 'gorae/busybox:1', command: [sleep, '1000000'], stop_signal: SIGKILL}
""",
    )
    guest, other = inside(shared, "guest", "guest"), inside(shared, "guest", "other")
    assert guest.dig("docker.internal") == ["169.254.1.1"]
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = str(server.getsockname()[1])
        knock = ["curl", "-sS", "--connect-timeout", "5", f"telnet://169.254.1.1:{port}"]
        refused = subprocess.run([*other.enter, *knock], capture_output=True, text=True, check=False)
        assert refused.returncode == 7, "refused, and at once"
        with guest.running(*knock):
            server.settimeout(10)
            connection, (address, _) = server.accept()
            connection.close()
            assert [address] == addresses(shared, "guest", "guest")
    shared.down("guest")


def test_doctor_says_that_it_does_not_run(own: Host) -> None:
    def names() -> dict[str, str]:
        told = json.loads(own.cli("doctor", "--json", check=False).stdout)["findings"]
        return next(finding for finding in told if finding["what"] == "names")

    assert names()["state"] == "ok"
    own.stop()
    assert names()["state"] == "bad" and "resolver does not run" in names()["text"]
    own.start()
