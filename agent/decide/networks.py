"""Which networks a task is on, and by which names tasks know each other there. Pure.

A network is a name: tasks of any stack that say the same one share it (06-networks.md). What that allows is
nft_rules.py's part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.wire.messages import ContainerSpec, Membership, Task

Names = Mapping[str, tuple[str, ...]]  # name → addresses
_ITSELF = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})  # nobody else's name


def memberships(stack: str, container: ContainerSpec) -> tuple[Membership, ...]:
    """Every network of a task; () for one with a network_mode."""
    if container.network_mode:
        return ()
    return container.networks or (Membership(network=default(stack)),)


def default(stack: str) -> str:
    """The name of a stack's own network, which services are on that name none."""
    return f"{stack}_default"


def reaches_outside(on: Iterable[Membership]) -> bool:
    return any(not membership.internal for membership in on)


def there(on: Membership, addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of `addresses` that are reached on a network: without IPv6 none of its."""
    return tuple(address for address in addresses if on.ipv6 or ":" not in address)


def names(stack: str, tasks: Iterable[Task], addresses: Names) -> dict[str, dict[str, tuple[str, ...]]]:
    """Network → the names of one stack's services there: each service's own and its aliases. `addresses`: service →
    where it is reached."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for task in {task.service: task for task in tasks}.values():
        for membership in memberships(stack, task.container):
            on = found.setdefault(membership.network, {})
            for name in (task.service, *membership.aliases):
                _add(on, name, there(membership, addresses.get(task.service, ())))
    return found


def seen_from(stack: str, tables: Iterable[Mapping[str, Names]]) -> dict[str, tuple[str, ...]]:
    """All that a task of `stack` finds on its networks. `tables`: of each network, stack → names. A name of its own
    stack hides those of others, however they are written (DB and db are one name, RFC 1035 §2.3.3): what a neighbour
    calls its services must not change whom a stack talks to."""
    own: dict[str, tuple[str, ...]] = {}
    others: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for owner in sorted(table):
            into = own if owner == stack else others
            for name, addresses in table[owner].items():
                _add(into, name, addresses)
    mine = {name.lower() for name in own} | _ITSELF
    return {**{name: them for name, them in others.items() if name.lower() not in mine}, **own}


def _add(names: dict[str, tuple[str, ...]], name: str, addresses: Iterable[str]) -> None:
    known = names.get(name, ())
    names[name] = (*known, *(address for address in addresses if address not in known))
