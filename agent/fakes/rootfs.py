"""Root file systems in memory: which tasks have a mount, which a writable layer, and what /etc/passwd would say."""

from __future__ import annotations

from pathlib import Path

from agent.kit.errors import GoraeError, Permanent, Temporary
from agent.ports import ImageConfig, Sandbox, UserIds
from agent.rootfs.passwd import resolve

PASSWD = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:1000::/data:/bin/false\n"
GROUP = "root:x:0:\nredis:x:1000:\ntty:x:5:redis\n"


class FakeRootfs:
    """`mounted`: task → image id. `writable`: tasks with an upper layer (survives `reboot()`, unlike a mount),
    `sizes`: what they wrote into it.

    `failures[task]`: errors that the next calls of ensure() raise, one each. passwd, group: of every image.
    """

    def __init__(self, passwd: str = PASSWD, group: str = GROUP) -> None:
        self.mounted: dict[str, str] = {}
        self.writable: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.failures: dict[str, list[GoraeError]] = {}
        self._bases: dict[str, int] = {}  # of the ids that the writable layer belongs to
        self._passwd, self._group = passwd, group

    async def ensure(self, task: str, image: ImageConfig, sandbox: Sandbox) -> Path:
        if self.failures.get(task):
            raise self.failures[task].pop(0)
        if self._bases.setdefault(task, sandbox.uid_base) != sandbox.uid_base:
            raise Permanent(f"cannot mount the writable layer of task {task}: other ids", code="uid-range-changed")
        self.mounted[task] = image.id
        self.writable.add(task)
        return Path("/fake/tasks") / task / "rootfs"

    async def remove(self, task: str) -> None:
        self.mounted.pop(task, None)
        self.writable.discard(task)
        self._bases.pop(task, None)

    async def user(self, task: str, user: str) -> UserIds:
        if task not in self.mounted:
            raise Temporary(f"cannot look up user {user!r}: task {task} has no root file system", code="no-rootfs")
        return resolve(user, self._passwd, self._group)

    async def size(self, task: str) -> int:
        return self.sizes.get(task, 4096) if task in self.writable else 0

    async def list(self) -> frozenset[str]:
        return frozenset(self.mounted) | self.writable

    def reboot(self) -> None:
        self.mounted.clear()
