"""gorae run: a command once, with what is typed or piped in as its input, and nothing of what it writes lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.host.conftest import service
from tests.host.test_exec import PATIENCE, Person, inside
from tests.support.host import CLI, Host, until

pytestmark = pytest.mark.host
ROUNDS = 20


@pytest.fixture(scope="module")
def host(shared: Host) -> Iterator[Host]:
    shared.up("once", service("sleep 100000", "volumes: [/scratch]", "environment: {A: file, B: file}"))
    yield shared
    shared.down("once")


def left(host: Host) -> list[str]:
    """Runs that are there still, and anonymous volumes of theirs."""
    services = [row["name"] for row in host.status("once")["services"] if row["name"] != "app"]
    return services + [v["name"] for v in host.get("/v1/volumes")["volumes"] if "-run-" in str(v.get("owner"))]


def gone(host: Host) -> None:
    until(lambda: not left(host), "the run to be removed", tell=lambda: f"{left(host)}{host.log()}")


def test_what_ends_at_once_is_shown_whole(host: Host) -> None:
    """Both streams, the last line without an end, and no line twice."""
    script = "seq 1 $0; echo to-err >&2; printf end; exit $(($0 % 7))"
    for number in range(1, ROUNDS + 1):
        done = host.cli("run", "once/app", "sh", "-c", script, str(number), check=False)
        assert done.stdout == "".join(f"{i}\n" for i in range(1, number + 1)) + "end"
        assert done.stderr == "to-err\n"
        assert done.returncode == number % 7
    gone(host)


def test_input_and_output_are_bytes(host: Host) -> None:
    data = bytes(range(256)) * 4096 * 8  # 8 MiB: more than anything on the way keeps
    done = subprocess.run(
        [*CLI, "run", "-T", "once/app", "cat"], env=host.env, input=data, capture_output=True, timeout=120, check=True
    )
    assert done.stdout == data


def test_a_slow_reader_is_waited_for(host: Host) -> None:
    client = subprocess.Popen(
        [*CLI, "run", "once/app", "sh", "-c", "seq 1 1000000; echo done >&2"],
        env=host.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stderr is not None
    first = client.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(1)
    out, err = client.communicate(timeout=120)
    assert (first + out, err) == (b"".join(b"%d\n" % i for i in range(1, 1_000_001)), b"done\n")


def test_on_a_terminal(host: Host) -> None:
    person = Person(host, "run", "--rm", "-it", "once/app", "sh")
    person.seen.sendline(b"stty size; echo $TERM; touch /scratch/x")
    person.seen.expect(rb"30 100\r\nxterm\r\n")
    person.seen.setwinsize(17, 71)

    def resized() -> bool:
        person.seen.sendline(b"stty size; echo do''ne")
        person.seen.expect(b"done\r\n")
        return b"17 71" in person.seen.before

    until(resized, "the new size")
    person.seen.sendline(b"sleep 5151; echo in''terrupted")
    until(lambda: bool(inside(host, "5151")), "the sleep")
    person.seen.sendcontrol("c")
    until(lambda: not inside(host, "5151"), "Ctrl-C to end it")
    assert len(left(host)) == 2, "it, and its volume"
    person.seen.sendline(b"exit 42")
    assert person.code() == 42
    gone(host)


def test_its_size_is_there_from_the_first_moment(host: Host) -> None:
    person = Person(host, "run", "once/app", "stty", "size")
    person.seen.expect(b"30 100")
    assert person.code() == 0


def test_detach_keys_leave_it_running(host: Host) -> None:
    person = Person(host, "run", "--name", "kept", "once/app", "sh", "-c", "echo up; sleep 5252")
    person.seen.expect(b"up")
    person.seen.send(b"\x10\x11")
    person.seen.expect(b"detached")
    assert person.code() == 0
    assert inside(host, "5252")
    again = host.cli("run", "--name", "kept", "once/app", "true", check=False)
    assert "cannot run once/kept: there is one of that name" in again.stderr
    for pid in inside(host, "5252"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not inside(host, "5252"), "it to end")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["int", "term", "hup"]
)
def test_a_signal_takes_the_container_away(host: Host, number: signal.Signals, code: int) -> None:
    client = subprocess.Popen(
        [*CLI, "run", "once/app", "sh", "-c", "echo up; sleep 5353"],
        env=host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    client.send_signal(number)
    client.communicate(timeout=PATIENCE)
    assert client.returncode == code
    until(lambda: not inside(host, "5353"), "it to end")


@pytest.mark.parametrize(
    ("args", "code", "out", "says"),
    [
        pytest.param(["once/app", "no-such-command"], 127, "", "no such command", id="command not found"),
        pytest.param(["once/app", "/etc/passwd"], 126, "", "not an executable file", id="not executable"),
        pytest.param(["-u", "nobody-here", "once/app", "true"], 1, "", "nobody-here", id="unknown user"),
        pytest.param(["-w", "tmp", "once/app", "true"], 1, "", "tmp", id="no absolute directory"),
        pytest.param(["-t", "once/app", "true"], 1, "", "-T goes without", id="no terminal here"),
        pytest.param(["--entrypoint", "echo 'a b'", "once/app", "c"], 0, "a b c\n", "", id="entrypoint"),
        pytest.param(["-w", "/tmp", "-u", "33", "once/app", "sh", "-c", "pwd; id -u"], 0, "/tmp\n33\n", "", id="-w -u"),
        pytest.param(
            ["-e", "A=1", "-e", "NOT_SET", "once/app", "sh", "-c", "echo $A-$B-${NOT_SET-unset}"],
            0, "1-file-unset\n", "", id="variables",
        ),
    ],
)  # fmt: skip
def test_codes_and_words(host: Host, args: list[str], code: int, out: str, says: str) -> None:
    done = host.cli("run", *args, check=False)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert says in done.stderr


def test_nothing_is_left(host: Host) -> None:
    host.cli("run", "-d", "--name", "background", "once/app", "true")
    until(lambda: not [t for t in host.tasks("once") if t["pid"] and t["service"] != "app"], "all to end")
    until(lambda: all(t["exit_code"] is not None for t in host.tasks("once") if t["service"] != "app"), "their codes")
    host.up("once", service("sleep 100000", "volumes: [/scratch]", "environment: {A: file, B: other}"))
    gone(host)


def test_daemons_that_are_killed(own: Host) -> None:
    """What needs no input goes on; nothing of what it writes is lost or shown twice, and its end is told."""
    own.up("once", service("sleep 100000"))
    script = "i=0; while [ $i -lt 50 ]; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.1; done; exit 5"
    client = subprocess.Popen(
        [*CLI, "run", "once/app", "sh", "-c", script],
        env=own.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0,
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stdout.readline() == "out 0\n"
    own.kill_daemon("agent")
    own.kill_daemon("orchestrator")
    out, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 5, err
    assert "out 0\n" + out == "".join(f"out {i}\n" for i in range(50))
    assert [line for line in err.splitlines() if line.startswith("err")] == [f"err {i}" for i in range(50)]
    assert "the connection was lost" in err
    own.cli("run", "once/app", "true")
    until(lambda: [row["name"] for row in own.status("once")["services"]] == ["app"], "both runs to be removed")


def test_ctrl_c_while_it_waits_for_another_service(host: Host) -> None:
    text = service("sleep 100000", "depends_on: {slow: {condition: service_healthy}}")
    text += "  slow:\n    image: gorae/busybox:1\n    command: [sleep, '100000']\n    stop_grace_period: 100ms\n"
    text += "    healthcheck: {test: ['CMD', 'false'], interval: 1h, start_period: 2h}\n"
    host.up("waits", text, "--no-wait")
    host.wait("waits", lambda now: now["observed_generation"] == now["generation"] > 0, "the agent to have it")
    person = Person(host, "run", "waits/app", "sh")
    until(lambda: len(host.status("waits")["services"]) == 3, "the run to be there")
    person.seen.sendcontrol("c")
    assert person.code() == 130
    until(lambda: len(host.status("waits")["services"]) == 2, "the run to be removed")
    host.down("waits")
