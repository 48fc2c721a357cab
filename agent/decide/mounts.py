"""The mounts of a task as they are made: the file's, with names for volumes that have none, and the image's. Pure.

An anonymous volume belongs to a slot, not to a task: its name is made of the slot's first task and of the target, so
that a restart, a recreate and an update find it again, and nobody else does.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping

from agent.ports import ImageConfig, VolumeInfo
from agent.wire.messages import Mount, Task


def anonymous(task: Task, target: str) -> str:
    """The name of the volume without one that `task` has at `target`."""
    return f"{task.lineage or task.id}-{hashlib.sha256(_clean(target).encode()).hexdigest()[:12]}"


def belongs(volume: VolumeInfo, lineage: str) -> bool:
    """Whether it is an anonymous one of the slot whose first task that was."""
    return bool(volume.owner) and volume.name.rpartition("-")[0] == lineage


Others = Mapping[str, tuple[Task, ImageConfig]]  # service → its first slot


def needed(task: Task) -> set[str]:
    """The services whose first slot must be known to make the mounts of `task`."""
    return {mount.owner for mount in task.container.mounts if mount.owner} | {
        share.service for share in task.container.volumes_from
    }


def of(task: Task, image: ImageConfig, others: Others) -> tuple[Mount, ...]:
    """Every mount but tmpfs has a source then. A VOLUME of the image, or of another service's (volumes_from), at a
    place that the file mounts is dropped."""
    found = [_named(mount, others[mount.owner][0] if mount.owner else task) for mount in task.container.mounts]
    for share in reversed(task.container.volumes_from):
        other, its = others[share.service]
        own = [mount.target for mount in other.container.mounts]
        more = [mount for mount in _of_image(its, other, own) if mount.target not in _places(found)]
        found += [mount.model_copy(update={"read_only": share.read_only}) for mount in more]
    return (*found, *_of_image(image, task, _places(found)))


def _named(mount: Mount, task: Task) -> Mount:
    if mount.kind != "volume" or mount.source is not None:
        return mount
    owner = f"{task.service}.{task.slot}"
    return mount.model_copy(update={"source": anonymous(task, mount.target), "owner": owner})


def _places(found: Iterable[Mount]) -> list[str]:
    return [_clean(mount.target) for mount in found]


def _of_image(image: ImageConfig, task: Task, taken: Iterable[str]) -> list[Mount]:
    places = {_clean(target) for target in taken}
    missing = sorted({_clean(path) for path in image.volumes} - places - {"/"})
    return [_named(Mount(kind="volume", target=path), task) for path in missing]


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def of_host(task: Task) -> tuple[str, ...]:
    """Paths of the host that the task mounts, as its spec names them."""
    paths = []
    for mount in task.container.mounts:
        if mount.kind == "bind" and mount.source is not None:
            paths.append(mount.source)
        elif mount.kind == "volume" and mount.options.get("device", "").startswith("/"):
            paths.append(mount.options["device"])
    return tuple(dict.fromkeys(paths))


def users(tasks: Iterable[tuple[str, Task]]) -> dict[str, str]:
    """Of (stack, task) pairs: a volume's name, or "lineage:TASK" for the anonymous ones of a slot → who uses it:
    "shop/db, shop/backup"."""
    found: list[tuple[str, str]] = []
    for stack, task in tasks:
        who = f"{stack}/{task.service}"
        volumes = [
            mount.source for mount in task.container.mounts if mount.kind == "volume" and mount.source is not None
        ]
        found += [(name, who) for name in (*volumes, f"lineage:{task.lineage or task.id}")]
    return together(found)


def together(uses: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of (what, who) pairs: what → all who use it, in one line."""
    found: dict[str, dict[str, None]] = {}
    for what, who in uses:
        found.setdefault(what, {})[who] = None
    return {what: ", ".join(users) for what, users in found.items()}


def user(volume: VolumeInfo, known: Mapping[str, str]) -> str:
    """Who uses the volume, as users() tells, or "stack:NAME" of `known`; "" when nobody does."""
    lineage = f"lineage:{volume.name.rpartition('-')[0]}" if volume.owner else ""
    return known.get(volume.name) or known.get(lineage) or known.get(f"stack:{volume.stack}") or ""
