"""What every operation of the agent's socket does with its request: read its fields, and tell of progress."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent.decide.record import signal_number
from agent.kit.errors import Permanent, UserError
from agent.wire.frames import Duplex

Send = Callable[[str, Any], Awaitable[None]]
Operation = Callable[[dict[str, Any], Send], Awaitable[Any]]
Take = Callable[[dict[str, Any]], Awaitable[Duplex]]  # answers {"ready": …}, and hands the connection over
Conversation = Callable[[dict[str, Any], Take], Awaitable[Any]]  # cancelled when the client has gone


@asynccontextmanager
async def progress(send: Send) -> AsyncIterator[Callable[[dict[str, Any]], None]]:
    """A callback for the images' port, whose documents are sent in order by the time the block has ended."""
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def forward() -> None:
        while (document := await queue.get()) is not None:
            await send("progress", document)

    forwarder = asyncio.ensure_future(forward())
    try:
        yield queue.put_nowait
    finally:
        queue.put_nowait(None)
        await forwarder


def text(request: dict[str, Any], key: str) -> str:
    value = request[key]
    if not isinstance(value, str) or not value:
        raise Permanent(f"cannot understand the request: {key} is no text", code="bad-request")
    return value


def texts(request: dict[str, Any], key: str) -> list[str]:
    value = request[key]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Permanent(f"cannot understand the request: {key} is no list of names", code="bad-request")
    return value


def mapping(request: dict[str, Any], key: str) -> dict[str, Any]:
    value = request.get(key) or {}
    if not isinstance(value, dict):
        raise Permanent(f"cannot understand the request: {key} is no object", code="bad-request")
    return value


def labels(request: dict[str, Any], key: str) -> dict[str, str]:
    value = request.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(word, str) for pair in value.items() for word in pair):
        raise Permanent("cannot understand the request: it has an object whose values are no texts", code="bad-request")
    return value


def number(request: dict[str, Any], key: str) -> float | None:
    value = request.get(key)
    found = None if value is None else float(value)
    if found is not None and not math.isfinite(found):
        raise Permanent(f"cannot understand the request: {key} is no number", code="bad-request")
    return found


def signal(name: str) -> int:
    """The number of SIGTERM, TERM or 15. UserError bad-signal."""
    found = signal_number(name)
    if found is None:
        raise UserError(f"cannot send the signal {name[:40]}: there is none", code="bad-signal", hint="kill -l")
    return found
