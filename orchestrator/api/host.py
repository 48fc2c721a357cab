"""Routes of the host: version, events, and what the agent's socket serves (logs, use of the disk), relayed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import StreamingResponse

from agent.kit.errors import GoraeError
from agent.kit.version import VERSION
from agent.wire.messages import WIRE_VERSION
from agent.wire.streams import call
from orchestrator import keeping, refusals
from orchestrator.api import streams
from orchestrator.api.board import troubles
from orchestrator.api.stacks import Here, Services
from orchestrator.api.volumes import named
from orchestrator.decide import reach

router = APIRouter(prefix="/v1")
Limit = Annotated[int, Query(ge=0, le=100_000)]


@router.get("/version")
async def version(here: Here) -> dict[str, Any]:
    """Who is here: this version, the store, and the agent as it last spoke."""
    host = here.ledger.host
    return {
        "version": VERSION,
        "wire_version": WIRE_VERSION,
        "store_id": here.ledger.identity.store_id,
        "agent": {
            "online": here.ledger.online,
            "version": host.version if host else None,
            "instance": host.instance if host else None,
        },
        "troubles": troubles(here.ledger),
    }


@router.get("/ports")
async def ports(here: Here, stack: str | None = None) -> dict[str, Any]:
    """Published ports, of one stack or all: who reaches what (decide/reach.py). `firewalls`: those of this host that
    are not asked about them; null when the agent does not say."""
    ledger = here.ledger
    if stack is not None and stack not in ledger.stacks:
        raise refusals.no_stack(stack)
    found = [
        row
        for name, record in sorted(ledger.stacks.items())
        if stack in (None, name)
        for row in reach.rows(record, ledger.statuses.get(name))
    ]
    try:
        firewalls = (await call(here.agent_socket, "surroundings"))["firewalls"]
    except GoraeError:
        firewalls = None
    return {"ports": found, "firewalls": firewalls}


@router.get("/df", response_class=StreamingResponse)
async def usage(here: Here) -> StreamingResponse:
    """What takes room on the disk, by kind, image, task and volume, and what could go. NDJSON: {result} or {error}."""
    arguments = {"keep": await keeping.needed(here.ledger), "named": named(here)}
    return streams.ndjson(streams.relay(here.agent_socket, "usage", arguments))


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}, "text/event-stream": {}}}},
)
async def events(
    here: Here,
    request: Request,
    stack: str | None = None,
    service: Services = (),
    since: float | None = None,
    limit: Limit = 1000,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)] = None,
) -> StreamingResponse:
    """Oldest first: the newest `limit` since Unix time `since`; with `follow`, then each new one. NDJSON, or
    Server-Sent Events (Accept: text/event-stream), whose ids are the events': Last-Event-ID goes on after that one."""
    found = streams.events(
        here.ledger, stack=stack, services=service, since=since, limit=limit, follow=follow, after=last_event_id
    )
    if "text/event-stream" in request.headers.get("accept", ""):
        return streams.sse(streams.sent_events(found))
    return streams.ndjson(streams.event_lines(found))
