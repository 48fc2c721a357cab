"""What takes room on the disk, by kind and by whom, and what of it nobody needs. Pure: sums over what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.decide import log_budget
from agent.ports import ImageInfo, LogFile
from agent.wire.messages import StackStatus

ENDED = frozenset({"completed", "failed", "stopped", "gone"})  # nobody writes to their layers, they are only kept
_Key = tuple[str, str, int | None, str]  # stack, service, slot, task


def tasks(
    statuses: Iterable[StackStatus], writable: Mapping[str, int], files: Sequence[LogFile]
) -> list[dict[str, Any]]:
    """One row for each task that is known or has left anything, by name. `writable`: task → bytes. state "gone": it is
    no task any more; stack and service are empty, and slot null, when nothing tells whose it was."""
    state: dict[_Key, str] = {
        (status.stack, task.service, task.slot, task.id): task.state for status in statuses for task in status.tasks
    }
    logs: dict[_Key, int] = {}
    for file in files:
        key = (file.stack, file.service, file.slot, file.task)
        logs[key] = logs.get(key, 0) + file.size
    known = {key[3]: key for key in (*logs, *state)}
    owners = {known.get(task, ("", "", None, task)): size for task, size in writable.items()}
    return [
        {
            "task": key[3],
            "stack": key[0],
            "service": key[1],
            "slot": key[2],
            "state": state.get(key, "gone"),
            "writable": owners.get(key, 0),
            "logs": logs.get(key, 0),
        }
        for key in sorted({*state, *logs, *owners}, key=lambda key: (key[0], key[1], key[2] or 0, key[3]))
    ]


def images(found: Iterable[ImageInfo], users: Mapping[str, str]) -> list[dict[str, Any]]:
    """`users`: image id → who needs it."""
    return [
        {"id": image.id, "names": list(image.names), "size": image.size, "used_by": users.get(image.id, "")}
        for image in found
    ]


def kinds(
    store: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[LogFile],
    volumes: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, int]]:
    """Kind → {total, active, size, reclaimable}: numbers of objects, then bytes. `store`: ImageShelf.usage(). `rows`:
    of tasks(). `volumes`: {size, used_by}. Of the logs, what the budget may take could go."""
    wrote = [row for row in rows if row["writable"]]
    idle = [row["writable"] for row in wrote if row["state"] in ENDED]
    unused = [volume["size"] for volume in volumes if not volume["used_by"]]
    gone = [file.size for file in log_budget.expendable(files)]
    layers = store["layers_reclaimable"]
    return {
        "images": _kind(store["images"], store["unused"], store["blobs"], store["reclaimable"] - layers),
        "layers": _kind(store["layer_count"], store["layers_unused"], store["layers"], layers),
        "writable": _kind(len(wrote), len(idle), sum(row["writable"] for row in wrote), sum(idle)),
        "volumes": _kind(len(volumes), len(unused), sum(volume["size"] for volume in volumes), sum(unused)),
        "logs": _kind(len(files), len(gone), sum(file.size for file in files), sum(gone)),
    }


def _kind(total: int, idle: int, size: int, reclaimable: int) -> dict[str, int]:
    return {"total": total, "active": total - idle, "size": size, "reclaimable": reclaimable}
