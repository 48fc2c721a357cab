"""Who takes how much of the disk, and what of it could go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide import usage
from agent.ports import ImageInfo, LogFile
from agent.wire.messages import StackStatus, State, TaskStatus

STORE = {
    **{"images": 5, "unused": 2, "blobs": 100, "reclaimable": 70},
    **{"layer_count": 9, "layers_unused": 4, "layers": 200, "layers_reclaimable": 40},
}


def stack(name: str, **states: State) -> StackStatus:
    tasks = tuple(TaskStatus(id=id, service="web", slot=1, template="x", state=state) for id, state in states.items())
    return StackStatus(store_id="S", stack=name, observed_generation=1, epoch=1, seq=1, tasks=tasks)


def log(task: str, generation: int, size: int, *, stack: str = "shop", live: bool = False) -> LogFile:
    return LogFile(stack, "web", 1, task, generation, size, 10.0 - generation, live)


def shown(rows: list[dict[str, Any]]) -> list[str]:
    return ["{stack}/{service}.{slot} {task} {state} {writable} {logs}".format(**row) for row in rows]


@pytest.mark.parametrize(
    ("statuses", "writable", "files", "expected"),
    [
        pytest.param([], {}, [], [], id="nothing"),
        pytest.param([stack("shop", t1="running")], {}, [], ["shop/web.1 t1 running 0 0"], id="wrote-nothing"),
        pytest.param(
            [stack("shop", t1="running", t2="stopped")],
            {"t1": 5, "t2": 7},
            [log("t1", 0, 1), log("t1", 1, 2)],
            ["shop/web.1 t1 running 5 3", "shop/web.1 t2 stopped 7 0"],
            id="layers-and-logs-of-tasks",
        ),
        pytest.param([], {}, [log("t1", 0, 4)], ["shop/web.1 t1 gone 0 4"], id="only-logs-are-left"),
        pytest.param([], {"t1": 3}, [log("t1", 0, 4)], ["shop/web.1 t1 gone 3 4"], id="known-by-its-logs"),
        pytest.param([], {"t1": 3}, [], ["/.None t1 gone 3 0"], id="known-by-nothing"),
        pytest.param(
            [stack("shop", t1="running")],
            {"t1": 3},
            [log("t1", 0, 4, stack="other")],
            ["other/web.1 t1 gone 0 4", "shop/web.1 t1 running 3 0"],
            id="the-layer-is-the-running-one-s",
        ),
    ],
)
def test_tasks(
    statuses: list[StackStatus], writable: dict[str, int], files: list[LogFile], expected: list[str]
) -> None:
    assert shown(usage.tasks(statuses, writable, files)) == expected


def test_kinds() -> None:
    states: dict[str, State] = {"t1": "running", "t2": "backoff", "t3": "stopped", "t4": "failed"}
    files = [log("t1", 0, 10, live=True), log("t1", 1, 5, live=True), log("t9", 0, 1)]
    rows = usage.tasks([stack("shop", **states)], {"t1": 1, "t2": 2, "t3": 4, "t4": 8, "t8": 16}, files)
    volumes = [{"name": "a", "size": 10, "used_by": "shop/web"}, {"name": "b", "size": 3, "used_by": ""}]
    assert usage.kinds(STORE, rows, files, volumes) == {
        "images": {"total": 5, "active": 3, "size": 100, "reclaimable": 30},
        "layers": {"total": 9, "active": 5, "size": 200, "reclaimable": 40},
        "writable": {"total": 5, "active": 2, "size": 31, "reclaimable": 28},
        "volumes": {"total": 2, "active": 1, "size": 13, "reclaimable": 3},
        "logs": {"total": 3, "active": 1, "size": 16, "reclaimable": 6},
    }


def test_images_say_who_needs_them() -> None:
    found = [ImageInfo("sha256:1", ("web:1",), (), 7), ImageInfo("sha256:2", (), (), 8)]
    assert usage.images(found, {"sha256:1": "shop/web"}) == [
        {"id": "sha256:1", "names": ["web:1"], "size": 7, "used_by": "shop/web"},
        {"id": "sha256:2", "names": [], "size": 8, "used_by": ""},
    ]


IDS, SIZES = st.sampled_from("abcd"), st.integers(1, 100)


@given(
    st.dictionaries(IDS, st.sampled_from(["running", "stopped", "failed", "pending"])),
    st.dictionaries(IDS, SIZES),
    st.lists(
        st.builds(log, IDS, st.integers(0, 2), SIZES, stack=st.sampled_from(["shop", "other"]), live=st.booleans()),
        unique_by=lambda file: (file.stack, file.task, file.generation),
    ),
)
def test_every_byte_is_somebody_s_once(
    states: dict[str, State], writable: dict[str, int], files: list[LogFile]
) -> None:
    rows = usage.tasks([stack("shop", **states)], writable, files)
    assert sum(row["writable"] for row in rows) == sum(writable.values())
    assert sum(row["logs"] for row in rows) == sum(file.size for file in files)
    for kind in usage.kinds(STORE, rows, files, []).values():
        assert 0 <= kind["active"] <= kind["total"] and 0 <= kind["reclaimable"] <= kind["size"]
