"""What `gorae exec` costs beside `crun exec` alone: the same program, `true`, in the same container, in turns.

    python -m tests.bench.execs [--quick] [--json FILE]        as root; the environment of deploy/test

api: a WebSocket of the daemon's, from this process. cli: the command, its own start included. python: an interpreter that
starts and ends, which is part of that. Milliseconds of wall time, the median; ratios to the bare one.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import statistics
import subprocess
import sys
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
        for turn in range(WARM + rounds):
            for name, way in ways.items():
                begin = time.perf_counter()
                way()
                if turn >= WARM:
                    times[name].append((time.perf_counter() - begin) * 1000)
    found: dict[str, Any] = {f"{name}_ms": round(statistics.median(values), 1) for name, values in times.items()}
    for name in ("api", "cli"):
        found[f"{name}_ratio"] = round(found[f"{name}_ms"] / found["crun_ms"], 2)
    return {"rounds": rounds, **found}


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
    _run([sys.executable, "-P", "-c", ""], dict(os.environ))


def _run(argv: list[str], env: dict[str, str] | None) -> None:
    subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, check=True, cwd="/")


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        return measure(20 if quick else 100)

    return command(__doc__, "20 rounds instead of 100", whole, partial(json.dumps, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
