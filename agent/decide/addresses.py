"""Which address of each family a task gets: one that its file chose, else a free one of a subnet that its file names,
else that of its place in the instance's slice. Pure.

A task has one link and one address of each family, whatever its networks. Of several networks that say something, the
first by name decides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence, Set

from agent.kit.errors import UserError
from agent.wire.messages import Membership, Subnet, Task


def pick(on: Sequence[Membership], index: int, own: str, twin: str, taken: Set[str]) -> tuple[str, str]:
    """(IPv4 address, IPv6 address or ""). `own`, `twin`: of the place `index`. `taken`: by others. UserError no-address
    when a subnet is full."""
    on = sorted(on, key=lambda membership: membership.network)
    return _one(4, on, index, own, taken), _one(6, on, index, twin, taken) if any(m.ipv6 for m in on) else ""


def chosen(tasks: Iterable[Task]) -> frozenset[str]:
    """Addresses that files chose: never given to anybody else."""
    return frozenset(address for task in tasks for on in task.container.networks for address in on.addresses)


def version(address: str) -> int:
    return ipaddress.ip_network(address).version


def _one(family: int, on: Sequence[Membership], index: int, otherwise: str, taken: Set[str]) -> str:
    for membership in on:
        for address in membership.addresses:
            if version(address) == family:
                return address
    for membership in on:
        for subnet in membership.subnets:
            if version(subnet.subnet) == family:
                return _free(membership.network, subnet, index, taken)
    return otherwise


def _free(network: str, subnet: Subnet, index: int, taken: Set[str]) -> str:
    """The search begins at `index`, so that a freed address is not given out again at once. The first and the last
    address of a subnet stay free, as nobody would expect them."""
    whole, among = ipaddress.ip_network(subnet.subnet), ipaddress.ip_network(subnet.among or subnet.subnet)
    not_given = {whole.network_address, whole.broadcast_address, *map(ipaddress.ip_address, subnet.reserved)}
    if not subnet.reserved:
        not_given.add(whole.network_address + 1)  # where people look for a gateway
    size = min(among.num_addresses, 1 << 16)
    for step in range(size):
        address = among.network_address + (index + 2 + step) % size
        if address not in not_given and str(address) not in taken:
            return str(address)
    raise UserError(
        f"cannot give out an address: {among} of network {network} is full",
        code="no-address",
        hint="a larger subnet, or fewer containers on it",
    )
