"""Many callers, few runs: a call returns after a run that began when it had already been made.

Why: an nft commit costs milliseconds, and a hundred tasks ask for one at once. Whoever finds nothing running runs for
all who wait; there is no background task that could be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Coalesced:
    """`run` must bring about everything asked for before it began. It is never run twice at once."""

    def __init__(self, run: Callable[[], Awaitable[None]]) -> None:
        self._run = run
        self._lock = asyncio.Lock()
        self._asked = 0
        self._done = 0

    async def __call__(self) -> None:
        """Raises what `run` raised, if it was this caller that ran; those who waited then try for themselves."""
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if self._done >= mine:
                return
            covered = self._asked
            await self._run()
            self._done = covered
