"""Which images a stack needs, under which policy each may be pulled, and what each is locked to. Pure.

A lock is (id, digest) of what a tag resolved to when `up` said so. It is part of the revision, so that a restart, a
reboot or another `up` of the same file runs the same image, and going back to a revision goes back to its images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.kit.errors import UserError
from orchestrator.compose.model import LockedImage, Service, Stack

Pull = Literal["policy", "missing", "always", "never"]
_STRENGTH = ("never", "missing", "refresh", "always")


def wants(stack: Stack, locked: Mapping[str, LockedImage], pull: Pull = "policy") -> dict[str, dict[str, Any]]:
    """Image name → what the agent's `ensure` takes (agent/wire/streams.py). `locked`: of the revision before.
    `pull`: the command line's word, which counts for every service unless it is "policy".

    UserError platforms-differ: a name is one image in a stack.
    """
    built = {service.image for service in stack.services.values() if service.pull_policy == "build"}
    found: dict[str, dict[str, Any]] = {}
    for name, service in sorted(stack.services.items()):
        wish = _wish(service, "never" if service.image in built else pull)  # there is none but the one built here
        known = found.get(service.image)
        if known is None:
            lock = locked.get(service.image, LockedImage(id=""))
            found[service.image] = {**wish, "id": lock.id, "digest": lock.digest}
            continue
        if known["platform"] != wish["platform"]:
            raise UserError(
                f"cannot start {stack.name}/{name}: another service runs {service.image} for another platform",
                code="platforms-differ",
                hint="name the images by their digests, which differ",
            )
        known |= max(known, wish, key=_strength) | {key: known[key] for key in ("id", "digest")}
    return found


def _wish(service: Service, pull: Pull) -> dict[str, Any]:
    policy: str = service.pull_policy if pull == "policy" else pull
    return {"policy": policy, "after": service.pull_after, "platform": service.platform}


def _strength(wish: Mapping[str, Any]) -> tuple[int, float]:
    """Where services differ the stronger wish counts; of two spans the shorter."""
    return _STRENGTH.index(wish["policy"]), -wish["after"]
