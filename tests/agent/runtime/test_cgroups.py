"""Which hierarchies there are, read from mountinfo; the rest is shown by real containers in test_runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.runtime import cgroups as module
from agent.runtime.cgroups import Cgroups
from tests.agent.runtime.host import Host

LINE = "30 20 0:27 / {point} rw,nosuid - {kind} cgroup {options}\n"
V2 = LINE.format(point="/sys/fs/cgroup", kind="cgroup2", options="rw,nsdelegate")
HYBRID = (
    LINE.format(point="/sys/fs/cgroup/memory", kind="cgroup", options="rw,memory")
    + LINE.format(point="/sys/fs/cgroup/cpu,cpuacct", kind="cgroup", options="rw,cpu,cpuacct")
    + LINE.format(point="/sys/fs/cgroup/unified", kind="cgroup2", options="rw")
    + "31 20 0:28 / /proc rw - proc proc rw\n"
)


@pytest.mark.parametrize(("text", "version"), [(V2, "v2"), (HYBRID, "v1"), ("", "v1")], ids=["v2", "hybrid", "none"])
def test_version(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "mountinfo").write_text(text)
    assert Cgroups("00000000", tmp_path / "mountinfo").version == version


async def test_an_attempt_in_any_hierarchy_is_seen_and_removed(tmp_path: Path) -> None:
    """Hierarchies as plain directories: what counts here is which of them are looked at."""
    points = [tmp_path / name for name in ("memory", "pids", "unified")]
    lines = [
        LINE.format(point=p, kind="cgroup2" if p.name == "unified" else "cgroup", options=f"rw,{p.name}")
        for p in points
    ]
    (tmp_path / "mountinfo").write_text("".join(lines))
    (points[1] / "gorae-00000000/t1.1/inner/most").mkdir(parents=True)
    (points[2] / "gorae-00000000/t2.13").mkdir(parents=True)
    (points[2] / "gorae-00000000/monitors").mkdir(parents=True)
    (points[0] / "gorae-11111111/t3.1").mkdir(parents=True)
    cgroups = Cgroups("00000000", tmp_path / "mountinfo")
    assert cgroups.names() == {"t1.1", "t2.13"}
    for name in ("t1.1", "t2.13", "t2.13"):
        await cgroups.empty(name)
        await cgroups.remove(name)
    assert cgroups.names() == frozenset()
    await cgroups.remove_parent(lambda: True)
    assert len(list(tmp_path.glob("*/gorae-00000000"))) == 2
    await cgroups.remove_parent(lambda: False)
    assert [p.name for p in tmp_path.glob("*/gorae-*")] == ["gorae-11111111"]


@pytest.mark.host
async def test_conmon_does_not_sit_in_the_cgroup_of_a_managed_agent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: with the first attempt its cgroup goes too."""
    place = host.root / "own"
    place.write_text("7:name=systemd:/system.slice/gorae-agent.service\n0::/system.slice/gorae-agent.service\n")
    monkeypatch.setattr(module, "OWN", place)
    for _ in range(2):
        bundle = host.bundle("sleep", "1000")
        process = await host.runtime.start(bundle)
        assert f"/gorae-{host.instance}/monitors\n" in Path(f"/proc/{process.conmon}/cgroup").read_text()
        inside = Path(f"/proc/{process.pid}/cgroup").read_text()
        assert f"/gorae-{host.instance}/{bundle.task}.1\n" in inside
        assert "monitors" not in inside
        await host.runtime.remove(bundle.task, 1)
        assert host.leftovers() == []
