"""The figures of README, measured in one run and given as ratios: these machines are shared and noisy.

    python -m tests.bench.bench [--quick]        as root; the environment of deploy/test

The floor is a loop of `crun run -d`, one after the other, over the very bundles that gorae made (same namespaces, same root
file systems; only the container id and the cgroup differ).
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.command import command
from tests.host.conftest import import_images, sample_tars
from tests.support.host import CLI, Host, cgroup_pids, until

SLEEP = '  s{n}: {{image: "gorae/busybox:1", command: [sleep, "86400"], restart: always, stop_grace_period: 100ms}}\n'
TICKS = os.sysconf("SC_CLK_TCK")


def stack(count: int) -> str:
    return "services:\n" + "".join(SLEEP.format(n=n) for n in range(count))


def up(host: Host, count: int) -> float:
    """Seconds from typing `gorae up` to its return."""
    began = time.monotonic()
    host.up(f"n{count}", stack(count))
    return time.monotonic() - began


def bare_loop(host: Host, name: str) -> float:
    """Seconds for `crun run -d` over copies of the stack's bundles, one after the other; they are ended again."""
    directory = host.root / "bare"
    bundles = []
    for task in host.tasks(name):
        made = host.root / "run/tasks" / task["id"] / str(task["attempt"]) / "config.json"
        config = json.loads(made.read_text())
        config["linux"]["cgroupsPath"] = f"/gorae-{host.instance}/bare-{task['id']}"
        bundle = directory / task["id"]
        bundle.mkdir(parents=True, exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(config))
        bundles.append((f"bare-{task['id']}", bundle))
    crun = ["crun", f"--root={directory}/state", "--cgroup-manager=cgroupfs"]
    began = time.monotonic()
    for ident, bundle in bundles:
        subprocess.run(
            [*crun, "run", "-d", "-b", str(bundle), ident],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    took = time.monotonic() - began
    for ident, _ in bundles:
        subprocess.run([*crun, "delete", "-f", ident], check=True)
    return took


def recovery(host: Host, name: str, rounds: int) -> list[float]:
    """Milliseconds from kill -9 of a process that ran at least 10 s to the exec of the next attempt's command."""
    tasks = host.tasks(name)[:rounds]
    until(lambda: time.time() - max(t["started_at"] for t in tasks) > 10.5, "10 s of stable run")
    samples = []
    for task in tasks:
        procs = (
            next(Path("/sys/fs/cgroup").glob(f"**/gorae-{host.instance}/{task['id']}.1")).parent
            / f"{task['id']}.2/cgroup.procs"
        )
        began = time.monotonic()
        os.kill(task["pid"], signal.SIGKILL)
        while not started(procs):
            assert time.monotonic() - began < 10, "no new attempt"
            time.sleep(0.0005)  # one of two processors is not taken away from what is measured
        samples.append((time.monotonic() - began) * 1000)
    return samples


def started(procs: Path) -> bool:
    try:
        return any(Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep") for pid in procs.read_text().split())
    except OSError:
        return False


def pss(pid: int) -> int:
    """KiB. A process that runs as another user is readable for root alike."""
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert match
    return int(match[1])


def family(pid: int) -> list[int]:
    """A process and its descendants, containers' conmons not among them (they are nobody's children any more). What
    has ended meanwhile, as probes do, is left out."""
    try:
        if is_conmon(pid):
            return []
        children = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid, *(p for child in children for p in family(child))]


def is_conmon(pid: int) -> bool:
    return b"conmon" in _about(pid, "comm")


def _about(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # it has ended meanwhile


def daemons(host: Host) -> list[int]:
    assert host.supervisor is not None
    return family(host.supervisor.pid)


def conmons(host: Host) -> list[int]:
    return [
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and is_conmon(int(p.name)) and str(host.root).encode() in _about(int(p.name), "cmdline")
    ]


def cpu(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def wall(command: list[str], env: dict[str, str], rounds: int) -> float:
    """Median milliseconds."""
    samples = []
    for _ in range(rounds):
        began = time.monotonic()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        samples.append((time.monotonic() - began) * 1000)
    return statistics.median(samples)


# One look-up after the other over one socket: argv is the server, the name, for how many seconds. Prints how many.
ASKER = """
import socket, sys, time
server, name, seconds = sys.argv[1], sys.argv[2].encode(), float(sys.argv[3])
asked = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(5)
    client.connect((server, 53))
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        client.send(asked)
        assert client.recv(512)[7] > 0, "no address"
        count += 1
print(count)
"""


def look_ups(host: Host, name: str, seconds: float = 2.0) -> dict[str, float]:
    """A second, from one container; the floor is dnsmasq with that one name, in the same network namespace."""
    pid = next(task["pid"] for task in host.tasks(name) if task["pid"])
    inside = ["nsenter", "-t", str(pid), "-n"]

    def rate(server: str) -> float:
        done = subprocess.run(
            [*inside, sys.executable, "-c", ASKER, server, "s0", str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout) / seconds

    options = [
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
    ]
    dnsmasq = [*inside, "dnsmasq", "-k", "-C", "/dev/null", *options, "--address=/s0/192.0.2.1"]
    ours = rate("127.0.0.11")
    with subprocess.Popen(dnsmasq) as process:
        try:
            listening = ["ss", "-Huln", "src", "127.0.0.1:53"]
            until(lambda: bool(subprocess.check_output([*inside, *listening])), "dnsmasq to listen")
            floor = rate("127.0.0.1")
        finally:
            process.kill()
    return {"gorae": round(ours), "dnsmasq": round(floor), "ratio": round(ours / floor, 2)}


def measure(host: Host, sizes: list[int], idle: float) -> dict[str, Any]:
    result: dict[str, Any] = {"up": {}}
    fixed = sum(map(pss, daemons(host)))
    largest = f"n{max(sizes)}"
    for size in sizes:
        took, floor = up(host, size), bare_loop(host, f"n{size}")
        result["up"][size] = {
            "gorae_s": round(took, 2),
            "crun_loop_s": round(floor, 2),
            "ratio": round(took / floor, 2),
        }
        if size != max(sizes):
            host.down(f"n{size}")
    rounds = min(max(sizes), 30)
    samples = recovery(host, largest, rounds)
    result["recovery_ms"] = {
        "median": round(statistics.median(samples), 1),
        "worst": round(max(samples), 1),
        "of": rounds,
    }
    status = wall([*CLI, "status"], host.env, 15)
    python = wall([sys.executable, "-P", "-c", "pass"], host.env, 15)
    result["status_ms"] = {
        "containers": max(sizes),
        "gorae": round(status, 1),
        "python_alone": round(python, 1),
        "ratio": round(status / python, 2),
    }
    result["look_ups"] = look_ups(host, largest)
    before, began = cpu(daemons(host)), time.monotonic()
    time.sleep(idle)
    result["idle_percent"] = round(100 * (cpu(daemons(host)) - before) / (time.monotonic() - began), 2)
    full, monitors = sum(map(pss, daemons(host))), sum(map(pss, conmons(host)))
    count = len(conmons(host))
    result["memory"] = {
        "fixed_mib": round(fixed / 1024, 1),
        "per_container_mib": round((full - fixed + monitors) / 1024 / count, 2),
        "of_which_conmon_mib": round(monitors / 1024 / count, 2),
    }
    began = time.monotonic()
    host.down(largest)
    result["down_s"] = {"containers": max(sizes), "gorae": round(time.monotonic() - began, 2)}
    until(lambda: not cgroup_pids(host.instance), "the last process to end")
    return result


def tell(result: dict[str, Any]) -> str:
    lines = ["| what | gorae | floor | ratio |", "|---|---|---|---|"]
    for size, row in result["up"].items():
        lines.append(
            f"| `up` of {size} | {row['gorae_s']} s | {row['crun_loop_s']} s (bare `crun run -d` loop) | {row['ratio']} × |"
        )
    status = result["status_ms"]
    recovery_ms = result["recovery_ms"]
    lines += [
        f"| `status` of {status['containers']} | {status['gorae']} ms | {status['python_alone']} ms (`python -c pass`) | {status['ratio']} × |",
        f"| kill -9 → running again | {recovery_ms['median']} ms median, {recovery_ms['worst']} ms worst of {recovery_ms['of']} | | |",
        f"| look-ups a second, one after the other | {result['look_ups']['gorae']} | {result['look_ups']['dnsmasq']} (dnsmasq) | {result['look_ups']['ratio']} × |",
        f"| memory of the daemons (PSS) | {result['memory']['fixed_mib']} MiB | | |",
        f"| memory per container (PSS) | {result['memory']['per_container_mib']} MiB, conmon {result['memory']['of_which_conmon_mib']} of it | | |",
        f"| idle, {status['containers']} containers | {result['idle_percent']} % of a core | | |",
        f"| `down` of {result['down_s']['containers']} | {result['down_s']['gorae']} s | | |",
    ]
    return "\n".join(lines)


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        with Host() as host:
            import_images(host, sample_tars("busybox"), "busybox")
            return measure(host, [1, 10] if quick else [1, 10, 50, 100], 5.0 if quick else 30.0)

    return command(__doc__, "10 containers instead of 100, 5 s idle instead of 30", whole, tell)


if __name__ == "__main__":
    raise SystemExit(main())
