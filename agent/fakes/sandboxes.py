"""Sandboxes in memory: the loop's tests need namespaces only as names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.kit.errors import GoraeError, Temporary
from agent.ports import Sandbox


class FakeSandboxes:
    """`made`: what exists. `failures[task]`: errors that the next calls of ensure() raise, one each."""

    def __init__(self) -> None:
        self.made: dict[str, Sandbox] = {}
        self.failures: dict[str, list[GoraeError]] = {}
        self._count = 0

    async def ensure(self, task: str, uid_base: int, *, host_network: bool = False) -> Sandbox:
        if self.failures.get(task):
            raise self.failures[task].pop(0)
        known = self.made.get(task)
        if known is None or known.uid_base != uid_base or (known.net_ns is None) != host_network:
            ns, self._count = Path("/fake/tasks") / task / "ns", self._count + 1
            net_ns = None if host_network else ns / "net"
            self.made[task] = Sandbox(task, ns / "user", net_ns, uid_base, str(self._count))
        return self.made[task]

    async def join(self, task: str, owner: str, uid_base: int) -> Sandbox:
        own = self.made.get(owner)
        if own is None or own.uid_base != uid_base or own.net_ns is None:
            raise Temporary(f"cannot join the network of {owner}: it is not there", code="sandbox-absent")
        self.made[task] = replace(own, task=task)
        return self.made[task]

    async def remove(self, task: str) -> None:
        self.made.pop(task, None)

    async def list(self) -> frozenset[str]:
        return frozenset(self.made)

    async def close(self) -> None:
        """What lives in `made` outlives the agent, as pinned namespaces do."""
