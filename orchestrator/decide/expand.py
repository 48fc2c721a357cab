"""From the Compose model to what the agent runs: one Desired per service. Pure.

Must not look at what runs: that is plan.py's part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.kit.errors import UserError
from agent.wire.messages import ContainerSpec, Dependency, Healthcheck, Mount, Policy, Port, Resources, Restart, Task
from orchestrator.compose.model import HealthcheckModel, Service, ServiceMount, Stack

STOP_GRACE = 10.0  # seconds, 05-services.md stop_grace_period


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

    UserError volume-undefined, anonymous-volume.
    """
    return {name: service(stack, name, images[stack.services[name].image]) for name in stack.services}


def service(stack: Stack, name: str, image_id: str) -> Desired:
    """One service of the model. Errors as expand."""
    model = stack.services[name]
    container = _container(stack, name, model, image_id)
    return Desired(name, model.replicas, container, _policy(model), template(container))


def as_it_is(tasks: Sequence[Task]) -> dict[str, Desired]:
    """What verbs other than `up` start from: each service that has tasks, exactly as its tasks say."""
    found: dict[str, Desired] = {}
    for task in tasks:
        replicas = found[task.service].replicas + 1 if task.service in found else 1
        found[task.service] = Desired(task.service, replicas, task.container, task.policy, task.template)
    return found


def template(container: ContainerSpec) -> str:
    """16 hex digits over the canonical JSON. Defaults are left out: a field that a later version adds changes no hash,
    so upgrading gorae replaces no container."""
    document = container.model_dump(mode="json", exclude_defaults=True)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _container(stack: Stack, name: str, model: Service, image_id: str) -> ContainerSpec:
    return ContainerSpec(
        image=model.image,
        image_id=image_id,
        entrypoint=model.entrypoint,
        command=model.command,
        environment=model.environment,
        user=model.user,
        working_dir=model.working_dir,
        hostname=model.hostname,
        read_only=model.read_only,
        mounts=tuple(_mount(stack, name, mount) for mount in model.mounts),
        ports=tuple(
            Port(target=p.target, published=p.published, protocol=p.protocol, host_ip=p.host_ip) for p in model.ports
        ),
        expose=model.expose,
        labels=model.labels,
    )


def _mount(stack: Stack, service: str, mount: ServiceMount) -> Mount:
    source = mount.source
    if mount.type == "volume":
        if source is None:
            raise UserError(
                f"cannot start {stack.name}/{service}: the volume at {mount.target} has no name",
                code="anonymous-volume",
                hint=f"name it: NAME:{mount.target}, and list NAME under volumes",
            )
        if source not in stack.volumes:
            raise UserError(
                f"cannot start {stack.name}/{service}: volume {source} is not defined",
                code="volume-undefined",
                hint=f"list {source} under the top-level volumes",
            )
        source = stack.volumes[source].name
    return Mount(
        kind=mount.type,
        target=mount.target,
        source=source,
        read_only=mount.read_only,
        create_host_path=mount.create_host_path,
        no_copy=mount.nocopy,
        size=mount.size,
        mode=mount.mode,
    )


def _policy(model: Service) -> Policy:
    return Policy(
        restart=Restart(**dict(model.restart)),
        healthcheck=_healthcheck(model.healthcheck) if model.healthcheck else None,
        resources=Resources(**dict(model.resources)),
        stop_signal=model.stop_signal,
        stop_grace=STOP_GRACE if model.stop_grace_period is None else model.stop_grace_period,
        depends_on=tuple(
            Dependency(service=name, condition=dep.condition, required=dep.required)
            for name, dep in sorted(model.depends_on.items())
        ),
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
