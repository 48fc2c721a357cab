"""Single flight: callers that want the same thing at the same time share one execution of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """The work is owned by its callers together: it is cancelled when the last of them has gone."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[asyncio.Task[T], list[None]]] = {}

    async def join(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        if key not in self._running or self._running[key][0].done():  # done, and nobody was told yet
            task = asyncio.ensure_future(_run(work))
            self._running[key] = (task, [])
            task.add_done_callback(lambda done: self._done(key, done))
        task, callers = self._running[key]
        callers.append(None)
        try:
            return await asyncio.shield(task)
        finally:
            callers.pop()
            if not callers and not task.done():
                self._forget(key, task)  # who comes now begins anew
                task.cancel()
                await asyncio.wait([task])

    async def join_or_do(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """The same for callers who have different sources: that another's has failed says nothing of one's own."""
        tried = False

        async def own() -> T:
            nonlocal tried
            tried = True
            return await work()

        while True:
            try:
                return await self.join(key, own)
            except Exception:
                if tried:
                    raise

    def _forget(self, key: str, task: asyncio.Task[T]) -> None:
        if self._running.get(key, (None,))[0] is task:
            del self._running[key]

    def _done(self, key: str, task: asyncio.Task[T]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # a caller that was cancelled meanwhile does not fetch it


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
