"""Logs in memory. `write` is what conmon would do. `live`: tasks that may write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Literal

from agent.ports import LogFile
from agent.wire.batches import Decoder, Part, Place
from agent.wire.records import HEADER, Line, mark, record, stamp


class FakeLogs:
    def __init__(self, directory: Path = Path("/nonexistent/logs")) -> None:
        self._directory = directory
        self._parts: list[Part] = []  # of one record each
        self._generations: list[int] = []  # of each record
        self._numbers: list[int] = []  # the same: how many were written before it
        self._count = 0
        self.live: set[str] = set()
        self._changed = asyncio.Event()

    def begin(self, stack: str, service: str, slot: int, task: str, attempt: int, at: float) -> Path:
        self._put(stack, service, slot, task, mark(round(at * 1e9), attempt))
        return self._directory / stack / service / f"{slot}-{task}.log"

    async def read(
        self,
        stack: str | None,
        services: Collection[str],
        *,
        follow: bool,
        since: float | None = None,
        until: float | None = None,
        tail: int | None = None,
        task: str | None = None,
        after: Mapping[str, Place] | None = None,
    ) -> AsyncGenerator[list[Part], None]:
        def chosen(part: Part) -> bool:
            return (
                stack in (None, part.stack) and (not services or part.service in services) and task in (None, part.task)
            )

        found = sorted(filter(chosen, self._parts), key=lambda part: stamp(part.data))
        seen = self._count
        if until is not None:
            found = [part for part in found if stamp(part.data) <= until * 1e9]
        if after is not None:
            found = [part for part in found if part.offset >= after.get(part.task, Place()).offset]
        elif tail is not None:
            found = [
                part
                for index, part in enumerate(found)
                if sum((part[:3]) == other[:3] for other in found[index + 1 :]) < tail
            ]
        begins = {part.task: part._replace(offset=part.offset + len(part.data)) for part in filter(chosen, self._parts)}
        begins |= {part.task: part for part in reversed(found)}
        yield [part._replace(data=b"") for part in begins.values()]
        for part in found:
            yield [part]
        while follow:
            fresh = [part for number, part in zip(self._numbers, self._parts, strict=True) if number >= seen]
            seen = self._count
            for part in filter(chosen, fresh):
                yield [part]
            self._changed.clear()
            await self._changed.wait()

    async def tail(self, stack: str, service: str, slot: int, task: str, lines: int) -> tuple[str, ...]:
        own = [part for part in self._parts if part[:4] == (stack, service, slot, task)]
        found = [item for _, item in Decoder().feed(own) if isinstance(item, Line)]
        return tuple(line.text.decode(errors="replace") for line in found[-lines:] if lines > 0)

    async def remove(self, stack: str) -> None:
        self._keep([part.stack != stack for part in self._parts])

    async def written(self, patience: float) -> None:
        await asyncio.sleep(0)

    def look_at_all(self) -> None:
        pass

    async def rotate_if_needed(self, at: Callable[[str], int]) -> list[LogFile]:
        """Whatever the size of what the task writes, if it has a limit at all."""
        current = {
            file.task: file for file in await self.files() if file.generation == 0 and file.live and at(file.task)
        }
        self._generations = [
            number + (part.task in current) for part, number in zip(self._parts, self._generations, strict=True)
        ]
        return list(current.values())

    async def files(self, stack: str | None = None, service: str | None = None) -> list[LogFile]:
        found: dict[tuple[str, str, int, str, int], list[Part]] = {}
        for part, generation in zip(self._parts, self._generations, strict=True):
            if stack in (None, part.stack) and service in (None, part.service):
                found.setdefault((*part[:4], generation), []).append(part)
        return [
            LogFile(
                *key,
                sum(len(part.data) - HEADER - 1 for part in parts),
                max(stamp(part.data) for part in parts) / 1e9,
                key[3] in self.live,
            )
            for key, parts in found.items()
        ]

    async def drop(self, files: Sequence[LogFile]) -> list[LogFile]:
        gone = []
        for file in files:
            there = [one.generation for one in await self.files() if (one.stack, one.task) == (file.stack, file.task)]
            if file.task in self.live and file.generation == min(there, default=-1):
                continue
            self._keep(
                [
                    (part.stack, part.task, number) != (file.stack, file.task, file.generation)
                    for part, number in zip(self._parts, self._generations, strict=True)
                ]
            )
            gone.append(file)
        return gone

    def _keep(self, chosen: Sequence[bool]) -> None:
        self._parts = list(compress(self._parts, chosen))
        self._generations = list(compress(self._generations, chosen))
        self._numbers = list(compress(self._numbers, chosen))

    def _put(self, stack: str, service: str, slot: int, task: str, data: bytes) -> None:
        end = max((part.offset + len(part.data) for part in self._parts if part.task == task), default=0)
        self._parts.append(Part(stack, service, slot, task, 1, end, False, data))
        self._generations.append(0)
        self._numbers.append(self._count)
        self._count += 1
        self._changed.set()

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
        self._put(stack, service, slot, task, record(round(at * 1e9), stream, text.encode()))
