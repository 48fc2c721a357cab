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
from agent.ports import BindSource, Sandbox, VolumeInfo
from agent.volumes import binds, options
from agent.volumes.store import NamedVolumes
from agent.wire.messages import Mount

_log = logging.getLogger("gorae.volumes")


class HostVolumes:
    """Implements ports.Volumes."""

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
        source = self._open(stack, mount, sandbox, rootfs)
        try:
            host, reason = binds.place(source, point, namespace, self._layout.run, read_only=mount.read_only)
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

    def _open(self, stack: str, mount: Mount, sandbox: Sandbox, rootfs: Path) -> int:
        if mount.kind == "bind":
            return binds.open_source(mount)
        image = None if mount.no_copy else (rootfs, mount.target, sandbox.uid_base)
        data = self._named.create(options.info(stack, mount, time.time()), image)
        return os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    async def release(self, task: str) -> None:
        await threads.run(f"release the volumes of {task}", self._release, self._directory(trees.component(task)))

    @staticmethod
    def _release(directory: Path) -> None:
        for point in directory.glob("*"):
            detach(point)
        trees.delete(directory)

    async def remove(self, names: Sequence[str]) -> None:
        """Permanent undeletable if something immutable is left; the volume is gone from list() all the same."""
        await threads.run("remove volumes", self._named.remove, names)

    async def list(self) -> Sequence[VolumeInfo]:
        return await threads.run("list volumes", self._named.list)

    async def mounted(self) -> frozenset[str]:
        return trees.names(self._layout.run_tasks, "vol")

    def _directory(self, task: str) -> Path:
        return self._layout.run_tasks / task / "vol"


def _tmpfs(mount: Mount) -> BindSource:
    return BindSource(mount, "tmpfs", options.tmpfs_options(mount))
