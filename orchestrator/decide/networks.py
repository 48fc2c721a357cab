"""The networks of every service of a model, as the agent takes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.kit.errors import UserError
from agent.wire.messages import Membership
from orchestrator.compose.model import Network, NetworkUse, Service, Stack


def memberships(stack: Stack, service: str) -> tuple[Membership, ...]:
    """By name; empty for the stack's own plain network alone, as for tasks of before there were others: a template
    does not change with the version of gorae. UserError network-undefined."""
    model = stack.services[service]
    if model.network_mode:
        return ()
    plain = Network(name=f"{stack.name}_default")
    found = []
    for key, use in _uses(model).items():
        network = stack.networks.get(key, plain if key == "default" else None)
        if network is None:
            raise UserError(
                f"cannot start {stack.name}/{service}: its network {key} is not declared",
                code="network-undefined",
                hint=f"add networks: {{{key}: }}",
            )
        found.append(
            Membership(
                network=network.name,
                aliases=use.aliases,
                internal=network.internal,
                ipv6=network.ipv6,
                subnets=network.subnets,
                addresses=use.addresses,
                mtu=network.mtu,
            )
        )
    return () if found == [Membership(network=plain.name)] else tuple(sorted(found, key=lambda one: one.network))


def _uses(service: Service) -> Mapping[str, NetworkUse]:
    return service.networks or {"default": NetworkUse()}


def settled(stack: Stack, others: Iterable[Mapping[str, Any]]) -> Stack:
    """External networks are what the stack that declares them says: internal, with IPv6, with their subnets. `others`:
    models of other stacks, as stored."""
    declared = {
        network["name"]: Network.model_validate(network)
        for model in others
        for network in model.get("networks", {}).values()
        if not network.get("external")
    }
    networks = {
        key: declared.get(network.name, Network(name=network.name)).model_copy(update={"external": True})
        if network.external
        else network
        for key, network in stack.networks.items()
    }
    return stack.model_copy(update={"networks": networks})
