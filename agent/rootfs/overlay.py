"""A task's root file system: overlay of the image's idmapped layers and the task's own writable layer.

The mount lies in the run directory and is gone after a reboot; the writable layer lies in the state directory and stays
until remove(). A restart therefore keeps what the container wrote, and a new task starts clean.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.kit import disk, mounts, syscalls, threads, trees
from agent.kit.errors import Permanent, Temporary
from agent.kit.layout import Layout
from agent.ports import ImageConfig, Sandbox, UserIds
from agent.rootfs import inspect, layers, passwd


class OverlayRootfs:
    """Implements ports.Rootfs. by_path: never try layers by descriptor, as if the kernel were older than 6.13."""

    def __init__(self, layout: Layout, *, by_path: bool = False) -> None:
        self._layout = layout
        self._by_path = by_path

    async def ensure(self, task: str, image: ImageConfig, sandbox: Sandbox) -> Path:
        """Permanent bad-image, layer-missing, idmap-unsupported, uid-range-changed; Temporary overlay-refused."""
        trees.component(task)
        return await threads.run(f"mount the root file system of {task}", self._ensure, task, image, sandbox)

    def _ensure(self, task: str, image: ImageConfig, sandbox: Sandbox) -> Path:
        target = self._target(task)
        upper, work = self._writable(task, sandbox.uid_base)
        root = _open_overlay(target)
        if root is not None:
            try:
                inspect.prepare(root, sandbox.uid_base)  # again: what is there now, the container wrote
            finally:
                os.close(root)
            return target
        lower = [self._layer(diff_id) for diff_id in image.layers] or [self._empty_layer(task)]
        with layers.idmapped(lower, sandbox.user_ns) as clones:
            root = self._mount(task, clones, upper, work)
        try:
            inspect.prepare(root, sandbox.uid_base)
            for parent in (self._layout.run, self._layout.run_tasks):
                trees.make_dir(parent, 0o711)
            trees.make_dir(target.parent, 0o710, gid=sandbox.uid_base)
            trees.make_dir(target, 0o700)
            syscalls.move_mount(root, target)
        finally:
            os.close(root)
        return target

    def _mount(self, task: str, clones: list[int], upper: Path, work: Path) -> int:
        if not self._by_path:
            try:
                return layers.by_descriptor(clones, upper, work)
            except layers.ByDescriptorUnsupported:
                pass
        root = layers.by_path(clones, upper, work, self._scratch(task))
        self._by_path = True  # this works where the other did not: do not try that again
        return root

    def _writable(self, task: str, uid_base: int) -> tuple[Path, Path]:
        """upper and work, owned by the container's root. The owner of `work`, which no container can change and which
        is set last, tells for which ids they were made."""
        upper, work = self._state(task) / "upper", self._state(task) / "work"
        try:
            owner = os.lstat(work).st_uid
        except FileNotFoundError:
            owner = 0
        if owner == uid_base:
            return upper, work
        if owner != 0:
            raise Permanent(
                f"cannot mount the writable layer of task {task}: it belongs to ids from {owner}, not {uid_base}",
                code="uid-range-changed",
                hint="gorae recreate makes a new task with a clean layer",
            )
        trees.make_dir(self._layout.tasks, 0o700)
        trees.make_dir(self._state(task), 0o700)
        trees.make_dir(upper, 0o755, uid_base, uid_base)
        trees.make_dir(work, 0o755, uid_base, uid_base)
        return upper, work

    def _empty_layer(self, task: str) -> Path:
        """Overlay wants a lower layer even below an image that has none."""
        empty = self._state(task) / "empty"
        trees.make_dir(empty, 0o755)
        return empty

    async def remove(self, task: str) -> None:
        """Permanent undeletable when something immutable is in the layer: the rest is gone then."""
        trees.component(task)
        await threads.run(f"remove the root file system of {task}", self._remove, task)

    def _remove(self, task: str) -> None:
        target, scratch = self._target(task), self._scratch(task)
        for point in (target, *scratch.glob("*")):
            mounts.detach(point)
        trees.delete(scratch)
        trees.delete(target)
        trees.delete(self._state(task))

    async def user(self, task: str, user: str) -> UserIds:
        root = _open_overlay(self._target(trees.component(task)))
        if root is None:
            raise Temporary(f"cannot look up user {user!r}: task {task} has no root file system", code="no-rootfs")
        try:
            files = [inspect.read_small(root, path) or "" for path in ("etc/passwd", "etc/group")]
        finally:
            os.close(root)
        return passwd.resolve(user, *files)

    async def size(self, task: str) -> int:
        trees.component(task)
        return await threads.stoppable(f"measure the writable layer of {task}", disk.blocks, self._state(task))

    async def list(self) -> frozenset[str]:
        return trees.names(self._layout.run_tasks, "rootfs") | trees.names(self._layout.tasks)

    def _layer(self, diff_id: str) -> Path:
        digest = diff_id.removeprefix("sha256:")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Permanent(f"cannot use image layer {diff_id!r}: not a sha256 digest", code="bad-image")
        return self._layout.images / "layers" / digest

    def _target(self, task: str) -> Path:
        return self._layout.run_tasks / task / "rootfs"

    def _scratch(self, task: str) -> Path:
        return self._layout.run_tasks / task / "layers"

    def _state(self, task: str) -> Path:
        return self._layout.tasks / task


def _open_overlay(target: Path) -> int | None:
    """The mounted root as a directory descriptor; None if no overlay is mounted there."""
    try:
        fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if syscalls.filesystem_type(fd) == syscalls.OVERLAYFS_MAGIC and _is_mount_root(fd):
        return fd
    os.close(fd)
    return None


def _is_mount_root(fd: int) -> bool:
    """The run directory itself may lie on an overlay (a daemon inside a container): ask for a change of device."""
    return os.fstat(fd).st_dev != os.stat("..", dir_fd=fd).st_dev
