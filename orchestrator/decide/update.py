"""How a service's containers are replaced: in which order, how many at a time, and what a failure means. Pure.

Compose leaves all of this open where the file is silent; what gorae does then is said here, and by `gorae plan`.
deploy.md, update_config and rollback_config.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from orchestrator.compose.model import Service, Stack

Order = Literal["start-first", "stop-first"]
FailureAction = Literal["continue", "pause", "rollback"]
UNCHECKED = 1.0  # seconds that what has no healthcheck must have run to be taken for ready


@dataclass(frozen=True, slots=True)
class Settings:
    """`parallelism`: slots at a time, 0 for all. `delay`: seconds between two batches. `monitor`: seconds a new task
    must have run before it counts; None: UNCHECKED without a healthcheck, none with one. `ratio`: the share of failed
    tasks above which `failure_action` is taken. `why`: the reason for the order, for people. `job`: it is ready when it
    has completed, serves nobody, and may fail a few times on the way."""

    order: Order = "stop-first"
    why: str = ""
    parallelism: int = 1
    delay: float = 0.0
    monitor: float | None = None
    failure_action: FailureAction = "pause"
    ratio: float = 0.0
    job: bool = False


def settings(stack: Stack, *, back: bool = False) -> dict[str, Settings]:
    """Of every service of the model. `back`: for the way back to it (rollback_config), on which a failure pauses."""
    return {name: _settings(stack, service, back) for name, service in stack.services.items()}


def _settings(stack: Stack, service: Service, back: bool) -> Settings:
    said = service.rollback if back else service.update
    lock = stack.images.get(service.image)
    order, why = order_of(service, lock.volumes if lock else ())
    if said.order:
        why = f"the file says so, though {why}" if said.order == "start-first" != order else "the file says so"
    action = said.failure_action or ("pause" if back else "rollback")
    return Settings(
        order=said.order or order,
        why=why,
        parallelism=1 if said.parallelism is None else said.parallelism,
        delay=said.delay,
        monitor=said.monitor,
        failure_action="pause" if back and action == "rollback" else action,
        ratio=said.max_failure_ratio,
        job=service.job,
    )


def order_of(service: Service, volumes: Collection[str]) -> tuple[Order, str]:
    """Where the file says nothing: the new one first, unless two of them could not live side by side. `volumes`: those
    of the image. Returns the order and the reason."""
    if blocked := _alone(service, volumes):
        return "stop-first", blocked
    return "start-first", "nothing forbids that old and new run side by side"


def _alone(service: Service, volumes: Collection[str]) -> str:
    """Why two containers of a slot must not run at a time; "" if they may."""
    if service.job:
        return "a job is begun anew, not carried on beside the one before"
    if service.naming.container:
        return f"container_name gives the name {service.naming.container} to one container at a time"
    if service.network_mode not in ("", "none"):
        return f"both would open the same ports, for network_mode is {service.network_mode}"
    for use in service.networks.values():
        if use.addresses:
            return f"the address {use.addresses[0]} belongs to one container at a time"
    for port in service.ports:
        if port.mode == "host":
            return f"port {port.published or port.target} is in mode host, and belongs to one container at a time"
    written = [mount for mount in service.mounts if mount.type != "tmpfs" and not mount.read_only]
    if written:
        kind = "volume" if written[0].type == "volume" else "directory"
        return f"both would write to the {kind} {written[0].source or written[0].target}"
    for share in service.volumes_from:
        if not share.read_only:
            return f"both would write to the volumes of {share.service}"
    covered = {mount.target.rstrip("/") for mount in service.mounts}
    for path in volumes:
        if path.rstrip("/") not in covered:
            return f"both would write to the image's volume {path}"
    return ""
