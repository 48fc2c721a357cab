"""The networks of all stacks, and who is on them. Pure: of what is assigned, and of what the agent has said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.wire.messages import ContainerSpec, Membership, StackStatus
from orchestrator.decide.records import StackRecord


def networks(stacks: Mapping[str, StackRecord], statuses: Mapping[str, StackStatus]) -> dict[str, dict[str, Any]]:
    """Full name → {name, internal, ipv6, subnets, stacks, members: [{stack, service, slot, task, address, aliases}]}.
    A task without a network of its own (network_mode) is on none."""
    found: dict[str, dict[str, Any]] = {}
    for name, record in sorted(stacks.items()):
        told = {task.id: task.address for task in statuses[name].tasks} if name in statuses else {}
        for task in record.tasks:
            for on in _memberships(name, task.container):
                network = found.setdefault(on.network, _empty(on))
                network["ipv6"] = network["ipv6"] or on.ipv6
                network["subnets"] = sorted({*network["subnets"], *(subnet.subnet for subnet in on.subnets)})
                network["stacks"] = sorted({*network["stacks"], name})
                who = {"stack": name, "service": task.service, "slot": task.slot, "task": task.id}
                network["members"].append({**who, "address": told.get(task.id), "aliases": list(on.aliases)})
    return found


def _empty(on: Membership) -> dict[str, Any]:
    return {"name": on.network, "internal": on.internal, "ipv6": False, "subnets": [], "stacks": [], "members": []}


def _memberships(stack: str, container: ContainerSpec) -> tuple[Membership, ...]:
    """As the agent reads it (agent/decide/networks.py): a service that names none is on the stack's own."""
    if container.network_mode:
        return ()
    return container.networks or (Membership(network=f"{stack}_default"),)
