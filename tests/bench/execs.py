"""What `gorae exec` costs beside `crun exec` alone: the same program, `true`, in the same container, in turns.

    python -m tests.bench.execs [--quick] [--json FILE]        as root; the environment of deploy/test

api: a WebSocket of the daemon's, from this process. cli: the command, its own start included. python: an interpreter that
starts and ends, which is part of that. Milliseconds of wall time, the median and the least; ratios to the bare one. cpu:
of the process that is started here, and those it waits for. On a machine that has other work, whatever needs several
processes in turn waits several times: there the least is nearer to the truth.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from agent.decide.execs import Wanted, process_spec
from agent.wire.kinds import END, ERROR, RESULT
from orchestrator.cli.websocket import WebSocket, outcome
from tests.bench.command import command
from tests.host.conftest import import_images, sample_tars, service
from tests.support.host import CLI, Host

WARM = 5


def measure(rounds: int) -> dict[str, Any]:
    with Host() as host:
        import_images(host, sample_tars("busybox"), "busybox")
        host.up("bench", service("sleep 86400"))
        ways = {"crun": bare(host), "api": lambda: api(host), "cli": lambda: cli(host), "python": python}
        times: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways if name != "api"}
        load = os.getloadavg()[0]
        for turn in range(WARM + rounds):
            for name, way in ways.items():
                begin, used = time.perf_counter(), _used()
                way()
                if turn >= WARM:
                    times[name].append((time.perf_counter() - begin) * 1000)
                    if name in cpu:
                        cpu[name].append((_used() - used) * 1000)
    found: dict[str, Any] = {"rounds": rounds, "load": round(load, 1)}
    for what, of in (("median", statistics.median), ("least", min)):
        held = {f"{name}_ms": round(of(values), 1) for name, values in times.items()}
        held |= {f"{name}_cpu_ms": round(of(values), 1) for name, values in cpu.items()}
        found[what] = held | {
            f"{name}_ratio": round(held[f"{name}_ms"] / held["crun_ms"], 2) for name in ("api", "cli")
        }
    return found


def _used() -> float:
    """Seconds of processor, of what was waited for."""
    held = resource.getrusage(resource.RUSAGE_CHILDREN)
    return held.ru_utime + held.ru_stime


def bare(host: Host) -> Callable[[], None]:
    (task,) = host.tasks("bench")
    bundle = host.root / "run" / "tasks" / task["id"] / str(task["attempt"])
    spec = host.root / "bare.json"
    spec.write_text(json.dumps(process_spec(json.loads((bundle / "config.json").read_text()), Wanted(("true",)), None)))
    crun = shutil.which("crun") or "/usr/bin/crun"
    argv = [crun, f"--root={host.root}/run/crun", "--cgroup-manager=cgroupfs", "exec", "--process", str(spec)]
    argv.append(f"{task['id']}.{task['attempt']}")
    return lambda: _run(argv, None)


def api(host: Host) -> None:
    ask = {"command": ["true"], "stdin": False}
    talk = WebSocket(str(host.root / "run/api/gorae.sock"), "/v1/stacks/bench/services/app/exec", ask)
    try:
        talk.send(END)
        talk.flush()
        while True:
            select.select([talk.socket], [], [])
            for kind, payload in talk.receive():
                if kind in (RESULT, ERROR):
                    assert outcome(kind, payload) == 0
                    return
    finally:
        talk.close()


def cli(host: Host) -> None:
    _run([*CLI, "exec", "-T", "bench/app", "true"], host.env)


def python() -> None:
    _run([*CLI[:-1], ""], dict(os.environ))


def _run(argv: list[str], env: dict[str, str] | None) -> None:
    subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, check=True, cwd="/")


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        return measure(20 if quick else 100)

    return command(__doc__, "20 rounds instead of 100", whole, partial(json.dumps, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
