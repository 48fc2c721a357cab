"""deploy.md: how many containers of a service, with what share of the machine, restarted and replaced how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.compose.canonical_base import DeviceRequest, Duration, Int, Model, Number, Size, Texts, Words


class ResourceLimits(Model):
    """deploy.md, resources.limits."""

    cpus: Number | None = None
    memory: Size | None = None
    pids: Int | None = None


class DiscreteResource(Model):
    """deploy.md, resources.reservations.generic_resources, discrete_resource_spec."""

    kind: str = ""
    value: Int = 0


class GenericResource(Model):
    """deploy.md, resources.reservations.generic_resources."""

    discrete_resource_spec: DiscreteResource | None = None


class ResourceReservations(Model):
    """deploy.md, resources.reservations."""

    cpus: Number | None = None
    memory: Size | None = None
    generic_resources: tuple[GenericResource, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()


class Resources(Model):
    """deploy.md, resources."""

    limits: ResourceLimits = Field(default_factory=ResourceLimits)
    reservations: ResourceReservations = Field(default_factory=ResourceReservations)


class RestartPolicy(Model):
    """deploy.md, restart_policy. It wins over `restart`. `condition`: none, on-failure, any."""

    condition: str = "any"
    delay: Duration | None = None
    max_attempts: Int | None = None
    window: Duration | None = None


class UpdateConfig(Model):
    """deploy.md, update_config and rollback_config. `parallelism` 0: all at a time.

    `failure_action`: continue, pause, rollback (of an update only).
    """

    parallelism: Int | None = None
    delay: Duration | None = None
    failure_action: str | None = None
    monitor: Duration | None = None
    max_failure_ratio: Number | None = None
    order: Literal["start-first", "stop-first"] | None = None


class PlacementPreference(Model):
    """deploy.md, placement.preferences."""

    spread: str | None = None


class Placement(Model):
    """deploy.md, placement."""

    constraints: Words = ()
    preferences: tuple[PlacementPreference, ...] = ()
    max_replicas_per_node: Int | None = None


class Deploy(Model):
    """deploy.md. `mode`: replicated, global, replicated-job, global-job. `endpoint_mode`: vip, dnsrr."""

    mode: str = "replicated"
    replicas: Int | None = None
    labels: Texts = {}
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    resources: Resources = Field(default_factory=Resources)
    restart_policy: RestartPolicy | None = None
    placement: Placement = Field(default_factory=Placement)
    endpoint_mode: str | None = None
