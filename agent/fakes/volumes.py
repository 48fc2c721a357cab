"""Volumes in memory: names and per-task mounts, with the real rules for what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.kit.errors import UserError
from agent.ports import BindSource, Sandbox, VolumeInfo
from agent.volumes import options
from agent.wire.messages import Mount


class FakeVolumes:
    """`volumes`: those that exist. `tasks`: task → its binds. `host_paths`: what exists on the host for binds."""

    def __init__(self, host_paths: Sequence[str] = ()) -> None:
        self.volumes: dict[str, VolumeInfo] = {}
        self.tasks: dict[str, tuple[BindSource, ...]] = {}
        self.host_paths = set(host_paths)

    async def ensure(
        self, stack: str, mounts: Sequence[Mount], sandbox: Sandbox, rootfs: Path
    ) -> tuple[BindSource, ...]:
        for mount in mounts:
            options.check(mount)
            if mount.kind == "bind" and mount.source not in self.host_paths and not mount.create_host_path:
                raise UserError(
                    f"cannot mount {mount.source} at {mount.target}: it does not exist", code="missing-bind-source"
                )
        bound = []
        for number, mount in enumerate(mounts):
            if mount.kind == "tmpfs":
                bound.append(BindSource(mount, "tmpfs", options.tmpfs_options(mount)))
                continue
            if mount.kind == "volume":
                made = options.info(stack, mount, 0.0)
                options.local(made)
                if mount.external and made.name not in self.volumes:
                    raise options.missing(made.name)
                options.check_same(mount, self.volumes.setdefault(made.name, made))
            else:
                self.host_paths.add(str(mount.source))
            source = f"/fake/tasks/{sandbox.task}/vol/{number}"
            bound.append(BindSource(mount, source, options.bind_options(mount)))
        self.tasks.pop(sandbox.task, None)
        if any(b.source != "tmpfs" for b in bound):
            self.tasks[sandbox.task] = tuple(bound)
        return tuple(bound)

    async def release(self, task: str) -> None:
        self.tasks.pop(task, None)

    async def remove(self, names: Sequence[str]) -> None:
        for name in map(options.checked_name, names):
            self.volumes.pop(name, None)

    async def list(self) -> Sequence[VolumeInfo]:
        return [self.volumes[name] for name in sorted(self.volumes)]

    async def mounted(self) -> frozenset[str]:
        return frozenset(self.tasks)
