"""Sandboxes in memory: the loop's tests need namespaces only as names."""

from __future__ import annotations

from pathlib import Path

from agent.kit.errors import GoraeError
from agent.ports import Sandbox


class FakeSandboxes:
    """`made`: what exists. `failures[task]`: errors that the next calls of ensure() raise, one each."""

    def __init__(self) -> None:
        self.made: dict[str, Sandbox] = {}
        self.failures: dict[str, list[GoraeError]] = {}

    async def ensure(self, task: str, uid_base: int) -> Sandbox:
        if self.failures.get(task):
            raise self.failures[task].pop(0)
        ns = Path("/fake/tasks") / task / "ns"
        sandbox = Sandbox(task, ns / "user", ns / "net", uid_base)
        if self.made.get(task) != sandbox:
            self.made[task] = sandbox
        return self.made[task]

    async def remove(self, task: str) -> None:
        self.made.pop(task, None)

    async def list(self) -> frozenset[str]:
        return frozenset(self.made)

    async def close(self) -> None:
        """What lives in `made` outlives the agent, as pinned namespaces do."""
