"""What each task's resolver answers by itself, from what is assigned: the text of the zone file. Pure.

Tasks of one stack on the same networks see the same names, which are therefore written once (a view); what a task sees
besides is its own: its service's name and its host name mean itself. What a name leads to is an argument, so that it
may be a service's own address or those of its tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.decide import networks
from agent.decide.networks import Names
from agent.kit.pools import GATEWAY
from agent.wire.messages import Task

HOST_GATEWAY = "host-gateway"


@dataclass(frozen=True, slots=True)
class Place:
    """A task and where it is."""

    stack: str
    task: Task
    address: str
    address_6: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, self.address_6) if self.address_6 else (self.address,)


@dataclass(frozen=True, slots=True)
class View:
    """`names`: name → addresses. `pointers`: address → name."""

    names: Names
    pointers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sight:
    """All that one task sees. `outside`: whether other names are asked of the world. `servers`: of whom; () means of
    the host's servers."""

    view: View
    own: Names = field(default_factory=dict)
    outside: bool = True
    servers: tuple[str, ...] = ()


def hostname(task: Task) -> str:
    """The service's, else SERVICE-SLOT: the same after an update, unlike a task id."""
    given = task.container.hostname or f"{task.service}-{task.slot}".replace("_", "-").replace(".", "-").lower()
    return given[:63].strip("-")  # hostname(7)


def fully_qualified(task: Task) -> str:
    """The host name with its domain; "" without one."""
    domain = task.container.naming.domain
    return f"{hostname(task)}.{domain}" if domain else ""


def besides(task: Task, seen: Names, gateway: str = GATEWAY) -> dict[str, tuple[str, ...]]:
    """What its file lets it know besides its networks: links, by what is `seen` there, and extra_hosts."""
    naming = task.container.naming
    links = {alias: seen[service] for alias, service in naming.links.items() if service in seen}
    given = {
        name: tuple(gateway if address == HOST_GATEWAY else address for address in addresses)
        for name, addresses in naming.hosts.items()
    }
    return {**links, **given}


def reaches_host(task: Task) -> bool:
    return any(HOST_GATEWAY in addresses for addresses in task.container.naming.hosts.values())


def container_name(place: Place) -> str:
    """Its container_name, else as docker compose names containers: STACK-SERVICE-SLOT."""
    return place.task.container.naming.container or f"{place.stack}-{place.task.service}-{place.task.slot}"


def sights(places: Sequence[Place], reached: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[str, Sight]:
    """Task id → what it sees; a task without networks is not listed. `reached`: (stack, service) → where it is
    reached."""
    tables, pointers = _tables(places, reached)
    views: dict[tuple[str, tuple[str, ...]], View] = {}
    found: dict[str, Sight] = {}
    for place in places:
        on = networks.memberships(place.stack, place.task.container)
        if not on:
            continue
        key = place.stack, tuple(sorted(membership.network for membership in on))
        if key not in views:
            known: dict[str, str] = {}
            for network in key[1]:
                known = {**pointers[network], **known}
            views[key] = View(networks.seen_from(place.stack, (tables[network] for network in key[1])), known)
        mine = (place.task.service, hostname(place.task), container_name(place), fully_qualified(place.task))
        own = {**besides(place.task, views[key].names), **{name: place.addresses for name in mine if name}}
        servers = place.task.container.naming.servers
        found[place.task.id] = Sight(views[key], own, networks.reaches_outside(on), servers)
    return found


def _tables(
    places: Sequence[Place], reached: Mapping[tuple[str, str], tuple[str, ...]]
) -> tuple[dict[str, dict[str, dict[str, tuple[str, ...]]]], dict[str, dict[str, str]]]:
    """Network → stack → name → addresses, and network → address → name: NAME, NAME.NETWORK, tasks.SERVICE."""
    lists: dict[str, dict[str, dict[str, dict[str, None]]]] = {}
    pointers: dict[str, dict[str, str]] = {}
    for place in places:
        service, container = place.task.service, container_name(place)
        at = reached.get((place.stack, service), ())
        for membership in networks.memberships(place.stack, place.task.container):
            network = membership.network
            table = lists.setdefault(network, {}).setdefault(place.stack, {})
            mine = pointers.setdefault(network, {})
            there = networks.there(membership, at)
            for address in networks.there(membership, place.addresses):
                mine[address] = f"{container}.{network}"
            for address in there:
                mine.setdefault(address, f"{service}.{network}")
            for name in (service, *membership.aliases):
                for one in (name, f"{name}.{network}"):
                    table.setdefault(one, {}).update(dict.fromkeys(there))
            for name in (f"tasks.{service}", container, f"{container}.{network}"):
                table.setdefault(name, {}).update(dict.fromkeys(networks.there(membership, place.addresses)))
    tables = {
        network: {stack: {name: tuple(them) for name, them in table.items()} for stack, table in stacks.items()}
        for network, stacks in lists.items()
    }
    return tables, pointers


def text(seen: Mapping[str, Sight]) -> str:
    """The zone file, {"views": [{"names", "pointers"}], "tasks": {TASK: {"view", "own", "outside", "servers"}}}. What
    is no name in DNS is left out."""
    views: dict[int, int] = {}
    written: list[dict[str, object]] = []
    tasks: dict[str, dict[str, object]] = {}
    for task, sight in seen.items():
        if id(sight.view) not in views:
            views[id(sight.view)] = len(written)
            pointers = {address: name for address, name in sight.view.pointers.items() if _is_name(name)}
            written.append({"names": _named(sight.view.names), "pointers": pointers})
        tasks[task] = {
            "view": views[id(sight.view)],
            "own": _named(sight.own),
            "outside": sight.outside,
            "servers": sight.servers,
        }
    return json.dumps({"views": written, "tasks": tasks}, separators=(",", ":"))


def _named(names: Names) -> dict[str, Sequence[str]]:
    return {name: addresses for name, addresses in names.items() if _is_name(name)}


def _is_name(name: str) -> bool:
    labels: Iterable[str] = name.split(".")
    return name.isascii() and len(name) < 254 and all(0 < len(label) < 64 for label in labels)
