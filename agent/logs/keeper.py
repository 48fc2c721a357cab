"""Keeps all logs of the host together within the budget: rotates by size, and drops the oldest files.

Looked at now and then: a file tells nobody that it grew, unless every line written woke us. Between two looks the
budget can be exceeded by what is written meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent.decide import log_budget
from agent.kit.clock import Clock
from agent.kit.errors import GoraeError, UserError
from agent.ports import LogFiles

log = logging.getLogger("gorae.agent")

EVERY = 2.0  # seconds between two looks at the sizes
COUNT_EVERY = 30.0  # seconds after which all is counted though nothing was rotated
TELL_EVERY = 600.0  # seconds; a container that floods its log has files dropped all the time
ROTATE_AT = 10 * 1024 * 1024  # bytes

Tell = Callable[[str, dict[str, Any]], Awaitable[None]]


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

    def __init__(self, logs: LogFiles, clock: Clock, limits: Limits, tell: Tell) -> None:
        self._logs, self._clock, self._budget, self._tell = logs, clock, limits.budget, tell
        self._rotate_at = ROTATE_AT
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
            await self._clock.sleep(EVERY)

    async def look(self) -> None:
        rotated = await self._logs.rotate_if_needed(self._rotate_at)
        if rotated or self._counted is None or self._clock.now() - self._counted >= COUNT_EVERY:
            await self._count()
        if self._files and (self._told is None or self._clock.now() - self._told >= TELL_EVERY):
            await self._say()

    async def _count(self) -> None:
        files = await self._logs.files()
        self._rotate_at = log_budget.rotate_at(files, self._budget, ROTATE_AT)
        gone = await self._logs.drop(log_budget.surplus(files, self._budget))
        left = sum(file.size for file in files) - sum(file.size for file in gone)
        # Still over it: what was just put aside may go as soon as its conmon has begun another file.
        self._counted = self._clock.now() if left <= self._budget else None
        self._files += len(gone)
        self._bytes += sum(file.size for file in gone)

    async def _say(self) -> None:
        evidence = {"files": self._files, "bytes": self._bytes, "budget": self._budget}
        self._told, self._files, self._bytes = self._clock.now(), 0, 0
        told = f"{evidence['files']} old log files were dropped, {evidence['bytes']} bytes"
        told += f": all together were over the budget of {self._budget}"
        log.warning("%s", told)
        await self._tell(told, evidence)
