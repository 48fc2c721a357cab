"""What the kernel counts of each container, read without a fork, from whichever cgroup hierarchy has it.

A reading keeps the files open from one look to the next: opening them is the larger half of the cost. A file whose
cgroup is gone says so, and counts no more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.decide import stats
from agent.decide.stats import Sample
from agent.runtime.cgroups import Cgroups

LINKS = Path("/proc/net/dev")
_MOST = 16384  # bytes of a file; memory.stat is the longest

# Counter → where it is on v1 (controller, file, how it is read), and the same on v2.
_Source = tuple[str, str, Callable[[str], Any]]
_SOURCES: dict[str, tuple[_Source, _Source]] = {
    "cpu": (
        ("cpuacct", "cpuacct.usage", lambda text: stats.seconds(stats.whole(text), 1e9)),
        ("", "cpu.stat", lambda text: stats.seconds(stats.field(text, "usage_usec"), 1e6)),
    ),
    "used": (("memory", "memory.usage_in_bytes", stats.whole), ("", "memory.current", stats.whole)),
    "cache": (
        ("memory", "memory.stat", lambda text: stats.field(text, "total_inactive_file")),
        ("", "memory.stat", lambda text: stats.field(text, "inactive_file")),
    ),
    "pids": (("pids", "pids.current", stats.whole), ("", "pids.current", stats.whole)),
    "io": (("blkio", "blkio.throttle.io_service_bytes_recursive", stats.io_v1), ("", "io.stat", stats.io_v2)),
}


def links() -> dict[str, tuple[int, int]]:
    """Of every link of the host, at one moment."""
    return stats.links(LINKS.read_text())


class Reading:
    """Blocks for some tens of microseconds for each container."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._open: dict[str, dict[str, tuple[int, Callable[[str], Any]]]] = {}  # attempt → counter → file, how to read

    def sample(self, name: str, link: tuple[int, int] | None) -> Sample:
        """`name`: TASK.ATTEMPT. `link`: of its veth's outer end, as links() has it; None: it has no network."""
        if name not in self._open:
            self._open[name] = dict(self._files(name))
        found = {counter: _read(*file) for counter, file in self._open[name].items()}
        used, cache, io = found.get("used"), found.get("cache") or 0, found.get("io") or (None, None)
        return Sample(
            clock=time.monotonic(),
            cpu=found.get("cpu"),
            memory=None if used is None else max(0, used - cache),
            pids=found.get("pids"),
            read=io[0],
            written=io[1],
            received=link[1] if link else None,
            sent=link[0] if link else None,
        )

    def keep(self, names: Collection[str]) -> None:
        """Close what is of others."""
        for name in self._open.keys() - set(names):
            for fd, _ in self._open.pop(name).values():
                os.close(fd)

    def _files(self, name: str) -> Iterator[tuple[str, tuple[int, Callable[[str], Any]]]]:
        for counter, sources in _SOURCES.items():
            for controller, file, parse in sources:
                directory = self._cgroups.directory(name, controller)
                if directory is None:
                    continue
                try:
                    fd = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue  # the kernel does not count it here
                yield counter, (fd, parse)
                break


def _read(fd: int, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(os.pread(fd, _MOST, 0).decode())
    except OSError:  # ENODEV: the cgroup is gone
        return None


@contextmanager
def reading(cgroups: Cgroups) -> Iterator[Reading]:
    made = Reading(cgroups)
    try:
        yield made
    finally:
        made.keep(())
