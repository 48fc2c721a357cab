"""NDJSON answers: pushed when something happens, ended by a result, an error, the client or the end of the daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import StreamingResponse

from agent.kit.errors import GoraeError, Temporary
from agent.wire import streams
from agent.wire.messages import Event
from orchestrator.api.board import Board
from orchestrator.api.errors import document
from orchestrator.store.ledger import Ledger

Progress = Callable[[dict[str, Any]], None]


def ndjson(lines: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(lines, media_type="application/x-ndjson")


def sse(events: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def event(lines: bytes, place: str = "", kind: str = "") -> bytes:
    """One Server-Sent Event (HTML Standard, section 9.2.6); without lines, `place` alone: where one that comes back
    goes on."""
    head = (f"event: {kind}\n" if kind else "") + (f"id: {place}\n" if place else "")
    return head.encode() + b"".join(b"data: %b\n" % each for each in lines.splitlines()) + b"\n"


def line(value: Any) -> bytes:
    # A text that came as JSON may hold half a surrogate pair, which UTF-8 has no bytes for.
    return json.dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n"


async def work(job: Callable[[Progress], Awaitable[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """Run `job`; its progress, then {"result": …} or {"error": …}. A client that leaves cancels it."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run() -> None:
        try:
            result = await job(lambda progress: queue.put_nowait({"progress": progress}))
        except Exception as error:  # the answer has begun: a bug too must end it with an error line
            queue.put_nowait(document(error))
        else:
            queue.put_nowait({"result": result})

    running = asyncio.create_task(run())
    try:
        while True:
            item = await queue.get()
            yield line(item)
            if "progress" not in item:
                return
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def relay(socket: Path, op: str, arguments: dict[str, Any]) -> AsyncIterator[bytes]:
    """An operation of the agent's socket: progress, then result or error."""
    try:
        async for kind, value in streams.request(socket, op, **arguments):
            yield line({kind: value})
    except GoraeError as error:
        yield line(document(error))


async def relay_lines(socket: Path, op: str, arguments: dict[str, Any]) -> AsyncIterator[bytes]:
    """The bare lines of a stream of the agent's socket; an error is the last line."""
    try:
        async for kind, value in streams.request(socket, op, **arguments):
            if kind == "line":
                yield line(value)
    except GoraeError as error:
        yield line(document(error))


async def watch(
    ledger: Ledger, board: Board, stack: str, generation: int, services: Sequence[str] = ()
) -> AsyncIterator[bytes]:
    """Status documents of one stack, at once and at every change, until it has converged at `generation` or is gone; of
    `services` alone, if any are named."""
    last: object = None
    with ledger.listen() as bell:
        while not ledger.closed:
            bell.clear()
            whole = board.stack(stack)
            now = (whole, ledger.told, ledger.troubles.told())
            if now != last or whole is None:
                last = now
                entry, said = board.one(stack, services)
                yield said + b"\n"
                if entry is None or (entry["converged"] and entry["observed_generation"] >= generation):
                    return
            await bell.wait()


async def events(
    ledger: Ledger,
    *,
    stack: str | None,
    services: Sequence[str],
    since: float | None,
    limit: int,
    follow: bool,
    after: str | None = None,
) -> AsyncIterator[list[Event] | GoraeError]:
    """The newest `limit` that match, oldest first; then, with `follow`, each new one as it is committed. `after`: those
    committed after this one alone. An error is the last."""
    with ledger.follow() as queue:
        try:
            kept = await ledger.store.events(stack=stack, services=services, since=since, limit=limit, after=after)
        except GoraeError as error:
            yield error
            return
        yield list(kept)
        sent = {one.id for one in kept}
        while follow and not ledger.closed:
            new = await queue.get()
            if new is None:
                if not ledger.closed:
                    yield Temporary("cannot follow the events: the reader is too slow", code="too-slow")
                return
            wanted = stack in (None, new.stack) and (not services or new.service in services)
            if wanted and new.id not in sent:
                yield [new]


async def event_lines(found: AsyncIterator[list[Event] | GoraeError]) -> AsyncIterator[bytes]:
    async for told in found:
        yield line(document(told)) if isinstance(told, GoraeError) else b"".join(map(_event, told))


async def sent_events(found: AsyncIterator[list[Event] | GoraeError]) -> AsyncIterator[bytes]:
    async for told in found:
        if isinstance(told, GoraeError):
            yield event(line(document(told)), kind="error")
        else:
            yield b"".join(event(_event(one), one.id) for one in told)


def _event(one: Event) -> bytes:
    return one.model_dump_json().encode() + b"\n"
