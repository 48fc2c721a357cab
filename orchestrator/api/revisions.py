"""Routes of what was, and of what would be: revisions, their differences, the way back, reasons, and plans."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request

from agent.kit.errors import UserError
from agent.wire import streams
from orchestrator import refusals
from orchestrator.api.peer import peer
from orchestrator.api.stacks import Body, Here, StackName, UpBody, applied
from orchestrator.compose.model import LockedImage, ServiceName, Stack
from orchestrator.decide.difference import difference
from orchestrator.decide.networks import settled
from orchestrator.decide.ports import published_at
from orchestrator.decide.preview import preview
from orchestrator.decide.records import Revision
from orchestrator.decide.staying import beside, staying
from orchestrator.decide.staying import locks as locks_of
from orchestrator.decide.why import explain, waits

router = APIRouter(prefix="/v1/stacks")
EVENTS = 5000  # of the stack, the newest, in which causes are looked for
Number = Annotated[int, Query(ge=1)]


class RollbackBody(Body):
    revision: int | None = Field(default=None, ge=1)


@router.get("/{name}/revisions")
async def revisions(here: Here, name: StackName) -> dict[str, Any]:
    """Those that are kept, oldest first; `current`: the one that the stack is at."""
    found = await here.ledger.store.revisions(name)
    record = here.ledger.stacks.get(name)
    if not found:
        raise refusals.no_stack(name)
    rows = [
        {
            "number": revision.number,
            "at": revision.at,
            "uid": revision.uid,
            "current": record is not None and record.revision == revision.number,
            "services": sorted(revision.model.get("services", {})),
        }
        for revision in found
    ]
    return {"stack": name, "revisions": rows}


@router.get("/{name}/diff")
async def diff(here: Here, name: StackName, a: Number, b: Number) -> dict[str, Any]:
    """What differs between two revisions, field by field."""
    one, other = await _revision(here, name, a), await _revision(here, name, b)
    return {"stack": name, "a": a, "b": b, "difference": difference(one.model, other.model)}


@router.post("/{name}/rollback")
async def rollback(here: Here, request: Request, name: StackName, body: RollbackBody) -> dict[str, Any]:
    """Make the stack as an earlier revision says; without one: the one before."""
    return applied(await here.controller.rollback(name, body.revision, peer(request)))


@router.post("/{name}/plan")
async def plan(here: Here, name: StackName, body: UpBody) -> dict[str, Any]:
    """What `up` of this model would do. Changes nothing and fetches nothing."""
    if body.model.name != name:
        raise UserError(f"cannot plan stack {body.model.name} as {name}", code="bad-request", hint="use one name")
    ledger, controller = here.ledger, here.controller
    body = body.model_copy(update={"model": published_at(body.model, controller.default_address)})
    record = ledger.stacks.get(name)
    locks = Stack.model_validate(record.model).images if record is not None else {}
    images = await streams.call(here.agent_socket, "images")
    ids = {known: image["id"] for image in images for known in image["names"]}
    names = {service.image for service in body.model.services.values()}
    found: dict[str, LockedImage] = {}
    for image in names:
        here_now = ids.get(image) or ids.get(f"{image}:latest")
        lock = locks.get(image)
        found[image] = lock if lock is not None and body.pull != "always" else LockedImage(id=here_now or "")
    there = {image["id"] for image in images}
    missing = {image for image, lock in found.items() if body.pull == "always" or lock.id not in there}
    stay = staying(record, body.model, body.others)
    model = settled(
        body.model if record is None else beside(record, body.model, stay),
        (r.model for other, r in ledger.stacks.items() if other != name),
    )
    if record is not None:
        found = locks_of(record, model) | found
    model = model.model_copy(update={"images": found})
    refused = partial(controller.applying.refused, name, record=record)
    told = preview(record, model, controller.applying.resting(name), missing, stay, refused)
    try:
        await controller.check_volumes(model)
    except UserError as error:
        told["refusals"].append({"code": error.code, "service": "", "message": error.message, "hint": error.hint})
    return told


@router.get("/{name}/why")
async def why(here: Here, name: StackName, service: ServiceName) -> dict[str, Any]:
    """What happened last to a service, and what that followed from."""
    here.board.status(name, (service,))  # raises stack-unknown or service-unknown
    entry = here.board.stack(name)
    row = next(row for row in (entry["services"] if entry else ()) if row["name"] == service)
    model = here.ledger.stacks[name].model.get("services", {})
    needs: set[str] = set()
    todo = [service]
    while todo:
        more = {*model.get(todo.pop(), {}).get("depends_on", {})} - needs
        needs |= more
        todo += more
    events = await here.ledger.store.events(stack=name, limit=EVENTS)
    found = waits(events, row, needs - {service}) or explain(events, service, needs - {service})
    if found is None:
        raise UserError(
            f"cannot say why {name}/{service} is as it is ({row['state']}): nothing has happened to it",
            code="event-unknown",
            hint=f"gorae status {name}",
        )
    return {"stack": name, "service": service, **found}


async def _revision(here: Here, name: str, number: int) -> Revision:
    found = await here.ledger.store.revision(name, number) if number < 2**63 else None  # SQLite counts no further
    if found is None:
        raise refusals.no_revision(name, number)
    return found
