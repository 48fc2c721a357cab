"""Sandboxes on the host: a user namespace and a network namespace owned by it, pinned below the task's run directory.

What is on the host is the truth: nothing is remembered here. The network namespace must be owned by the container's
user namespace, or crun shows the container the host's /sys.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.kit import disk, threads, trees
from agent.kit.errors import Permanent, Temporary
from agent.kit.layout import Layout
from agent.ports import UID_RANGE, Sandbox
from agent.sandbox import pins
from agent.sandbox.link import Helper

_FULL = (errno.ENOSPC, errno.EUSERS)  # user_namespaces(7), network_namespaces(7): a limit in /proc/sys/user


class PinnedSandboxes:
    """Implements ports.Sandboxes. Sandboxes outlive the helper, and the agent."""

    def __init__(self, layout: Layout, helper: Helper) -> None:
        self._tasks = layout.run_tasks
        self.helper = helper

    async def ensure(self, task: str, uid_base: int, *, host_network: bool = False) -> Sandbox:
        """Make or adopt. A pair that is incomplete, or maps other ids, is made anew."""
        directory = self._tasks / trees.component(task)
        if not 0 < uid_base < 2**32 - UID_RANGE:
            raise Permanent(f"cannot give task {task} the ids from {uid_base}: out of range", code="bad-uid-base")
        ns_dir = directory / "ns"
        kinds = pins.USER if host_network else pins.BOTH
        if not pins.held(str(ns_dir), uid_base, kinds):
            await self._make(task, directory, uid_base, kinds)
        net_ns = None if host_network else ns_dir / "net"
        return Sandbox(task, ns_dir / "user", net_ns, uid_base, pins.held(str(ns_dir), uid_base, kinds))

    async def join(self, task: str, owner: str, uid_base: int) -> Sandbox:
        directory, ns_dir = self._tasks / trees.component(task), self._tasks / trees.component(owner) / "ns"
        space = pins.held(str(ns_dir), uid_base, pins.BOTH)
        if not space:
            raise Temporary(f"cannot join the network of task {owner}: it is not there", code="sandbox-absent")
        await threads.run(f"make room for {task}", pins.make_room, str(directory), uid_base)
        return Sandbox(task, ns_dir / "user", ns_dir / "net", uid_base, space)

    async def remove(self, task: str) -> None:
        """The namespaces, then the task's whole run directory, so call it last. Temporary still-mounted if another
        part of the task (root file system, volume) is still mounted there."""
        await threads.run(f"remove the sandbox of {task}", self._remove, self._tasks / trees.component(task))

    @staticmethod
    def _remove(directory: Path) -> None:
        pins.discard(str(directory / "ns"))
        trees.delete(directory)

    async def list(self) -> frozenset[str]:
        """Every task with a run directory, be it empty: nothing of a task can be mounted without one."""
        return trees.names(self._tasks)

    async def _make(self, task: str, directory: Path, uid_base: int, kinds: Sequence[str]) -> None:
        request = {"dir": str(directory), "base": uid_base, "size": UID_RANGE, "kinds": kinds}
        try:
            answer = await self._ask(request)
        except Temporary:  # it died: a fresh one takes the same request, which finds or clears what was half done
            answer = await self._ask(request)
        if "error" not in answer:
            return
        hint, full = "", disk.trouble(self._tasks)
        if answer["errno"] in _FULL:
            hint = "free some space" if full else "raise user.max_user_namespaces and user.max_net_namespaces"
        raise Temporary(
            f"cannot make namespaces for task {task}: {full or answer['error']}",
            code="sandbox-failed",
            hint=hint,
            errno=answer["errno"],
        )

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        _, answer = self.helper.ready().ask(request)
        return await threads.finish(answer)  # so that no late namespace appears after a cancelled call
