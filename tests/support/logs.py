"""Batches of logs, taken apart as whoever shows them does."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from agent.wire.batches import Decoder, Part, encode, told
from agent.wire.records import record


def said(
    *texts: str | bytes, at: float = 1.0, service: str = "web", slot: int = 1, task: str = "t", offset: int = 0
) -> bytes:
    """A batch of one task's lines on stdout."""
    lines = [text if isinstance(text, bytes) else text.encode() for text in texts]
    data = b"".join(record(round(at * 1e9), "stdout", line) for line in lines)
    return encode([Part("shop", service, slot, task, 5, offset, False, data)])


async def items(
    reading: AsyncGenerator[list[Part], None], since: float | None = None, until: float | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Documents, as docs/api.md has them."""
    decoder = Decoder(since=since, until=until)
    async for parts in reading:
        for part, item in decoder.feed(parts):
            yield told(part, item)
    for part, item in decoder.rest():
        yield told(part, item)


class Following:
    """Texts one by one, and the kind of what has none. It reads only when asked for more than it has."""

    def __init__(self, reading: AsyncGenerator[list[Part], None], since: float | None = None) -> None:
        self._reading, self._decoder = reading, Decoder(since=since)
        self._found: deque[str] = deque()

    async def next(self) -> str:
        while not self._found:
            found = self._decoder.feed(await anext(self._reading))
            self._found += [str(one.get("text", one["kind"])) for one in (told(*each) for each in found)]
        return self._found.popleft()

    async def close(self) -> None:
        await self._reading.aclose()
