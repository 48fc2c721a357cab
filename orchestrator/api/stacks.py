"""Routes of stacks: what they are, and the verbs that change them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agent.kit.errors import UserError
from orchestrator.api import streams
from orchestrator.api.context import Context, context
from orchestrator.api.peer import peer
from orchestrator.applying import Applied
from orchestrator.compose.model import Name, ServiceName, Stack
from orchestrator.decide.pulling import Pull
from orchestrator.decide.runs import Wanted
from orchestrator.decide.staying import Others

router = APIRouter(prefix="/v1")
StackName = Annotated[Name, Path()]
Here = Annotated[Context, Depends(context)]
Services = Annotated[tuple[str, ...], Query()]
Keys = dict[str, str]  # registry, or registry/path, → base64 of USER:PASSWORD: the asker's own, kept nowhere
Wish = Annotated[int, Field(ge=0, le=1000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UpBody(Body):
    model: Stack
    pull: Pull = "policy"
    partial: bool = False  # services that the model does not have stay as they are
    keep: tuple[ServiceName, ...] = ()  # of them, these do in any case
    keys: Keys = Field(default_factory=dict, repr=False)

    @property
    def others(self) -> Others:
        return Others(self.partial, frozenset(self.keep))


class ServicesBody(Body):
    services: tuple[ServiceName, ...] = ()


class KillBody(ServicesBody):
    signal: str = Field(default="SIGKILL", max_length=20)


class RunBody(Body):
    """None: as the service has it. `attended`: it begins when somebody attaches to it (the attach route, `wait`)."""

    service: ServiceName
    name: ServiceName | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    user: str | None = None
    working_dir: str | None = None
    tty: bool | None = None
    stdin: bool | None = None
    attended: bool = False


class ScaleBody(Body):
    replicas: dict[ServiceName, Wish] = Field(min_length=1)


@router.get("/status")
async def status(here: Here, stack: str | None = None, service: Services = ()) -> Response:
    """The status document; `service` may be given again."""
    return Response(here.board.status(stack, service), media_type="application/json")


@router.get("/stacks")
async def stacks(here: Here) -> dict[str, Any]:
    """One short row per stack."""
    return {
        "stacks": [
            {
                "name": entry["name"],
                "revision": entry["revision"],
                "services": len(entry["services"]),
                "tasks": sum(service["replicas"] for service in entry["services"]),
                "ready": sum(service["ready"] for service in entry["services"]),
                "state": entry["state"],
                "updated_at": here.ledger.stacks[entry["name"]].updated_at,
            }
            for entry in here.board.stacks()
        ]
    }


@router.post("/stacks/{name}", response_class=StreamingResponse)
async def up(here: Here, request: Request, name: StackName, body: UpBody) -> StreamingResponse:
    """Make the stack as the model says. NDJSON: {progress}*, then {result} or {error}."""
    if body.model.name != name:
        raise UserError(f"cannot apply stack {body.model.name} as {name}", code="bad-request", hint="use one name")
    if body.model.images:
        raise UserError(
            f"cannot apply stack {name}: model.images is the daemon's to fill", code="bad-request", hint="leave it out"
        )
    who = peer(request)

    async def job(progress: streams.Progress) -> dict[str, Any]:
        return applied(await here.controller.up(body.model, body.pull, who, progress, body.keys, others=body.others))

    return streams.ndjson(streams.work(job))


@router.delete("/stacks/{name}")
async def down(here: Here, request: Request, name: StackName, volumes: bool = False) -> dict[str, Any]:
    """Remove the stack; it is gone when it no longer appears in the status."""
    return {"stack": name, "generation": await here.controller.down(name, volumes, peer(request))}


@router.post("/stacks/{name}/scale")
async def scale(here: Here, request: Request, name: StackName, body: ScaleBody) -> dict[str, Any]:
    """Change numbers of replicas, until the next `up` of a file says otherwise."""
    return applied(await here.controller.scale(name, body.replicas, peer(request)))


@router.post("/stacks/{name}/kill")
async def kill(here: Here, request: Request, name: StackName, body: KillBody) -> dict[str, Any]:
    """Send a signal to the first process of each container of the named services, or of all. Nothing is remembered of
    it: what becomes of one that ends, its restart policy says."""
    return {"stack": name, "signalled": await here.controller.kill(name, body.signal, body.services, peer(request))}


@router.post("/stacks/{name}/run")
async def run(here: Here, request: Request, name: StackName, body: RunBody) -> dict[str, Any]:
    """A command once in a container of the service's, under the name `service` of the answer."""
    wanted = Wanted(**body.model_dump(exclude={"service", "name"}))
    done, once = await here.controller.run(name, body.service, wanted, peer(request), once=body.name)
    return applied(done) | {"service": once}


@router.delete("/stacks/{name}/runs/{run}")
async def end_run(here: Here, request: Request, name: StackName, run: ServiceName) -> dict[str, Any]:
    """Stop and remove what `run` began."""
    return applied(await here.controller.end_run(name, run, peer(request)))


@router.post("/stacks/{name}/{verb}")
async def act(
    here: Here,
    request: Request,
    name: StackName,
    verb: Literal["stop", "start", "restart", "recreate", "pause", "unpause"],
    body: ServicesBody,
) -> dict[str, Any]:
    """Act on the named services, or on all."""
    return applied(await here.controller.act(name, verb, body.services, peer(request)))


@router.post("/drain")
async def drain(here: Here, request: Request, undo: bool = False) -> dict[str, Any]:
    """Take the host out of service: every container leaves its ports, is drained and stopped, and none starts, until
    this is undone. `stacks`: the generation of each that says so."""
    stacks = await here.controller.drain(not undo, peer(request))
    return {"drained": here.ledger.drained or None, "stacks": stacks}


@router.get("/stacks/{name}/watch", response_class=StreamingResponse)
async def watch(
    here: Here, name: StackName, generation: Annotated[int, Query(ge=0)] = 0, service: Services = ()
) -> StreamingResponse:
    """NDJSON status documents of this stack, at once and at every change, until converged at `generation`; of these
    services alone, if any are named."""
    if generation == 0 and name not in here.ledger.stacks:
        here.board.status(name)  # raises stack-unknown
    lines: AsyncIterator[bytes] = streams.watch(here.ledger, here.board, name, generation, service)
    return streams.ndjson(lines)


def applied(done: Applied) -> dict[str, Any]:
    return {
        "stack": done.stack,
        "generation": done.generation,
        "revision": done.revision,
        "actions": [
            {"action": action.kind, "service": action.service, "slot": action.slot, "cause": action.cause}
            for action in done.plan.actions
        ],
    }
