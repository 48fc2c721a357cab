"""Routes that say everything of one thing: what is wanted of a stack, and what there is of it; a network, and who is on
it. Images and volumes say it themselves (/v1/images/inspect, /v1/volumes/NAME). Values that look like secrets are
hidden."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from agent.kit.errors import UserError
from agent.kit.masking import masked
from agent.wire.streams import call
from orchestrator.api.stacks import Here, Services, StackName
from orchestrator.decide.membership import networks

router = APIRouter(prefix="/v1")


@router.get("/stacks/{name}/inspect")
async def inspect(here: Here, name: StackName, service: Services = ()) -> Any:
    """{name, revision, desired: the model, observed: its entry of the status document, tasks: [each with its attempts,
    addresses, process and container]}, of these services alone if any are named."""
    here.board.status(name, service)  # raises stack-unknown or service-unknown
    record, observed = here.ledger.stacks[name], here.board.stack(name) or {}
    desired = record.model
    if service:
        services = {one: wanted for one, wanted in desired.get("services", {}).items() if one in service}
        desired = {**desired, "services": services}
        observed = {**observed, "services": [row for row in observed["services"] if row["name"] in service]}
    tasks = await call(here.agent_socket, "containers", stack=name, services=service)
    return masked(
        {
            "name": name,
            "revision": record.revision,
            "updated_at": record.updated_at,
            "desired": desired,
            "observed": observed,
            "tasks": tasks,
        }
    )


@router.get("/networks")
async def all_networks(here: Here) -> dict[str, Any]:
    """Every network that services are on, and which of their containers."""
    found = networks(here.ledger.stacks, here.ledger.statuses)
    return {"networks": [found[name] for name in sorted(found)]}


@router.get("/networks/{name}")
async def network(here: Here, name: str) -> Any:
    """One of them. UserError network-unknown."""
    found = networks(here.ledger.stacks, here.ledger.statuses)
    if name not in found:
        raise UserError(
            f"cannot find network {name}: no service is on it",
            code="network-unknown",
            hint=f"there are {', '.join(sorted(found)) or 'none'}",
        )
    return found[name]
