"""Logs in memory. `write` is what conmon would do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Literal

from agent.ports import LogLine


class FakeLogs:
    def __init__(self, directory: Path = Path("/nonexistent/logs")) -> None:
        self._directory = directory
        self._lines: list[tuple[str, LogLine]] = []  # stack, line
        self._changed = asyncio.Event()

    def path(self, stack: str, service: str, slot: int, task: str) -> Path:
        return self._directory / stack / service / f"{slot}-{task}.log"

    async def read(
        self,
        stack: str,
        services: Collection[str],
        *,
        follow: bool,
        since: float | None,
        until: float | None,
        tail: int | None,
    ) -> AsyncIterator[LogLine]:
        lines = self._select(stack, services, since, until)
        seen = len(self._lines)
        for index, line in enumerate(lines):
            later = sum((line.service, line.slot) == (other.service, other.slot) for other in lines[index + 1 :])
            if tail is None or later < tail:
                yield line
        while follow:
            seen = min(seen, len(self._lines))  # remove() may have shortened the list
            while seen < len(self._lines):
                name, line = self._lines[seen]
                seen += 1
                if name == stack and (not services or line.service in services):
                    yield line
            self._changed.clear()
            await self._changed.wait()

    async def tail(self, stack: str, service: str, slot: int, task: str, lines: int) -> tuple[str, ...]:
        if lines <= 0:
            return ()
        texts = [line.text for line in self._select(stack, (service,), None, None) if line.task == task]
        return tuple(texts[-lines:])

    async def remove(self, stack: str) -> None:
        self._lines = [entry for entry in self._lines if entry[0] != stack]

    # For tests -------------------------------------------------------------------------------------------------------

    def write(
        self,
        stack: str,
        service: str,
        slot: int,
        task: str,
        text: str,
        *,
        at: float = 0.0,
        stream: Literal["stdout", "stderr"] = "stdout",
    ) -> None:
        self._lines.append((stack, LogLine(task, service, slot, at, stream, text)))
        self._changed.set()

    def _select(self, stack: str, services: Collection[str], since: float | None, until: float | None) -> list[LogLine]:
        found = [
            line
            for name, line in self._lines
            if name == stack
            and (not services or line.service in services)
            and (since is None or line.at >= since)
            and (until is None or line.at <= until)
        ]
        return sorted(found, key=lambda line: line.at)
