"""Routes of volumes, relayed to the agent, who has them; what stacks name is known here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from agent.wire import streams as agent
from orchestrator.api import streams
from orchestrator.api.peer import peer
from orchestrator.api.stacks import Body, Here

router = APIRouter(prefix="/v1/volumes")
Name = Annotated[str, Field(min_length=1, max_length=255)]
File = Annotated[str, Field(pattern="^/")]


class CreateBody(Body):
    name: Name
    labels: dict[str, str] = Field(default_factory=dict)
    options: dict[str, str] = Field(default_factory=dict)


class RemoveBody(Body):
    names: list[Name] = Field(min_length=1)


class PruneBody(Body):
    all: bool = False


class BackupBody(Body):
    name: Name
    path: File


class RestoreBody(Body):
    path: File
    name: Name | None = None
    force: bool = False


@router.get("")
async def volumes(here: Here) -> dict[str, Any]:
    """Every volume of the host, and who uses it."""
    return {"volumes": await agent.call(here.agent_socket, "volumes", named=named(here))}


@router.get("/{name}")
async def volume(here: Here, name: Annotated[Name, Path()]) -> Any:
    """One volume, and the bytes it takes on the disk."""
    return await agent.call(here.agent_socket, "volume", name=name, named=named(here))


@router.post("/create")
async def create(here: Here, body: CreateBody) -> Any:
    """Make a volume; one that is there with the same labels and options is success."""
    return await agent.call(here.agent_socket, "volume-create", **body.model_dump())


@router.post("/remove", response_class=StreamingResponse)
async def remove(here: Here, body: RemoveBody) -> StreamingResponse:
    """Remove volumes with their data: all of them, or none when one is in use. NDJSON: {result} or {error}."""
    return _relay(here, "volume-remove", **body.model_dump(), named=named(here))


@router.post("/prune", response_class=StreamingResponse)
async def prune(here: Here, body: PruneBody) -> StreamingResponse:
    """Remove the anonymous volumes that no stack uses; with `all`, every volume that none names. NDJSON as remove."""
    return _relay(here, "volume-prune", **body.model_dump(), named=named(here))


@router.post("/backup", response_class=StreamingResponse)
async def backup(here: Here, request: Request, body: BackupBody) -> StreamingResponse:
    """Write a volume into one new file, which belongs to who asks. NDJSON: {progress}*, then {result} or {error}."""
    who = peer(request)
    return _relay(here, "volume-backup", **body.model_dump(), uid=who.uid, gid=who.gid)


@router.post("/restore", response_class=StreamingResponse)
async def restore(here: Here, body: RestoreBody) -> StreamingResponse:
    """Make a volume of such a file. NDJSON as backup."""
    return _relay(here, "volume-restore", **body.model_dump(exclude_none=True))


def _relay(here: Here, op: str, **arguments: Any) -> StreamingResponse:
    return streams.ndjson(streams.relay(here.agent_socket, op, arguments))


def named(here: Here) -> dict[str, str]:
    """What stacks name, also those of which the agent knows no task (agent/wire/streams.py, `named`)."""
    found: dict[str, str] = {}
    for stack in here.ledger.stacks.values():
        for volume in stack.model.get("volumes", {}).values():
            found.setdefault(str(volume["name"]), stack.name)
        for task in stack.tasks:
            found.setdefault(f"lineage:{task.lineage or task.id}", f"{stack.name}/{task.service}")
        if stack.held:
            found[f"stack:{stack.name}"] = stack.name
    return found
