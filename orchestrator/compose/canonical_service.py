"""05-services.md, build.md, develop.md: a service in its canonical form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.compose.canonical_base import (
    Bool,
    Duration,
    Environment,
    FileReference,
    Hook,
    Int,
    Model,
    Name,
    Size,
    Texts,
    Ulimits,
    Words,
)
from orchestrator.compose.canonical_container import Container
from orchestrator.compose.canonical_deploy import Deploy


class Port(Model):
    """05-services.md, ports: one port in the container; ranges there are expanded.

    `published`: a port of the host, or a range to choose from, "8000-9000"; None: any that is free.
    `protocol`: tcp, udp, sctp. `mode`: ingress, host.
    """

    name: str | None = None
    mode: str = "ingress"
    host_ip: str | None = None
    target: Int
    published: str | None = None
    protocol: str = "tcp"
    app_protocol: str | None = None


class Dependency(Model):
    """05-services.md, depends_on. `restart`: when the dependency is replaced, restart this service too."""

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]
    restart: Bool = False
    required: Bool = True


class Healthcheck(Model):
    """05-services.md, healthcheck. `test` begins CMD, CMD-SHELL or NONE, which is `disable`; (): the image's."""

    test: Words = ()
    timeout: Duration | None = None
    interval: Duration | None = None
    retries: Int | None = None
    start_period: Duration | None = None
    start_interval: Duration | None = None
    disable: Bool = False


class HttpProbe(Model):
    """x-gorae-healthcheck, http: a port in the container."""

    port: Int = Field(ge=1, le=65535)
    path: str = "/"


class TcpProbe(Model):
    """x-gorae-healthcheck, tcp: a port in the container."""

    port: Int = Field(ge=1, le=65535)


class GoraeHealthcheck(Model):
    """x-gorae-healthcheck (docs/compose.md): a probe by gorae itself; one of `http` and `tcp`."""

    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    retries: Int | None = None
    start_period: Duration | None = None
    start_interval: Duration | None = None


class Build(Model):
    """build.md. `context`: an absolute path or a URL. `ssh`: ID or ID=PATH. `extra_hosts`: NAME=ADDRESS.

    `provenance`, `sbom`: "true", "false" or attributes.
    """

    context: str
    dockerfile: str | None = None
    dockerfile_inline: str | None = None
    entitlements: Words = ()
    args: Environment = {}
    provenance: str | None = None
    sbom: str | None = None
    ssh: Words = ()
    labels: Texts = {}
    cache_from: Words = ()
    cache_to: Words = ()
    no_cache: Bool = False
    no_cache_filter: Words = ()
    additional_contexts: Texts = {}
    pull: Bool = False
    extra_hosts: Words = ()
    isolation: str | None = None
    network: str | None = None
    target: str | None = None
    secrets: tuple[FileReference, ...] = ()
    shm_size: Size | None = None
    tags: Words = ()
    ulimits: Ulimits = {}
    platforms: Words = ()
    privileged: Bool = False


class Watch(Model):
    """develop.md, watch. `path`: absolute. `exec` is there, empty, whatever the action."""

    path: str
    action: Literal["rebuild", "sync", "restart", "sync+restart", "sync+exec"]
    target: str | None = None
    exec: Hook = Field(default_factory=Hook)
    ignore: Words = ()
    include: Words = ()
    initial_sync: Bool = False


class Develop(Model):
    """develop.md."""

    watch: tuple[Watch, ...] = ()


class Provider(Model):
    """05-services.md, provider. An option given once is a list of one."""

    type: str
    options: dict[str, Words] = {}


class PreStart(Container):
    """A container run to its end before the service starts. In docker compose 5, not yet in 05-services.md.

    `per_replica`: once for each container of the service, not once for all.
    """

    per_replica: Bool = False


class Service(Container):
    """05-services.md. `restart`: no, always, unless-stopped, on-failure, on-failure:TIMES; deploy's policy wins."""

    container_name: str | None = None
    profiles: Words = ()
    attach: Bool = True
    tty: Bool = False
    stdin_open: Bool = False
    restart: str | None = None
    scale: Int | None = None

    ports: tuple[Port, ...] = ()
    expose: Words = ()  # PORT, FROM-TO, PORT/PROTOCOL
    links: Words = ()  # SERVICE, SERVICE:ALIAS
    external_links: Words = ()

    depends_on: dict[Name, Dependency] = {}
    healthcheck: Healthcheck | None = None
    x_gorae_healthcheck: GoraeHealthcheck | None = Field(default=None, alias="x-gorae-healthcheck")
    x_gorae_on_unhealthy: Literal["restart", "recreate", "stop", "none"] | None = Field(
        default=None, alias="x-gorae-on-unhealthy"
    )
    x_gorae_drain: Duration | None = Field(default=None, alias="x-gorae-drain")
    pre_start: tuple[PreStart, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()

    build: Build | None = None
    deploy: Deploy | None = None
    develop: Develop | None = None
    provider: Provider | None = None
