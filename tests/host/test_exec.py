"""gorae exec with real programs in real containers: on a terminal as a person has it, in pipes, and cut off."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.host.conftest import service
from tests.support.host import CLI, Host, container_pids, until

pytestmark = pytest.mark.host
PATIENCE = 30
MEBIBYTES = 50


@pytest.fixture(scope="module")
def host(shared: Host) -> Iterator[Host]:
    shared.up("exec", service("sleep 100000", "deploy: {replicas: 2}"))
    yield shared
    shared.down("exec")


class Person:
    """At a terminal of 30 rows and 100 columns."""

    def __init__(self, host: Host, *args: str) -> None:
        env = {**host.env, "TERM": "xterm"}
        self.seen = pexpect.spawn(
            CLI[0], [*CLI[1:], *args], env=env, dimensions=(30, 100), timeout=PATIENCE, cwd="/", encoding=None
        )

    def code(self) -> int | None:
        """The exit code, after everything it has written."""
        self.seen.expect(pexpect.EOF)
        self.seen.close()
        return self.seen.exitstatus


def inside(host: Host, word: str) -> list[int]:
    """Processes in containers that have this word in their command line."""
    found = []
    for pid in container_pids(host.instance):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(pid)
    return found


def descriptors(host: Host) -> dict[str, int]:
    pids = host.daemons()
    return {name: len(list(Path(f"/proc/{pids[name]}/fd").iterdir())) for name in ("agent", "orchestrator")}


def crumbs(host: Host) -> list[str]:
    run = host.root / "run"
    return [
        str(path) for path in [*run.glob("at/exec-*"), *run.glob("tasks/*/*/exec-*"), *run.glob("tasks/*/*/detached-*")]
    ]


def test_a_shell_on_a_terminal(host: Host) -> None:
    person = Person(host, "exec", "exec/app", "sh")
    person.seen.sendline(b"stty size; echo $TERM; tty")
    person.seen.expect(rb"30 100\r\nxterm\r\n/dev/pts/\d+")
    person.seen.setwinsize(17, 71)  # SIGWINCH, as a window that is dragged
    until(lambda: b"17 71" in _answer(person, b"stty size"), "the new size")
    person.seen.sendline(b"sleep 4242; echo in''terrupted")
    until(lambda: bool(inside(host, "4242")), "the sleep")
    person.seen.sendcontrol("c")
    until(lambda: not inside(host, "4242"), "Ctrl-C to end it")
    person.seen.sendline(b"exit 42")
    assert person.code() == 42


def _answer(person: Person, line: bytes) -> bytes:
    person.seen.sendline(line + b"; echo do''ne")
    person.seen.expect(b"done\r\n")
    return bytes(person.seen.before)


def test_vi_redraws_and_saves(host: Host) -> None:
    host.cli("exec", "exec/app", "sh", "-c", "seq 1 100 > /tmp/text")
    person = Person(host, "exec", "-it", "exec/app", "vi", "/tmp/text")
    person.seen.expect(rb"\x1b\[")  # it moves the cursor
    person.seen.expect(b"/tmp/text")
    person.seen.send(b"G")
    person.seen.expect(b"100")
    person.seen.send(b"ochanged\x1b")
    person.seen.expect(b"changed")
    person.seen.send(b":wq\r")
    assert person.code() == 0
    assert host.cli("exec", "exec/app", "tail", "-n", "2", "/tmp/text").stdout == "100\nchanged\n"


def test_the_terminal_is_put_back(host: Host) -> None:
    """Whatever ends it: a shell runs gorae, and asks its own terminal before and after."""
    line = " ".join(["PYTHONPATH=" + host.env["PYTHONPATH"], sys.executable, "-P", "-c", f"'{CLI[3]}'"])
    shell = pexpect.spawn("/bin/sh", env={**host.env, "PS1": ""}, dimensions=(24, 80), timeout=PATIENCE, encoding=None)
    shell.sendline(b"stty -a | md5sum; echo before''hand")
    shell.expect(rb"([0-9a-f]{32})[^\n]*\n[^\n]*beforehand")
    before = shell.match.group(1)
    for ending in (b"exit 0", b"exit 3", b"TERM", b"HUP"):
        shell.sendline(f"{line} exec exec/app sh; echo st''atus".encode())
        shell.sendline(b"echo rea''dy")
        shell.expect(b"ready")
        if ending.startswith(b"exit"):
            shell.sendline(ending)
        else:
            number = signal.SIGHUP if ending == b"HUP" else signal.SIGTERM
            for pid in _own_clients(shell.pid):
                os.kill(pid, number)
        shell.expect(b"status")
        shell.sendline(b"stty -a | md5sum; echo after''wards")
        shell.expect(rb"([0-9a-f]{32})[^\n]*\n[^\n]*afterwards")
        assert shell.match.group(1) == before, ending
    shell.sendline(b"exit")
    shell.expect(pexpect.EOF)


def _own_clients(shell: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{shell}/task/{shell}/children").read_text().split()]


def test_detach_keys_leave_it_running(host: Host) -> None:
    person = Person(host, "exec", "--index", "2", "exec/app", "sh", "-c", "echo up; sleep 4343")
    person.seen.expect(b"up")
    person.seen.send(b"\x10\x11")
    person.seen.expect(b"detached")
    assert person.code() == 0
    (pid,) = [pid for pid in inside(host, "4343") if b"sleep\0" in Path(f"/proc/{pid}/cmdline").read_bytes()[:6]]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not inside(host, "4343") and not crumbs(host), "the rest to end")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        pytest.param(["exec/app", "no-such-command"], 127, "no such command", id="command not found"),
        pytest.param(["exec/app", "/etc/passwd"], 126, "not an executable file", id="not executable"),
        pytest.param(["exec/app", "sh", "-c", "exit 77"], 77, "", id="its own code"),
        pytest.param(["exec/app", "sh", "-c", "echo at once >&2; exit 7"], 7, "at once\n", id="what it says at once"),
        pytest.param(["exec/app", "sh", "-c", "kill -TERM $$"], 143, "", id="a signal"),
        pytest.param(["exec/ap", "true"], 1, "try  is it app?", id="near miss"),
        pytest.param(["exec/app", "true"], 1, "gorae status", id="not running"),
        pytest.param(["--index", "7", "exec/app", "true"], 1, "exec/app.7", id="no such container"),
        pytest.param(["-u", "nobody-here", "exec/app", "true"], 1, "nobody-here", id="unknown user"),
        pytest.param(["-w", "/proc/self/fd/3", "exec/app", "true"], 1, "plain absolute path", id="a way out"),
        pytest.param(["-w", "/none", "exec/app", "true"], 1, "cannot run it in /none", id="no such directory"),
        pytest.param(["-t", "exec/app", "true"], 1, "-T goes without", id="no terminal here"),
        pytest.param(["exec/app"], 2, "cannot run nothing", id="no command"),
    ],
)
def test_codes_and_words(host: Host, request: pytest.FixtureRequest, args: list[str], code: int, says: str) -> None:
    if request.node.callspec.id == "not running":
        host.up("stopped", service("sleep 100000"))
        host.cli("stop", "stopped/app")
        args = ["stopped/app", "true"]
    done = host.cli("exec", *args, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    if code in (126, 127):
        assert done.stderr.startswith("cannot run ") and done.stderr.count("\n") == 1, "crun's own line is not shown"


def test_user_directory_and_variables(host: Host) -> None:
    script = "id -u; id -g; pwd; echo $A-$B-$HOME"
    env = {**host.env, "B": "from here"}
    args = ["exec", "-T", "-u", "33:44", "-w", "/tmp", "-e", "A=1 2", "-e", "B", "exec/app", "sh", "-c", script]
    done = subprocess.run(
        [*CLI, *args], env=env, capture_output=True, text=True, timeout=PATIENCE, check=True, input=""
    )
    assert done.stdout == "33\n44\n/tmp\n1 2-from here-/\n"
    assert host.cli("exec", "exec/app", "sh", "-c", "echo to-out; echo to-err >&2").stdout == "to-out\n"


def test_a_lot_of_data_both_ways(host: Host) -> None:
    data = os.urandom(1 << 20) * MEBIBYTES
    done = subprocess.run(
        [*CLI, "exec", "-T", "exec/app", "cat"], env=host.env, input=data, capture_output=True, timeout=120, check=True
    )
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_a_client_that_is_killed_leaves_nothing(host: Host) -> None:
    before = descriptors(host)
    script = "trap '' HUP; while :; do echo data; sleep 4444 & wait; done"
    for stdin, args in ((subprocess.DEVNULL, ["-T"]), (subprocess.PIPE, ["-T"]), (subprocess.PIPE, ["-T"])):
        client = subprocess.Popen(
            [*CLI, "exec", *args, "exec/app", "sh", "-c", script],
            env=host.env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert client.stdout is not None
        assert client.stdout.readline() == b"data\n"
        if client.stdin is not None:
            os.set_blocking(client.stdin.fileno(), False)
            for _ in range(200):  # more than anybody takes
                with contextlib.suppress(BlockingIOError):
                    os.write(client.stdin.fileno(), bytes(65536))
                select.select([], [client.stdin], [], 0.01)
        client.kill()
        client.wait(PATIENCE)
        client.stdout.close()
        if client.stdin is not None:
            client.stdin.close()
    person = Person(host, "exec", "exec/app", "sh", "-c", script)
    person.seen.expect(b"data")
    person.seen.kill(signal.SIGKILL)
    person.seen.close()
    until(lambda: not inside(host, "4444"), "what they ran to end", patience=PATIENCE, tell=lambda: _tree(host))
    until(lambda: not crumbs(host), "its files to go", tell=lambda: str(crumbs(host)))
    until(lambda: descriptors(host) == before, "descriptors to be closed", tell=lambda: f"{before} {descriptors(host)}")


def _tree(host: Host) -> str:
    """Of what is left: its parents, and what the daemons say."""
    ps = subprocess.run(["ps", "-eo", "pid,ppid,sid,stat,args"], capture_output=True, text=True, check=True).stdout
    lines = [line[:200] for line in ps.splitlines() if "4444" in line or "crun" in line]
    return "\n".join([*lines, str(crumbs(host)), host.log()[-3000:]])


def test_attached_to_a_shell_on_a_terminal(host: Host) -> None:
    """Its output is logged as well, what was written before comes not again, and the keys leave it running."""
    host.up("attach", service("exec sh", "tty: true", "stdin_open: true"))
    person = Person(host, "attach", "attach/app")
    person.seen.sendline(b"stty size; echo $TERM")
    person.seen.expect(rb"30 100\r\nxterm\r\n")
    person.seen.setwinsize(21, 66)
    until(lambda: b"21 66" in _answer(person, b"stty size"), "the new size")
    person.seen.sendline(b"X=kept; sleep 4747; echo in''terrupted")
    until(lambda: bool(inside(host, "4747")), "the sleep")
    person.seen.sendcontrol("c")
    until(lambda: not inside(host, "4747"), "Ctrl-C to end it")
    person.seen.send(b"\x10\x11")
    person.seen.expect(b"detached")
    assert person.code() == 0
    again = Person(host, "attach", "--detach-keys", "ctrl-x,d", "attach/app")
    assert b"kept" in _answer(again, b"echo $X")
    again.seen.send(b"\x18d")
    assert again.code() == 0
    assert "kept" in host.cli("logs", "attach/app").stdout
    last = Person(host, "attach", "attach/app")
    _answer(last, b"trap '' HUP")
    last.seen.sendline(b"exit 12")
    assert last.code() == 12
    host.down("attach")


def test_attached_in_pipes(host: Host) -> None:
    host.up("attached", service("while read line; do echo got $$line; echo err $$line >&2; done", "stdin_open: true"))
    client = subprocess.Popen(
        [*CLI, "attach", "attached/app"], env=host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stderr is not None
    client.stdin.write(b"one\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"got one\n"
    assert client.stderr.readline() == b"err one\n"
    client.send_signal(signal.SIGTERM)
    client.communicate(timeout=PATIENCE)
    assert client.returncode == 128 + signal.SIGTERM
    before = host.pids("attached")
    done = host.cli("attach", "--no-stdin", "attached/ap", check=False)
    assert (done.returncode, "is it app?" in done.stderr) == (1, True)
    second = subprocess.Popen(
        [*CLI, "attach", "attached/app"], env=host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert second.stdin is not None
    assert second.stdout is not None
    second.stdin.write(b"two\n")
    second.stdin.close()  # its input is the service's: it stays open
    assert second.stdout.readline() == b"got two\n"
    second.kill()
    second.wait(PATIENCE)
    second.stdout.close()
    assert host.pids("attached") == before
    host.down("attached")


def test_events_say_who_ran_what(host: Host) -> None:
    host.cli("exec", "-e", "SECRET=hidden", "exec/app", "sh", "-c", "exit 9", check=False)

    def ended() -> bool:
        return any(event["evidence"].get("exit_code") == 9 for event in host.events("exec"))

    until(ended, "the event")
    (event,) = [event for event in host.events("exec") if event["evidence"].get("exit_code") == 9]
    (begun,) = [e for e in host.events("exec") if e["id"] == event["cause"]]
    assert (begun["kind"], begun["evidence"]["uid"]) == ("user.exec", os.getuid())
    assert begun["evidence"]["command"] == ["sh", "-c", "exit 9"]
    assert "hidden" not in str(begun)


def test_an_agent_that_is_killed_ends_it_and_says_so(own: Host) -> None:
    own.up("exec", service("sleep 100000"))
    args = [*CLI, "exec", "-T", "exec/app", "sh", "-c", "trap '' HUP; echo up; sleep 4545; sleep 4545"]
    client = subprocess.Popen(
        args, env=own.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    own.cli("exec", "-d", "exec/app", "sleep", "4646")
    own.kill_daemon("agent")
    _, said = client.communicate(timeout=PATIENCE)
    assert client.returncode == 3 or b"agent" in said
    until(lambda: not inside(own, "4545"), "the next agent to end it")
    assert inside(own, "4646")
    until(lambda: not crumbs(own), "its files to go")
