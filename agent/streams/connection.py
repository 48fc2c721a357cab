"""One client of the agent's socket: lines of JSON to it, and frames both ways once an operation has taken it over."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from typing import Any

from agent.wire.frames import ERROR, RESULT, Duplex, take_over
from agent.wire.messages import Listener, StackStatus

_AT_ONCE = 65536


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._duplex: Duplex | None = None
        self._taken = asyncio.Event()

    async def send(self, kind: str, value: Any) -> None:
        """{kind: value}: a line, or the last frame. Bytes: as they are."""
        if self._duplex is not None:
            document = json.loads(json.dumps(value, default=_plain))
            await self._duplex.tell(ERROR if kind == "error" else RESULT, document)
            return
        self._writer.write(
            value if isinstance(value, bytes) else json.dumps({kind: value}, default=_plain).encode() + b"\n"
        )
        await self._writer.drain()

    async def take(self, document: dict[str, Any]) -> Duplex:
        """Answer {"ready": document}; what follows is frames."""
        await self.send("ready", document)
        self._duplex = await take_over(self._reader, self._writer)
        self._taken.set()
        return self._duplex

    async def gone(self, *, taking: bool) -> None:
        """Returns when the client has closed. `taking`: what it sends is for the operation to read."""
        if not taking:
            while await self._reader.read(_AT_ONCE):
                pass  # what it still sends is dropped
            return
        await self._taken.wait()
        assert self._duplex is not None
        await self._duplex.gone.wait()

    async def close(self) -> None:
        """What was sent is still delivered, unless the client has gone."""
        if self._duplex is not None:
            await self._duplex.close()
            return
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def _plain(value: Any) -> Any:
    if isinstance(value, StackStatus | Listener):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"no JSON form of {type(value).__name__}")
