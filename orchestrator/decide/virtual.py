"""Which virtual address a service gets: a number, of which the agent makes an address (agent/kit/pools.py). Pure.

A service keeps its number for as long as its stack has it, whatever happens to its tasks. A new one begins its search
at a place of its name's, so that what went and comes again mostly gets what it had, and nobody else gets it at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from typing import Any

from agent.kit.errors import UserError
from agent.kit.pools import VIRTUALS


def networked(model: Mapping[str, Any]) -> tuple[str, ...]:
    """The services of a stored model that are on a network of their own."""
    services = model.get("services", {})
    return tuple(sorted(name for name, service in services.items() if not service.get("network_mode")))


def allot(stack: str, services: tuple[str, ...], before: Mapping[str, int], taken: Set[int]) -> dict[str, int]:
    """Service → number. `taken`: those of other stacks. UserError no-virtual-address."""
    found = {service: before[service] for service in services if service in before}
    used = {*taken, *found.values()}
    for service in services:
        if service in found:
            continue
        start = int.from_bytes(hashlib.sha256(f"{stack}/{service}".encode()).digest()[:4])
        number = next((n % VIRTUALS for n in range(start, start + VIRTUALS) if n % VIRTUALS not in used), None)
        if number is None:
            raise UserError(
                f"cannot start {stack}/{service}: all {VIRTUALS} virtual addresses are taken, one by each service",
                code="no-virtual-address",
                hint="gorae ls shows the stacks; take one down",
            )
        found[service] = number
        used.add(number)
    return found
