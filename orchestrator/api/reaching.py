"""Files and ports of running containers, over WebSockets as api/entering.py has them. STDIN and STDOUT carry a tar, or
what is said over a connection; each way ends with END."""

from __future__ import annotations

import json
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.websockets import WebSocket

from agent.wire.streams import converse
from orchestrator.api.context import Context
from orchestrator.api.entering import relay, serve
from orchestrator.api.stacks import Body
from orchestrator.applying import Peer
from orchestrator.store.port import Change

router = APIRouter(prefix="/v1")


class CopyOutBody(Body):
    """`follow`: what a symlink leads to, not the link. Names in the tar begin with the path's last part, or "."."""

    path: str = Field(min_length=1, max_length=4095)
    follow: bool = False
    slot: int | None = Field(default=None, ge=1)


class CopyInBody(Body):
    """`name`: the first part of each name in the tar of a file or directory. `archive`: owners as the tar says."""

    path: str = Field(min_length=1, max_length=4095)
    source: Literal["file", "directory", "content", "archive"]
    name: str = Field(default="", max_length=255)
    archive: bool = False
    slot: int | None = Field(default=None, ge=1)


class ForwardBody(Body):
    """`slot`: of the service's containers, else the first that runs."""

    port: int = Field(ge=1, le=65535)
    slot: int | None = Field(default=None, ge=1)


_AT = "/v1/stacks/{name}/services/{service}"
# Path → what its first message is; `upgrades.py` tells of them.
BODIES: dict[str, type[Body]] = {
    f"{_AT}/copy-out": CopyOutBody,
    f"{_AT}/copy-in": CopyInBody,
    f"{_AT}/forward": ForwardBody,
}


@router.websocket("/stacks/{name}/services/{service}/copy-out")
async def copy_out(socket: WebSocket, name: str, service: str) -> None:
    """A file or tree of a running container, as a tar."""
    await serve(socket, CopyOutBody, lambda body: _pass_on(socket, "copy-out", name, service, body))


@router.websocket("/stacks/{name}/services/{service}/copy-in")
async def copy_in(socket: WebSocket, name: str, service: str) -> None:
    """A tar into a running container."""
    await serve(socket, CopyInBody, lambda body: _pass_on(socket, "copy-in", name, service, body))


@router.websocket("/stacks/{name}/services/{service}/forward")
async def forward(socket: WebSocket, name: str, service: str) -> None:
    """One TCP connection to a port of a running container, of its 127.0.0.1 too."""
    await serve(socket, ForwardBody, lambda body: _pass_on(socket, "forward", name, service, body))


async def _pass_on(socket: WebSocket, op: str, name: str, service: str, body: Body) -> None:
    """One operation of the agent's, relayed; of a copy, after an event that tells who asked for it."""
    here: Context = socket.app.state.context
    here.board.status(name, [service])  # raises stack-unknown or service-unknown
    if isinstance(body, CopyOutBody | CopyInBody):
        who: Peer = socket.state.peer
        told = here.ledger.event(
            f"user.{op}",
            f"{op}: {body.path[:200]} (by uid {who.uid})",
            stack=name,
            service=service,
            slot=body.slot,
            reason="user",
            evidence={"uid": who.uid, "path": body.path},
        )
        await here.ledger.commit(Change(events=[told]))
    asked = body.model_dump(exclude_none=True)
    async with converse(here.agent_socket, op, stack=name, service=service, **asked) as (ready, duplex):
        await socket.send_text(json.dumps({"ready": ready}))
        await relay(socket, duplex)
