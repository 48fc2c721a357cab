"""In which order services depend on each other. Pure; the agent enforces it, plans and people read it."""

from __future__ import annotations

from collections.abc import Mapping

from agent.kit.errors import UserError
from orchestrator.compose.model import Service


def order(services: Mapping[str, Service]) -> tuple[str, ...]:
    """Names, dependencies first, alphabetical among equals. UserError dependency-undefined, dependency-cycle."""
    waits = {name: _required(name, services) for name in services}
    ordered: list[str] = []
    while waits:
        free = sorted(name for name, deps in waits.items() if not deps)
        if not free:
            cycle = " → ".join(_cycle(waits))
            raise UserError(
                f"cannot order the services: they depend on each other: {cycle}",
                code="dependency-cycle",
                hint="remove one of these depends_on entries",
            )
        ordered += free
        for name in free:
            del waits[name]
        for deps in waits.values():
            deps.difference_update(free)
    return tuple(ordered)


def _required(name: str, services: Mapping[str, Service]) -> set[str]:
    deps = services[name].depends_on
    for other, dependency in deps.items():
        if other not in services and dependency.required:
            raise UserError(
                f"cannot order the services: {name} depends on {other}, which is not defined",
                code="dependency-undefined",
                hint=f"define {other}, or say required: false",
            )
    return {other for other in deps if other in services}


def _cycle(waits: Mapping[str, set[str]]) -> list[str]:
    """One cycle among services that all wait, beginning and ending with its alphabetically first member."""
    path = [min(waits)]
    while True:
        following = min(waits[path[-1]])
        if following in path:
            ring = path[path.index(following) :]
            first = ring.index(min(ring))
            ring = ring[first:] + ring[:first]
            return [*ring, ring[0]]
        path.append(following)
