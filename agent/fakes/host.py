"""A host whose facts the test sets."""

from __future__ import annotations

from agent.ports import Capacity
from agent.wire.messages import Listener, Port


class FakeHost:
    """`reboot()` is what the agent sees after one; containers must be ended by the test."""

    def __init__(self) -> None:
        self.boots = 1
        self.held: tuple[Listener, ...] = ()
        self.traces: dict[str, tuple[str | None, int | None]] = {}
        self._next_port = 40_000

    def reboot(self) -> None:
        self.boots += 1

    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def run_id(self) -> str:
        return f"boot-{self.boots}.run"

    def capacity(self) -> Capacity:
        return Capacity(kernel="6.1", cgroup="v2", cpus=2, memory=4 << 30, features={})

    async def listeners(self, known: tuple[Listener, ...] | None = None) -> tuple[Listener, ...]:
        return self.held

    def free_port(self, port: Port, taken: frozenset[int]) -> int:
        while True:
            self._next_port += 1
            if self._next_port not in taken:
                return self._next_port

    def trace(self, task: str) -> tuple[str | None, int | None]:
        return self.traces.get(task, (None, None))
