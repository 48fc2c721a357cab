"""Volumes in memory: names and per-task mounts, with the real rules for what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.kit.errors import UserError
from agent.ports import BackedUp, BindSource, Sandbox, VolumeInfo
from agent.volumes import errors, manifest, options
from agent.wire.messages import Mount


class FakeVolumes:
    """`volumes`: those that exist. `tasks`: task → its binds. `host_paths`: what exists on the host for binds."""

    def __init__(self, host_paths: Sequence[str] = ()) -> None:
        self.volumes: dict[str, VolumeInfo] = {}
        self.sizes: dict[str, int] = {}
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
                    raise errors.external(made.name)
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

    async def create(self, info: VolumeInfo) -> VolumeInfo:
        options.local(info)
        found = self.volumes.setdefault(options.checked_name(info.name), info)
        if (found.options, found.labels) != (info.options, info.labels):
            raise errors.taken(info.name)
        return found

    async def size(self, name: str) -> int:
        self._must(name)
        return self.sizes.get(name, 0)

    async def backup(self, name: str, path: Path, owner: tuple[int, int]) -> BackedUp:
        info = self._must(name)
        if path.exists():
            raise errors.file_exists(name, path)
        path.write_bytes(manifest.dump(info))
        return BackedUp(entries=1)

    async def manifest(self, path: Path) -> VolumeInfo:
        try:
            return manifest.parse(path.read_bytes())
        except (OSError, ValueError) as error:
            raise errors.bad_backup(path, "it is no backup of a volume") from error

    async def restore(self, path: Path, name: str | None, force: bool) -> tuple[VolumeInfo, int]:
        said = await self.manifest(path)
        info = options.renamed(said, name)
        if info.name in self.volumes and not force:
            raise errors.there_already(info.name)
        return self.volumes.setdefault(info.name, info), 0

    def _must(self, name: str) -> VolumeInfo:
        if options.checked_name(name) not in self.volumes:
            raise errors.unknown(name)
        return self.volumes[name]

    async def mounted(self) -> frozenset[str]:
        return frozenset(self.tasks)
