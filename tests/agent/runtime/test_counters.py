"""Counters of made-up hierarchies: v2 alone, v1 alone, and v1 with v2 beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.runtime import counters
from agent.runtime.cgroups import Cgroups

V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 1\nsystem_usec 1\n",
    "memory.current": "1000\n",
    "memory.stat": "anon 1\ninactive_file 300\n",
    "pids.current": "7\n",
    "io.stat": "8:0 rbytes=10 wbytes=20\n",
}
V1 = {
    "cpuacct/cpuacct.usage": "2500000000\n",
    "memory/memory.usage_in_bytes": "1000\n",
    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
    "pids/pids.current": "7\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n",
}
HYBRID = {
    "unified/cpu.stat": V2["cpu.stat"],
    "memory/memory.usage_in_bytes": "1000\n",
    "memory/memory.stat": V1["memory/memory.stat"],
    "unified/pids.current": "7\n",
    "unified/io.stat": V2["io.stat"],
}


def made(root: Path, files: Mapping[str, str]) -> Cgroups:
    points = {str(Path(file).parent) for file in files}
    lines = []
    for point in sorted(points):
        place = root / point
        kind = "cgroup2" if point in (".", "unified") else "cgroup"
        lines.append(f"1 1 0:1 / {place} rw - {kind} none {point}")
        (place / "gorae-0badcafe" / "t.1").mkdir(parents=True)
    for file, text in files.items():
        (root / Path(file).parent / "gorae-0badcafe" / "t.1" / Path(file).name).write_text(text)
    (root / "mountinfo").write_text("\n".join(lines) + "\n")
    return Cgroups("0badcafe", root / "mountinfo")


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("files", [V2, V1, HYBRID], ids=["v2", "v1", "hybrid"])
def test_the_same_counters_wherever_they_are(tmp_path: Path, files: Mapping[str, str]) -> None:
    with counters.reading(made(tmp_path, files)) as reading:
        found = reading.sample("t.1", (30, 40))
    assert (found.cpu, found.memory, found.pids) == (2.5, 700, 7)
    assert (found.read, found.written) == (10, 20)
    assert (found.received, found.sent) == (40, 30)  # what the outer end received, the container sent


def test_what_is_not_counted_is_none(tmp_path: Path) -> None:
    with counters.reading(made(tmp_path, {"cpu.stat": V2["cpu.stat"]})) as reading:
        found = reading.sample("t.1", None)
    assert (found.cpu, found.memory, found.pids, found.read, found.sent) == (2.5, None, None, None, None)


def test_files_stay_open_between_looks_and_no_longer(tmp_path: Path) -> None:
    before = descriptors()
    with counters.reading(made(tmp_path, V2)) as reading:
        reading.sample("t.1", None)
        (tmp_path / "gorae-0badcafe" / "t.1" / "pids.current").write_text("9\n")
        assert reading.sample("t.1", None).pids == 9
        assert len(descriptors() - before) == len(V2)
        reading.keep(())
        assert descriptors() <= before
    assert descriptors() <= before
