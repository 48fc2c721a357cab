"""Routes into running containers, which the agent's socket serves: what they use, their processes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from agent.wire.streams import call
from orchestrator import refusals
from orchestrator.api import streams
from orchestrator.api.stacks import Here, Services

router = APIRouter(prefix="/v1")


@router.get("/stats", response_class=StreamingResponse)
async def stats(
    here: Here,
    stack: str | None = None,
    service: Services = (),
    follow: bool = False,
    every: Annotated[float, Query(ge=0.1, le=3600)] = 1.0,
) -> StreamingResponse:
    """NDJSON {at, cpus, memory, tasks}: what each running container uses, with its limits (docs/api.md). Once, without
    rates; with `follow`, one after the other, the first without rates."""
    if stack is not None or service:
        here.board.status(stack, service)  # raises stack-unknown or service-unknown
    wanted: dict[str, Any] = {"follow": follow, "every": every}
    if stack is not None:
        wanted["stack"] = stack
    if service:
        wanted["services"] = service
    return streams.ndjson(streams.relay_lines(here.agent_socket, "stats", wanted))


@router.get("/processes")
async def processes(here: Here, stack: str, service: Services = ()) -> dict[str, Any]:
    """The processes of each running container of the named services, or of all. UserError nothing-runs."""
    here.board.status(stack, service)  # raises stack-unknown or service-unknown
    found = await call(here.agent_socket, "processes", stack=stack, services=service)
    if not found:
        raise refusals.nothing_runs(stack, service)
    return {"at": round(here.ledger.clock.wall(), 3), "stack": stack, "containers": found}
