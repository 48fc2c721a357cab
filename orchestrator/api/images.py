"""Routes of images and registries, which the agent's socket serves; and what of them is outdated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import StreamingResponse

from agent.kit.errors import UserError
from agent.wire import streams as agent
from orchestrator import keeping
from orchestrator.api import streams
from orchestrator.api.stacks import Body, Here, Keys
from orchestrator.compose.model import Stack
from orchestrator.store.ledger import Ledger

router = APIRouter(prefix="/v1")


class PullBody(Body):
    name: str
    platform: str | None = None
    keys: Keys = Field(default_factory=dict, repr=False)


class LoadBody(Body):
    path: str = Field(pattern="^/")
    name: str | None = None


class ImportBody(Body):
    path: str = Field(pattern="^/")
    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class RemoveBody(Body):
    name: str


class TagBody(Body):
    name: str
    new: str


class SaveBody(Body):
    names: tuple[str, ...] = Field(min_length=1)
    format: Literal["docker-archive", "oci-archive"] = "docker-archive"


class PruneBody(Body):
    """`all`: also images that have a name. `older`: seconds since they were wanted last."""

    all: bool = False
    older: float = Field(default=0.0, ge=0)
    dry: bool = False


class CheckBody(Body):
    repair: bool = False


class LoginBody(Body):
    registry: str
    user: str
    password: str = Field(repr=False)


class LogoutBody(Body):
    registry: str


class OutdatedBody(Body):
    stack: str | None = None
    keys: Keys = Field(default_factory=dict, repr=False)


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


@router.get("/images/inspect")
async def inspect(here: Here, name: str) -> Any:
    """One image: config, layers, history, who uses it."""
    return await agent.call(here.agent_socket, "inspect", name=name)


@router.get("/images/usage")
async def usage(here: Here) -> Any:
    """Numbers and bytes of what is here, and of what neither a task nor a revision needs."""
    return await agent.call(here.agent_socket, "image-usage", keep=await keeping.needed(here.ledger))


@router.post("/images/tag")
async def tag(here: Here, body: TagBody) -> Any:
    """Give an image one more name."""
    return await agent.call(here.agent_socket, "tag", **body.model_dump())


@router.post("/images/save", response_class=StreamingResponse)
async def save(here: Here, body: SaveBody) -> StreamingResponse:
    """NDJSON: {data: base64}*, the bytes of an archive; then {result: {bytes}} or {error}."""
    return _relay(here, "save", body)


@router.post("/images/prune", response_class=StreamingResponse)
async def prune(here: Here, body: PruneBody) -> StreamingResponse:
    """Remove images that neither a task nor a stored revision needs. NDJSON as pull."""
    wanted = {"unnamed": not body.all, "young": 0.0, "old": body.older, "dry": body.dry}
    keep = await keeping.needed(here.ledger)
    return streams.ndjson(streams.relay(here.agent_socket, "image-collect", {**wanted, "keep": keep}))


@router.post("/images/fsck", response_class=StreamingResponse)
async def fsck(here: Here, body: CheckBody) -> StreamingResponse:
    """Verify every blob and layer; with `repair`, put right what is broken and not in use. NDJSON as pull."""
    return _relay(here, "fsck", body)


@router.post("/images/outdated", response_class=StreamingResponse)
async def outdated(here: Here, body: OutdatedBody) -> StreamingResponse:
    """What each image of the stacks is locked to, beside what its registry has now. NDJSON: {result: {images}}."""
    if body.stack is not None:
        here.board.status(body.stack)  # raises stack-unknown

    async def job(_: streams.Progress) -> dict[str, Any]:
        rows = list(_locked(here.ledger, body.stack))
        names = sorted({row["image"] for row in rows if row["digest"]})
        answers = await agent.call(here.agent_socket, "latest", images=names, keys=body.keys) if names else {}
        return {"images": [row | _compared(row["digest"], answers.get(row["image"], {})) for row in rows]}

    return streams.ndjson(streams.work(job))


@router.get("/logins")
async def logins(here: Here) -> dict[str, Any]:
    """Registries that the daemon has a password for, and whose."""
    return {"logins": await agent.call(here.agent_socket, "logins")}


@router.post("/logins", response_class=StreamingResponse)
async def login(here: Here, body: LoginBody) -> StreamingResponse:
    """Ask the registry, then keep the password where root alone can read it. NDJSON as pull."""
    return _relay(here, "login", body)


@router.post("/logins/remove")
async def logout(here: Here, body: LogoutBody) -> dict[str, Any]:
    """Forget the password."""
    await agent.call(here.agent_socket, "logout", registry=body.registry)
    return {"registry": body.registry}


def _locked(ledger: Ledger, stack: str | None) -> Iterator[dict[str, Any]]:
    """One row for each image of each stack that is not on its way out."""
    for name, record in sorted(ledger.stacks.items()):
        if record.removed or stack not in (None, name):
            continue
        model = Stack.model_validate(record.model)
        for image, lock in sorted(model.images.items()):
            services = sorted(key for key, service in model.services.items() if service.image == image)
            yield {"stack": name, "services": services, "image": image, "id": lock.id, "digest": lock.digest}


def _compared(digest: str, answer: dict[str, Any]) -> dict[str, Any]:
    """What is said of one image; `answer` as the agent gives it for a name."""
    latest, error = answer.get("digest"), answer.get("error", {}).get("message")
    if not digest:
        state = "local"
    elif latest is None:
        state = "unknown"
    else:
        state = "current" if latest == digest else "outdated"
    return {"state": state, "latest": latest, "error": error}


def _relay(here: Here, op: str, body: Body) -> StreamingResponse:
    return streams.ndjson(streams.relay(here.agent_socket, op, body.model_dump(exclude_none=True)))
