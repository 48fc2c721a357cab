"""Programs that begin when somebody is at their input and output, so that nobody misses what they write first: a worker
holds the container, created and not started, until whoever is attached lets it go. Nothing of it outlives the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from agent.kit.errors import Permanent
from agent.ports import Process

PATIENCE = 20.0  # seconds for somebody to come


class Attendance:
    def __init__(self) -> None:
        self._held: dict[str, tuple[Process, asyncio.Event]] = {}
        self._bells: dict[tuple[str, str], set[asyncio.Event]] = {}

    async def hold(self, task: str, stack: str, service: str, process: Process) -> None:
        """Until somebody has come. Permanent nobody-attached."""
        come = asyncio.Event()
        self._held[task] = process, come
        self.ring(stack, service)
        try:
            async with asyncio.timeout(PATIENCE):
                await come.wait()
        except TimeoutError:
            raise Permanent(
                f"cannot start {stack}/{service}: whoever asked for it did not come to see what it writes",
                code="nobody-attached",
                hint="gorae run again",
            ) from None
        finally:
            del self._held[task]

    def held(self, task: str) -> Process | None:
        return self._held[task][0] if task in self._held else None

    def release(self, task: str) -> None:
        if task in self._held:
            self._held[task][1].set()

    @contextmanager
    def watching(self, stack: str, service: str) -> Iterator[asyncio.Event]:
        """Set when something has changed with a task of the service."""
        bell = asyncio.Event()
        bells = self._bells.setdefault((stack, service), set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells:
                self._bells.pop((stack, service), None)

    def ring(self, stack: str, service: str) -> None:
        for bell in self._bells.get((stack, service), ()):
            bell.set()
