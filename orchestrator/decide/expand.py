"""From the Compose model to what the agent runs: one Desired per service. Pure.

Must not look at what runs: that is plan.py's part. The model comes from a client, who need not be our CLI: what could
not be stored, carried or obeyed is refused here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent.kit.errors import UserError
from agent.kit.pools import TASKS
from agent.wire.messages import (
    HOSTNAME,
    ContainerSpec,
    Dependency,
    Healthcheck,
    LogLimits,
    Policy,
    Port,
    Resources,
    Restart,
    Task,
)
from orchestrator.compose.model import HealthcheckModel, Service, Stack
from orchestrator.decide.mounts import Mounts, bad_model
from orchestrator.decide.networks import memberships

STOP_GRACE = 10.0  # seconds, 05-services.md stop_grace_period
DRAIN = 5.0  # seconds, x-gorae-drain


@dataclass(frozen=True, slots=True)
class Desired:
    """One service as it should be: every slot from 1 to `replicas` runs the same container under the same policy."""

    service: str
    replicas: int
    container: ContainerSpec
    policy: Policy
    template: str


def expand(stack: Stack, images: Mapping[str, str]) -> dict[str, Desired]:
    """Every service of the model; `images`: name as written → image id.

    UserError stack-too-large, bad-model, bad-mount, volume-undefined, bad-volumes-from, network-undefined.
    """
    if len(stack.services) > TASKS:
        raise UserError(
            f"cannot start {stack.name}: it has {len(stack.services)} services, and a host has room for {TASKS}",
            code="stack-too-large",
            hint="divide it",
        )
    if problem := unkeepable(stack.model_dump(), ""):
        raise UserError(f"cannot start {stack.name}: {problem}", code="bad-model", hint="correct it, then try again")
    mounts = Mounts(stack)
    return {name: _service(stack, name, images[stack.services[name].image], mounts) for name in stack.services}


def service(stack: Stack, name: str, image_id: str) -> Desired:
    """One service of the model. Errors as expand."""
    return _service(stack, name, image_id, Mounts(stack))


def _service(stack: Stack, name: str, image_id: str, mounts: Mounts) -> Desired:
    model = stack.services[name]
    try:
        container = _container(stack, name, model, image_id, mounts)
        return Desired(name, model.replicas, container, _policy(model), template(container))
    except ValidationError as error:
        raise bad_model(f"{stack.name}/{name}", error) from error


def as_it_is(tasks: Sequence[Task]) -> dict[str, Desired]:
    """What verbs other than `up` start from: each service that has tasks, exactly as its tasks say."""
    found: dict[str, Desired] = {}
    for task in tasks:
        replicas = found[task.service].replicas + 1 if task.service in found else 1
        found[task.service] = Desired(task.service, replicas, task.container, task.policy, task.template)
    return found


def template(container: ContainerSpec) -> str:
    """16 hex digits over the canonical JSON. Defaults are left out: a field that a later version adds changes no hash,
    so upgrading gorae replaces no container. So are labels of volumes: they are not the container's."""
    document = container.model_dump(mode="json", exclude_defaults=True, exclude={"mounts": {"__all__": {"labels"}}})
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def unkeepable(value: Any, where: str) -> str:
    """The first value that does not come back from JSON or from the kernel as it went in; "" when all do."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            return f"{where} holds a character that no program can be given"
    elif isinstance(value, float | int):
        if not abs(value) < 2**63:  # not a number is less than nothing
            return f"{where} is no number a machine can hold"
    elif isinstance(value, list | tuple):
        return next(filter(None, (unkeepable(item, f"{where}.{i}") for i, item in enumerate(value))), "")
    elif isinstance(value, dict):
        for key, item in value.items():
            below = f"{where}.{key}" if where else key
            if problem := unkeepable(key, f"a key of {where}") or unkeepable(item, below):
                return problem
    return ""


def _container(stack: Stack, name: str, model: Service, image_id: str, mounts: Mounts) -> ContainerSpec:
    if model.hostname and not HOSTNAME.fullmatch(model.hostname):
        raise UserError(
            f"cannot start {stack.name}/{name}: {model.hostname!r} is no host name",
            code="bad-model",
            hint="letters, digits, '-' and '.'",
        )
    return ContainerSpec(
        image=model.image,
        image_id=image_id,
        entrypoint=model.entrypoint,
        command=model.command,
        environment=model.environment,
        user=model.user,
        working_dir=model.working_dir,
        hostname=model.hostname,
        naming=model.naming,
        read_only=model.read_only,
        mounts=tuple(mounts.of[name].values()),
        volumes_from=tuple(mounts.shares[name].values()),
        ports=tuple(Port(**port.model_dump(exclude={"mode"})) for port in model.ports),
        expose=model.expose,
        labels=model.labels,
        networks=memberships(stack, name),
        network_mode=model.network_mode,
        mac=model.mac_address,
        init=model.init,
        tty=model.tty,
        stdin=model.stdin_open,
        pre_start=model.pre_start,
        logged=model.logging is None or model.logging.kept,
    )


def _policy(model: Service) -> Policy:
    logs = model.logging if model.logging and model.logging.kept else None
    return Policy(
        restart=Restart(**dict(model.restart)),
        healthcheck=_healthcheck(model.healthcheck) if model.healthcheck else None,
        resources=Resources(**dict(model.resources)),
        on_unhealthy=model.on_unhealthy,
        drain=DRAIN if model.drain is None else model.drain,
        post_start=model.post_start,
        pre_stop=model.pre_stop,
        stop_signal=model.stop_signal,
        stop_grace=STOP_GRACE if model.stop_grace_period is None else model.stop_grace_period,
        depends_on=tuple(
            Dependency(service=name, condition=dep.condition, required=dep.required, restart=dep.restart)
            for name, dep in sorted(model.depends_on.items())
        ),
        logs=LogLimits(max_size=logs.max_size, max_file=logs.max_file) if logs else None,
    )


def _healthcheck(model: HealthcheckModel) -> Healthcheck:
    if model.disable or (model.test and model.test[0] == "NONE"):
        return Healthcheck(kind="none")
    port = model.http_port or model.tcp_port
    return Healthcheck(
        kind="http" if model.http_port else "tcp" if model.tcp_port else "exec",
        test=() if port else model.test or (),
        port=port,
        path=model.http_path,
        interval=model.interval,
        timeout=model.timeout,
        retries=model.retries,
        start_period=model.start_period,
        start_interval=model.start_interval,
    )
