"""Routes of the host: version, events, and what the agent's socket serves (logs, use of the disk), relayed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from agent.kit.errors import GoraeError
from agent.kit.version import VERSION
from agent.wire.messages import WIRE_VERSION
from agent.wire.streams import call
from orchestrator import keeping, refusals
from orchestrator.api import streams
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


@router.get("/events", response_class=StreamingResponse)
async def events(
    here: Here,
    stack: str | None = None,
    service: Services = (),
    since: float | None = None,
    limit: Limit = 1000,
    follow: bool = False,
) -> StreamingResponse:
    """NDJSON, oldest first: the newest `limit` since Unix time `since`; with `follow`, then each new one."""
    found = streams.events(here.ledger, stack=stack, services=service, since=since, limit=limit, follow=follow)
    return streams.ndjson(found)


@router.get("/logs", response_class=StreamingResponse)
async def logs(
    here: Here,
    stack: str,
    service: Services = (),
    task: str | None = None,
    follow: bool = False,
    since: float | None = None,
    until: float | None = None,
    tail: Annotated[int | None, Query(ge=0)] = None,
) -> StreamingResponse:
    """NDJSON {task, service, slot, at, stream, text}; `since` and `until` in Unix seconds, `tail` of each slot."""
    here.board.status(stack, service)  # raises stack-unknown or service-unknown
    arguments = {"services": service or None, "task": task, "since": since, "until": until, "tail": tail}
    wanted = {key: value for key, value in arguments.items() if value is not None}
    lines = streams.relay_lines(here.agent_socket, "logs", {"stack": stack, "follow": follow, **wanted})
    return streams.ndjson(lines)
