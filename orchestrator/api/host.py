"""Routes of the host: version, events, and what the agent's socket serves (logs, images), relayed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import StreamingResponse

from agent.kit.errors import UserError
from agent.kit.version import VERSION
from agent.wire import streams as agent
from agent.wire.messages import WIRE_VERSION
from orchestrator.api import streams
from orchestrator.api.stacks import Body, Here, Services

router = APIRouter(prefix="/v1")
Limit = Annotated[int, Query(ge=0, le=100_000)]


class PullBody(Body):
    name: str


class LoadBody(Body):
    path: str = Field(pattern="^/")
    name: str | None = None


class ImportBody(Body):
    path: str = Field(pattern="^/")
    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class RemoveBody(Body):
    name: str


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


@router.get("/images")
async def images(here: Here) -> dict[str, Any]:
    """What the agent's image store holds."""
    return {"images": await agent.call(here.agent_socket, "images")}


@router.post("/images/pull", response_class=StreamingResponse)
async def pull(here: Here, body: PullBody) -> StreamingResponse:
    """Fetch an image. NDJSON: {progress}*, then {result} or {error}."""
    return _relay(here, "pull", body)


@router.post("/images/load", response_class=StreamingResponse)
async def load(here: Here, body: LoadBody) -> StreamingResponse:
    """Take images from a docker-archive or oci-archive. NDJSON as pull."""
    return _relay(here, "load", body)


@router.post("/images/import", response_class=StreamingResponse)
async def import_(here: Here, body: ImportBody) -> StreamingResponse:
    """Make an image of a root file system. NDJSON as pull."""
    return _relay(here, "import", body)


@router.post("/images/remove", response_class=StreamingResponse)
async def remove(here: Here, body: RemoveBody) -> StreamingResponse:
    """Remove a name, and the image when it was the last. NDJSON as pull."""
    for stack in here.ledger.stacks.values():
        for task in stack.tasks:
            if body.name in (task.container.image, task.container.image_id):
                raise UserError(
                    f"cannot remove image {body.name}: {stack.name}/{task.service} uses it",
                    code="image-in-use",
                    hint=f"gorae down -p {stack.name}, or give that service another image",
                )
    return _relay(here, "remove", body)


def _relay(here: Here, op: str, body: Body) -> StreamingResponse:
    return streams.ndjson(streams.relay(here.agent_socket, op, body.model_dump(exclude_none=True)))
