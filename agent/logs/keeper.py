"""Keeps the logs of each slot within its cap, and those of the host together within the budget: puts aside by size, and
drops the oldest files.

Looked at when something was written, but not again at once: between two looks a cap can be exceeded by what is written
meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.decide import log_budget
from agent.kit.clock import Clock
from agent.kit.errors import GoraeError, UserError
from agent.ports import LogFile, LogFiles
from agent.wire.messages import LogLimits

log = logging.getLogger("gorae.agent")

EVERY = 2.0  # seconds after which there is a look though nobody wrote
PAUSE = 0.01  # seconds between two looks at least; a container that does nothing else writes a megabyte meanwhile
COUNT_EVERY = 30.0  # seconds after which all is counted though nothing was rotated
TELL_EVERY = 600.0  # seconds; a container that floods its log has files dropped all the time

Tell = Callable[[str, dict[str, Any]], Awaitable[None]]
Caps = Callable[[str], LogLimits | None]  # of a task; None: it does not say, or is no task any more


@dataclass(frozen=True, slots=True)
class Limits:
    """[logs] of gorae.toml. `budget`: bytes on the disk, of all logs together."""

    budget: int = 2 << 30

    def __post_init__(self) -> None:
        """UserError bad-settings."""
        if self.budget < 1 << 20:
            raise UserError(
                f"cannot keep all logs within {self.budget} bytes",
                code="bad-settings",
                hint='in [logs] of gorae.toml, budget is "1m" or more',
            )


class Keeper:
    """`tell`: called with a sentence and its evidence when logs had to go."""

    def __init__(self, logs: LogFiles, clock: Clock, limits: Limits, caps: Caps, tell: Tell) -> None:
        self._logs, self._clock, self._budget, self._caps, self._tell = logs, clock, limits.budget, caps, tell
        self._most = log_budget.MOST
        self._counted: float | None = None
        self._told: float | None = None
        self._files = self._bytes = 0  # dropped since it was told last

    async def run(self) -> None:
        """For life. What fails is tried at the next look."""
        failing = False
        while True:
            try:
                await self.look()
                failing = False
            except (OSError, GoraeError) as error:
                if not failing:
                    log.warning("cannot keep the logs within their budget: %s", error)
                failing = True
            await self._logs.written(EVERY)
            await self._clock.sleep(PAUSE)

    async def look(self) -> None:
        age = COUNT_EVERY if self._counted is None else self._clock.now() - self._counted
        if age >= COUNT_EVERY:
            self._logs.look_at_all()
        rotated = await self._logs.rotate_if_needed(self._portion)
        if age >= (EVERY if rotated else COUNT_EVERY):
            await self._count()
        else:
            for stack, service in sorted({(file.stack, file.service) for file in rotated}):
                await self._cap(await self._logs.files(stack, service))
        if self._files and (self._told is None or self._clock.now() - self._told >= TELL_EVERY):
            await self._say()

    async def _count(self) -> None:
        files = await self._cap(await self._logs.files())
        self._most = log_budget.rotate_at(files, self._budget, log_budget.MOST)
        gone = await self._logs.drop(log_budget.surplus(files, self._budget))
        left = sum(file.size for file in files) - sum(file.size for file in gone)
        # Still over it: what was just put aside may go as soon as its conmon has begun another file.
        self._counted = self._clock.now() - (0.0 if left <= self._budget else COUNT_EVERY - EVERY)
        self._files += len(gone)
        self._bytes += sum(file.size for file in gone)

    def _portion(self, task: str) -> int:
        return min(self._most, log_budget.portion(self._caps(task)))

    async def _cap(self, files: Sequence[LogFile]) -> list[LogFile]:
        """What is left of them."""
        slots: dict[tuple[str, str, int], list[LogFile]] = {}
        for file in files:
            slots.setdefault((file.stack, file.service, file.slot), []).append(file)
        left = []
        for own in slots.values():
            newest = max(own, key=lambda file: (file.live, file.at))
            gone = await self._logs.drop(log_budget.over_cap(own, self._caps(newest.task)))
            left += [file for file in own if file not in gone]
        return left

    async def _say(self) -> None:
        evidence = {"files": self._files, "bytes": self._bytes, "budget": self._budget}
        self._told, self._files, self._bytes = self._clock.now(), 0, 0
        told = f"{evidence['files']} old log files were dropped, {evidence['bytes']} bytes"
        told += f": all together were over the budget of {self._budget}"
        log.warning("%s", told)
        await self._tell(told, evidence)
