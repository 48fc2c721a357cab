"""Which port of the host is whose: the conflicts that admission finds before anything changes. Pure.

A port may be asked for on one address, on every IPv4 address ("0.0.0.0"), on every IPv6 address ("::") or on all of
them (""). Ports that the agent picks are its own business; once it has told of them, they are held like others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from agent.wire.messages import HostStatus, Listener, Task, TaskStatus
from orchestrator.compose.model import Stack
from orchestrator.decide.refusal import Refusal

Holders = Mapping[str, Sequence[Task]]  # stack → its tasks
_EVERY = {4: "0.0.0.0", 6: "::"}


class Place(NamedTuple):
    """Where a service is reached on the host."""

    service: str
    protocol: str
    port: int
    host_ip: str


def published_at(stack: Stack, address: str) -> Stack:
    """Where the file does not say on which address of the host a port is published, on this one ("": on all)."""
    if not address:
        return stack
    services = {
        name: service.model_copy(
            update={
                "ports": tuple(p if p.host_ip else p.model_copy(update={"host_ip": address}) for p in service.ports)
            }
        )
        for name, service in stack.services.items()
    }
    return stack.model_copy(update={"services": services})


def addresses(stack: str, tasks: Sequence[Task], before: Sequence[Task]) -> Iterator[Refusal]:
    """What `tasks` ask for at an address where nothing can be published. `before`: what the stack holds already."""
    held = {port for task in before for port in task.container.ports}
    dual = {task.service for task in tasks if any(one.ipv6 for one in task.container.networks)}
    for service, port in dict.fromkeys((task.service, port) for task in tasks for port in task.container.ports):
        if port in held or not port.host_ip:
            continue
        try:
            found = ip_address(port.host_ip)
        except ValueError:
            why = "that is no address"
        else:
            fine = found.version == 4 or found.is_loopback or service in dual
            why = "" if fine else "no network of the service has enable_ipv6"
            if isinstance(found, IPv6Address) and (found.ipv4_mapped or found.scope_id):
                why = f"write it as {found.ipv4_mapped}" if found.ipv4_mapped else "an address of one link alone"
        if why:
            yield Refusal(
                "bad-address",
                service,
                f"cannot start {stack}/{service}: cannot publish {port.target} on {port.host_ip}: {why}",
                "leave the address out, or write one like 127.0.0.1",
                {"address": port.host_ip, "port": port.target},
            )


def conflicts(
    stack: str,
    tasks: Sequence[Task],
    before: Sequence[Task],
    others: Holders,
    host: HostStatus | None,
    reported: Mapping[str, TaskStatus],
) -> Iterator[Refusal]:
    """What `tasks` ask for that somebody has: another service, another stack (`others`), or a program of the host.
    `before`: what the stack holds already. `reported`: task id → status, of every stack."""
    wanted, held = places(tasks, {}), places(before, {})
    mine = places(tasks, reported)
    theirs = {name: places(running, reported) for name, running in others.items()}
    for index, place in enumerate(wanted):
        name = f"{place.port}" + ("/udp" if place.protocol == "udp" else "")
        start = f"cannot start {stack}/{place.service}: port {name}"
        evidence: dict[str, object] = {"port": place.port, "protocol": place.protocol}
        for other in (*wanted[:index], *(one for one in mine if one not in wanted)):
            if other.service != place.service and _clash(place, other):
                yield Refusal(
                    "port-conflict",
                    place.service,
                    f"{start} is also published by service {other.service} of the same stack",
                    "publish one of them on another port",
                    evidence,
                )
        for other_stack, taken in theirs.items():
            for other in (one for one in taken if _clash(place, one)):
                yield Refusal(
                    "port-taken",
                    place.service,
                    f"{start} is held by stack {other_stack} (service {other.service})",
                    f"publish another port, or gorae stop {other_stack}/{other.service}",
                    {**evidence, "stack": other_stack, "service": other.service},
                )
        if host is None or any(_clash(place, one) for one in held):
            continue
        if listener := next((one for one in host.listeners if _clash(place, _place(one))), None):
            yield Refusal(
                "port-in-use",
                place.service,
                f"{start} is in use by {listener.holder or 'another program'}",
                "publish another port, or end that program",
                {**evidence, "holder": listener.holder, "address": listener.address},
            )


def places(tasks: Iterable[Task], reported: Mapping[str, TaskStatus]) -> list[Place]:
    """Every host port of `tasks` that is known, once per service: those the file names, and those the agent picked."""
    found: dict[Place, None] = {}
    for task in tasks:
        for port in task.container.ports:
            if port.published is not None:
                found[Place(task.service, port.protocol, port.published, port.host_ip)] = None
        for taken in reported[task.id].ports if task.id in reported else ():
            found[Place(task.service, taken.protocol, taken.published, taken.host_ip)] = None
    return list(found)


def overlap(a: str, b: str) -> bool:
    """Whether a packet to the host may be meant for both addresses."""
    return any(
        version == other and (one == two or _EVERY.get(version) in (one, two))
        for version, one in _faces(a)
        for other, two in _faces(b)
    )


def _faces(address: str) -> list[tuple[int, str]]:
    """(version, address) under which an address is met. A socket on "::" may take IPv4 as well; a mapped address is
    IPv4."""
    if address in ("", "*"):
        return list(_EVERY.items())
    try:
        found = ip_address(address)
    except ValueError:
        return [(0, address)]  # refused for itself
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return [(found.version, str(found))]


def _place(listener: Listener) -> Place:
    address = "" if listener.address == "::" else listener.address
    return Place("", listener.protocol, listener.port, address)


def _clash(a: Place, b: Place) -> bool:
    return a.port == b.port and a.protocol == b.protocol and overlap(a.host_ip, b.host_ip)
