"""What containers wrote, relayed from the agent's socket, in the form that the asker takes (Accept):

application/x-gorae-batches   as the agent sends it (agent/wire/batches.py): bytes pass through, for `gorae logs`
text/event-stream             Server-Sent Events (HTML Standard, section 9.2): an event is some lines of NDJSON, its
                              id how far it reaches; Last-Event-ID goes on exactly there
anything else                 NDJSON
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agent.kit.errors import GoraeError
from agent.wire import streams as agent
from agent.wire.batches import Decoder, Item, Part, cursor, places, told
from orchestrator.api import passing, streams
from orchestrator.api.context import Context
from orchestrator.api.errors import document
from orchestrator.api.stacks import Here, Services, StackName

router = APIRouter(prefix="/v1")
BATCHES, SSE = "application/x-gorae-batches", "text/event-stream"
_LITTLE = 64 * 1024  # bytes
_PIECE = 1000  # lines that are told at once
AGAIN = 0.2  # seconds between two tries to reach an agent that starts anew
FORMS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {}, SSE: {}}}}
Tail = Annotated[int | None, Query(ge=0)]
Seen = Annotated[str | None, Header(alias="Last-Event-ID", max_length=1 << 20)]


@dataclass
class _Asked:
    """What both routes take besides the names."""

    task: str | None = None
    follow: bool = False
    since: float | None = None
    until: float | None = None
    tail: Tail = None
    last_event_id: Seen = None

    def arguments(self) -> dict[str, Any]:
        """As the agent names them."""
        wanted: dict[str, Any] = {"task": self.task, "follow": self.follow, "since": self.since, "until": self.until}
        return {**wanted, "tail": self.tail, "after": self.last_event_id or None}


Asked = Annotated[_Asked, Depends()]


@router.get("/stacks/{stack}/logs", response_class=StreamingResponse, responses=FORMS)
async def of_stack(
    here: Here,
    request: Request,
    stack: StackName,
    asked: Asked,
    service: Services = (),
) -> Response:
    """As /v1/logs, of one stack."""
    return await logs(here, request, asked, stack, service)


@router.get("/logs", response_class=StreamingResponse, responses=FORMS)
async def logs(
    here: Here,
    request: Request,
    asked: Asked,
    stack: str | None = None,
    service: Services = (),
) -> Response:
    """{kind: "line", stack, service, slot, task, at, stream, text}, {kind: "attempt", …, attempt}, {kind: "gap", …},
    {kind: "note", text}; of no stack: of all. `since` and `until` in Unix seconds, `tail` of each slot. A text that is
    no UTF-8 comes in `base64` as well; `partial`: the next line of the stream goes on with it."""
    here.board.status(stack, service)  # raises stack-unknown or service-unknown
    wanted = {"stack": stack, "services": list(service) or None, **asked.arguments()}
    arguments = {key: value for key, value in wanted.items() if value is not None}
    if asked.last_event_id:
        places(asked.last_event_id)  # raises bad-cursor before the answer begins
    notes = [] if asked.last_event_id else _notes(here, stack, service)
    accept = request.headers.get("accept", "")
    if BATCHES in accept and request.scope["http_version"] == "1.0":
        with suppress(OSError):  # no agent: the other way says so
            source = await passing.ask(here.agent_socket, "logs", arguments)
            first = b"".join(streams.line({"note": note["text"]}) for note in notes)
            return passing.Passed(source, first, BATCHES)
    if BATCHES in accept:
        return StreamingResponse(_batches(here.agent_socket, arguments, notes), media_type=BATCHES)
    if SSE in accept:
        return streams.sse(_events(here.agent_socket, arguments, notes))
    return streams.ndjson(_lines(here.agent_socket, arguments, notes))


def _notes(here: Context, stack: str | None, services: Services) -> list[dict[str, Any]]:
    silent = {
        f"{name}/{task.service}"
        for name, record in here.ledger.stacks.items()
        for task in record.tasks
        if stack in (None, name) and (not services or task.service in services) and not task.container.logged
    }
    return [{"kind": "note", "text": f"{name} keeps no logs: its logging driver is none"} for name in sorted(silent)]


async def _batches(socket: Path, arguments: dict[str, Any], notes: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        for note in notes:
            yield streams.line({"note": note["text"]})
        async for data in agent.raw(socket, "logs", **arguments):
            yield data
    except GoraeError as error:
        yield streams.line(document(error))


async def _lines(socket: Path, arguments: dict[str, Any], notes: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        yield b"".join(map(streams.line, notes))
        async for pieces, _ in _told(socket, arguments):
            for piece in pieces:
                yield piece
    except GoraeError as error:
        yield streams.line(document(error))


async def _events(socket: Path, arguments: dict[str, Any], notes: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        for note in notes:
            yield streams.event(streams.line(note))
        async for pieces, place in _told(socket, arguments):
            yield streams.event(b"", place).removesuffix(b"\n")
            for piece in pieces:  # all one event: it has one place to go on at
                yield streams.event(piece).removesuffix(b"\n")
            yield b"\n"
        yield streams.event(b"{}\n", kind="end")
    except GoraeError as error:
        yield streams.event(streams.line(document(error)), kind="error")


def _pieces(found: Sequence[tuple[Part, Item]]) -> list[bytes]:
    return [
        b"".join(streams.line(told(part, item)) for part, item in found[at : at + _PIECE])
        for at in range(0, len(found), _PIECE)
    ]


def _fed(decoder: Decoder, batch: list[Part]) -> list[bytes]:
    return _pieces(decoder.feed(batch))


async def _told(socket: Path, arguments: dict[str, Any]) -> AsyncIterator[tuple[list[bytes], str]]:
    """Batches as NDJSON, in pieces, and the cursor after each. With `follow` it goes on when the agent starts anew."""
    since, until, after = arguments.get("since"), arguments.get("until"), arguments.get("after")
    while True:
        decoder = Decoder(since=since, until=until, after=places(after) if after else None)
        try:
            async for kind, value in agent.request(socket, "logs", **arguments):
                if kind == "batch":
                    if sum(len(part.data) for part in value) > _LITTLE:  # a second's work: others have their turn
                        pieces = await asyncio.to_thread(_fed, decoder, value)
                    else:
                        pieces = _fed(decoder, value)
                    after = cursor(decoder.places)
                    yield pieces, after
            yield _pieces(decoder.rest()), after or ""
            return
        except GoraeError as error:
            if error.code != "agent-away" or not arguments["follow"] or not after:
                raise
        await asyncio.sleep(AGAIN)
        arguments = {**arguments, "after": after}
