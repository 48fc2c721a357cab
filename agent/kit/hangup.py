"""Learn that the peer of a unix socket has closed it, though nobody reads what it sent: a reader that is held back
would not see the end. The kernel tells of a hang-up whether it was asked or not (epoll_ctl(2), EPOLLHUP)."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangUp:
    """`call` once when both directions are closed; never after `close`, which comes before the socket's own."""

    def __init__(self, fd: int, call: Callable[[], None]) -> None:
        self._call = call
        self._epoll: select.epoll | None = select.epoll(1)
        self._epoll.register(fd, 0)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._hung_up)

    def close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _hung_up(self) -> None:
        self.close()
        self._call()
