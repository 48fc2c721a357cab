"""Whether addresses that a stack's file chose, and the subnets it names, are free. Pure; each refusal names the holder.

Only what is new is judged: what a stack holds already it keeps. What the agent gives out itself is its own business
(agent/decide/addresses.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from agent.kit.pools import ADDRESS_POOL_6
from agent.wire.messages import HostStatus, Membership, Subnet, Task, TaskStatus
from orchestrator.decide.refusal import Refusal

Network = IPv4Network | IPv6Network
_HINT = "choose another address, or leave it to gorae"
_LINK, _GROUPS = "addresses of one link alone, the gateway's and metadata services' among them", "addresses of groups"
_NOBODYS = {  # RFC 6890, RFC 4291
    "0.0.0.0/8": "addresses of nobody",
    "127.0.0.0/8": "the host's own addresses",
    "169.254.0.0/16": _LINK,
    "224.0.0.0/3": _GROUPS,
    "::/127": "the host's own addresses",
    "fe80::/10": _LINK,
    "ff00::/8": _GROUPS,
}


def conflicts(
    stack: str,
    tasks: Sequence[Task],
    before: Sequence[Task],
    others: Mapping[str, Sequence[Task]],
    host: HostStatus | None,
    reported: Mapping[str, TaskStatus],
) -> Iterator[Refusal]:
    """`before`: what the stack holds already. `others`: stack → its tasks. `reported`: task id → status, of every
    stack."""
    held = {(task.service, on) for task in before for on in task.container.networks}
    slots: dict[str, int] = {}
    for task in tasks:
        slots[task.service] = max(task.slot, slots.get(task.service, 0))
    for service, on in dict.fromkeys((task.service, on) for task in tasks for on in task.container.networks):
        new = (service, on) not in held
        if new:
            yield from _subnets(stack, service, on, others, host)
        for address in on.addresses:
            why, hint = _shared(service, address, slots[service], tasks) or (new and _unfit(address, on)) or ("", "")
            if new and not why:
                why, hint = _held(address, tasks, others, reported), _HINT
            if why:
                yield Refusal(
                    "address-taken",
                    service,
                    f"cannot start {stack}/{service}: cannot give it {address} on network {on.network}: {why}",
                    hint,
                    {"address": address, "network": on.network},
                )


def _unfit(address: str, on: Membership) -> tuple[str, str] | None:
    """Why no container of the network may have it."""
    for subnet in on.subnets:
        whole = ip_network(subnet.subnet)
        if ip_address(address) not in whole:
            continue
        if address in subnet.reserved:
            return "its ipam keeps that address for something else", _HINT
        if whole.num_addresses > 2 and ip_address(address) in (whole.network_address, whole.broadcast_address):
            return f"that is no address of a container in {whole}", _HINT
        return None
    return "it is in no subnet of the network", f"add ipam: {{config: [{{subnet: …}}]}} to the network {on.network}"


def _shared(service: str, address: str, slots: int, tasks: Sequence[Task]) -> tuple[str, str] | None:
    """Why the service itself cannot have it."""
    if slots > 1:
        return f"the service has {slots} replicas, and an address belongs to one", "one replica, or no address"
    family = ip_address(address).version
    chosen = {
        one
        for task in tasks
        if task.service == service
        for on in task.container.networks
        for one in on.addresses
        if ip_address(one).version == family
    }
    if len(chosen) > 1:
        both = " and ".join(sorted(chosen))
        return f"the file chose {both}, and a container has one IPv{family} address", "choose it on one network alone"
    return None


def _held(
    address: str,
    tasks: Sequence[Task],
    others: Mapping[str, Sequence[Task]],
    reported: Mapping[str, TaskStatus],
) -> str:
    """Who has it; "" for nobody."""
    choosers = {task.service for task in tasks for on in task.container.networks if address in on.addresses}
    if len(choosers) > 1:
        return f"services {' and '.join(sorted(choosers))} both want it"
    for stack, theirs in others.items():
        for task in theirs:
            status = reported.get(task.id)
            if any(address in on.addresses for on in task.container.networks) or (status and status.address == address):
                return f"it is held by stack {stack} (service {task.service})"
    return ""


def _subnets(
    stack: str, service: str, on: Membership, others: Mapping[str, Sequence[Task]], host: HostStatus | None
) -> Iterator[Refusal]:
    for subnet in on.subnets:
        if why := _elsewhere(on, subnet, others, host):
            yield Refusal(
                "subnet-taken",
                service,
                f"cannot start {stack}/{service}: the subnet {subnet.subnet} of network {on.network} overlaps {why}",
                "choose another subnet, or leave it to gorae",
                {"subnet": subnet.subnet, "network": on.network},
            )


def _elsewhere(on: Membership, subnet: Subnet, others: Mapping[str, Sequence[Task]], host: HostStatus | None) -> str:
    mine = ip_network(subnet.subnet)
    for text, whose in _NOBODYS.items():
        if _overlap(mine, ip_network(text)):
            return f"{text}, {whose}"
    for route in host.routes if host else ():
        if _overlap(mine, ip_network(route.network)):
            return f"the host's route to {route.network} (link {route.link})"
    for pool in (host.pool if host else "", ADDRESS_POOL_6):
        if pool and _overlap(mine, ip_network(pool)):
            return f"{pool}, which gorae gives out addresses of"
    for stack, theirs in others.items():
        for other in (other for task in theirs for other in task.container.networks):
            for one in other.subnets:
                if other.network != on.network and _overlap(mine, ip_network(one.subnet)):
                    return f"{one.subnet} of network {other.network} (stack {stack})"
    return ""


def _overlap(a: Network, b: Network) -> bool:
    return a.version == b.version and a.overlaps(b)
