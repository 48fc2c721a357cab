"""What watching containers costs: CPU of each process that has a part in it, for each refresh of `gorae stats`.

    python -m tests.bench.stats [--quick] [--json FILE]        as root; the environment of deploy/test

Time on a processor is read from the scheduler (/proc/PID/schedstat, nanoseconds), with what the same processes use
while nobody watches taken off. The machine's other load does not count in it, but slows caches.
"""

from __future__ import annotations

import os
import pty
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.command import command
from tests.host.conftest import import_images, sample_tars
from tests.support.host import CLI, Host, until

SERVICE = """  s:
    image: gorae/busybox:1
    command: [sleep, "86400"]
    scale: {count}
    stop_grace_period: 100ms
    stop_signal: SIGKILL
"""


def spent(pid: int) -> float:
    """Milliseconds of CPU of all its threads."""
    total = 0
    for path in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            total += int((path / "schedstat").read_text().split()[0])
    return total / 1e6


def watched(host: Host, count: int, refreshes: int) -> dict[str, Any]:
    """Milliseconds for each refresh of a live table of `count` containers, drawn once a second on a terminal."""
    host.up("many", "services:\n" + SERVICE.format(count=count))
    ours = {name: host.daemons()[name] for name in ("agent", "orchestrator")}
    time.sleep(2)
    before = {name: spent(pid) for name, pid in ours.items()}
    time.sleep(refreshes / 2)
    idle = {name: (spent(pid) - before[name]) / (refreshes / 2) for name, pid in ours.items()}  # a second
    screen, terminal = pty.openpty()
    table = subprocess.Popen([*CLI, "stats"], env=host.env | {"TERM": "xterm"}, stdin=terminal, stdout=terminal)
    os.close(terminal)
    os.set_blocking(screen, False)
    drawn = 0

    def drained() -> bool:
        nonlocal drawn
        with suppress(BlockingIOError):
            drawn += os.read(screen, 1 << 20).count(b"CONTAINER")
        return drawn >= goal

    goal = 1
    until(drained, "the first table")
    parts = ours | {"cli": table.pid}
    before, drawn, goal, began = {name: spent(pid) for name, pid in parts.items()}, 0, refreshes, time.monotonic()
    until(drained, "the tables")
    took = time.monotonic() - began
    cost = {
        name: round((spent(pid) - before[name] - idle.get(name, 0.0) * took) / refreshes, 2)
        for name, pid in parts.items()
    }
    table.kill()
    table.wait()
    os.close(screen)
    host.down("many")
    return {"containers": count, "refreshes": refreshes, "ms": cost, "total_ms": round(sum(cost.values()), 2)}


def measure(count: int, refreshes: int) -> dict[str, Any]:
    with Host() as host:
        import_images(host, sample_tars("busybox"), "busybox")
        return watched(host, count, refreshes)


def tell(result: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {cost} ms" for name, cost in result["ms"].items())
    return (
        f"stats of {result['containers']} containers: {result['total_ms']} ms of CPU per refresh ({parts}), "
        f"mean of {result['refreshes']}; bound: 20 ms"
    )


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        return measure(10, 5) if quick else measure(100, 30)

    return command(__doc__, "10 containers instead of 100", whole, tell)


if __name__ == "__main__":
    raise SystemExit(main() if os.geteuid() == 0 else "as root, please")
