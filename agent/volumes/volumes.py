"""Volumes, binds and tmpfs of tasks: every source is made ready below the task's run directory, at vol/N.

Container root owns what root owns on the host: ids are mapped by the mount, so data survives a task with another range
of ids. Never deletes data, but for remove().
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from agent.kit import threads, trees
from agent.kit.errors import Temporary
from agent.kit.layout import Layout
from agent.kit.mounts import detach
from agent.ports import BackedUp, BindSource, Sandbox, VolumeInfo
from agent.volumes import archive, binds, errors, options
from agent.volumes.store import NamedVolumes
from agent.wire.messages import Mount

_log = logging.getLogger("gorae.volumes")


class HostVolumes:
    """Implements ports.Volumes and ports.VolumeStore."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._named = NamedVolumes(layout.volumes)

    async def ensure(
        self, stack: str, mounts: Sequence[Mount], sandbox: Sandbox, rootfs: Path
    ) -> tuple[BindSource, ...]:
        """Every mount is made anew, so a source that was replaced is seen. UserError bad-mount, bad-volume-name,
        missing-bind-source, bad-bind-source; Temporary volume-failed."""
        for mount in mounts:
            options.check(mount)
        trees.component(sandbox.task)
        if all(mount.kind == "tmpfs" for mount in mounts):
            return tuple(_tmpfs(mount) for mount in mounts)
        what = f"make the volumes of {sandbox.task}"
        return await threads.run(what, self._ensure, stack, mounts, sandbox, rootfs)

    def _ensure(self, stack: str, mounts: Sequence[Mount], sandbox: Sandbox, rootfs: Path) -> tuple[BindSource, ...]:
        directory = self._directory(sandbox.task)
        for parent in (self._layout.run, self._layout.run_tasks):
            trees.make_dir(parent, 0o711)
        trees.make_dir(directory.parent, 0o710, gid=sandbox.uid_base)
        trees.make_dir(directory, 0o711)
        namespace = os.open(sandbox.user_ns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return tuple(
                _tmpfs(mount)
                if mount.kind == "tmpfs"
                else self._bind(stack, mount, directory / str(number), namespace, sandbox, rootfs)
                for number, mount in enumerate(mounts)
            )
        finally:
            os.close(namespace)

    def _bind(
        self, stack: str, mount: Mount, point: Path, namespace: int, sandbox: Sandbox, rootfs: Path
    ) -> BindSource:
        source, mount = self._open(stack, mount, sandbox, rootfs)
        try:
            binds.check_shared(source, mount)
            host, reason = binds.place(
                source,
                point,
                namespace,
                self._layout.run,
                read_only=mount.read_only,
                passed_on=mount.propagation != "private",
            )
        except OSError as error:
            raise Temporary(
                f"cannot mount {mount.source} at {mount.target}: {error.strerror}",
                code="volume-failed",
                errno=error.errno,
            ) from error
        finally:
            os.close(source)
        if reason:
            _log.warning("%s: ids of %s are not mapped: %s", stack, mount.source, reason)
        return BindSource(mount, str(point), options.bind_options(mount, host))

    def _open(self, stack: str, mount: Mount, sandbox: Sandbox, rootfs: Path) -> tuple[int, Mount]:
        """The source, and the mount with what the volume itself says."""
        if mount.kind == "bind":
            return binds.open_source(mount), mount
        wanted = options.info(stack, mount, time.time())
        found = self._named.info(wanted.name)
        if found is None and mount.external:
            raise errors.external(wanted.name)
        if found is not None:
            options.check_same(mount, found)
        image = None if mount.no_copy or mount.subpath else (rootfs, mount.target, sandbox.uid_base)
        source = self._named.open(found or wanted, image)
        if options.local(found or wanted).read_only:
            mount = mount.model_copy(update={"read_only": True})
        return (source if mount.subpath is None else binds.open_below(source, mount)), mount

    async def release(self, task: str) -> None:
        await threads.run(f"release the volumes of {task}", self._release, self._directory(trees.component(task)))

    def _release(self, directory: Path) -> None:
        points = list(directory.glob("*"))
        for point in points:
            detach(point)
        trees.delete(directory)
        if points:
            self._named.let_go(list(self._layout.run_tasks.glob("*/vol/*")))

    async def remove(self, names: Sequence[str]) -> None:
        """Permanent undeletable if something immutable is left; the volume is gone from list() all the same."""
        await threads.run("remove volumes", self._named.remove, names)

    async def list(self) -> Sequence[VolumeInfo]:
        return await threads.run("list volumes", self._named.list)

    async def create(self, info: VolumeInfo) -> VolumeInfo:
        return await threads.run(f"create volume {info.name}", self._named.make, info)

    async def size(self, name: str) -> int:
        self._named.must(options.checked_name(name))
        return await threads.stoppable(f"measure volume {name}", self._named.size, name)

    async def backup(self, name: str, path: Path, owner: tuple[int, int]) -> BackedUp:
        return await threads.stoppable(f"back up volume {name}", archive.backup, self._named, name, path, owner)

    async def restore(self, path: Path, name: str | None, force: bool) -> tuple[VolumeInfo, int]:
        return await threads.stoppable(f"restore {path}", archive.restore, self._named, path, name, force)

    async def manifest(self, path: Path) -> VolumeInfo:
        return await threads.run(f"read {path}", archive.look, path)

    async def mounted(self) -> frozenset[str]:
        return trees.names(self._layout.run_tasks, "vol")

    def _directory(self, task: str) -> Path:
        return self._layout.run_tasks / task / "vol"


def _tmpfs(mount: Mount) -> BindSource:
    return BindSource(mount, "tmpfs", options.tmpfs_options(mount))
