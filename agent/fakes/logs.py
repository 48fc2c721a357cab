"""Logs in memory. `write` is what conmon would do. `live`: tasks that may write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from itertools import compress
from pathlib import Path
from typing import Literal

from agent.ports import LogFile, LogLine


class FakeLogs:
    def __init__(self, directory: Path = Path("/nonexistent/logs")) -> None:
        self._directory = directory
        self._lines: list[tuple[str, LogLine]] = []  # stack, line
        self._generations: list[int] = []  # of each line
        self.live: set[str] = set()
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
        self._keep([entry[0] != stack for entry in self._lines])

    async def rotate_if_needed(self, at: int) -> int:
        """Every live task's, whatever its size."""
        current = {file.task for file in await self.files() if file.generation == 0 and file.live}
        self._generations = [
            number + (line.task in current) for (_, line), number in zip(self._lines, self._generations, strict=True)
        ]
        return len(current)

    async def files(self) -> list[LogFile]:
        found: dict[tuple[str, str, int, str, int], list[LogLine]] = {}
        for (stack, line), generation in zip(self._lines, self._generations, strict=True):
            found.setdefault((stack, line.service, line.slot, line.task, generation), []).append(line)
        return [
            LogFile(*key, sum(len(line.text) for line in lines), max(line.at for line in lines), key[3] in self.live)
            for key, lines in found.items()
        ]

    async def drop(self, files: Sequence[LogFile]) -> list[LogFile]:
        gone = []
        for file in files:
            there = [one.generation for one in await self.files() if (one.stack, one.task) == (file.stack, file.task)]
            if file.task in self.live and file.generation == min(there, default=-1):
                continue
            self._keep(
                [
                    (stack, line.task, number) != (file.stack, file.task, file.generation)
                    for (stack, line), number in zip(self._lines, self._generations, strict=True)
                ]
            )
            gone.append(file)
        return gone

    def _keep(self, chosen: Sequence[bool]) -> None:
        self._lines = list(compress(self._lines, chosen))
        self._generations = list(compress(self._generations, chosen))

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
        self._generations.append(0)
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
