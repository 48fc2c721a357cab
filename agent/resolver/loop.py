"""An event loop of forty lines: descriptors and deadlines. asyncio alone would double the resolver's memory."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Timer:
    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    def __init__(self) -> None:
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0

    def add(self, fd: int, call: Callable[[int], None], events: int = READ) -> None:
        """`call(events)` whenever the descriptor is ready."""
        self._poll.register(fd, events)
        self._calls[fd] = call

    def modify(self, fd: int, events: int) -> None:
        self._poll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Before it is closed: a duplicate of it elsewhere would keep it in the poll for ever."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def run_once(self, longest: float = -1) -> None:
        """Wait for what comes first, and do it. `longest`: seconds."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        wait = longest
        if self._timers:
            left = max(0.0, self._timers[0][0] - time.monotonic())
            wait = left if longest < 0 else min(left, longest)
        for fd, events in self._poll.poll(wait):
            call = self._calls.get(fd)  # None: an earlier one of this round has closed it
            if call is not None:
                call(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due = heapq.heappop(self._timers)[2].call
            if due is not None:
                due()

    def close(self) -> None:
        self._poll.close()
