"""The canonical model: one type per key, short forms gone. What `compose/` produces, the API takes and the store keeps.

Spec references are to the Compose Specification's sections. Keys whose meaning the runtime does not honour yet are not
here: normalize refuses them, naming file, line and key. Paths are absolute; durations are seconds; sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.wire.messages import NETWORK_MODE, Hook, Naming, OnUnhealthy, PortNumber, Subnet

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
ServiceName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PortMapping(Model):
    """05-services.md, ports. One entry per port of the container. published None: any free port, `among` (first, last)
    if that is given. `mode` host: one container at a time has it."""

    target: int = Field(ge=1, le=65535)
    published: int | None = Field(default=None, ge=1, le=65535)
    among: tuple[PortNumber, PortNumber] | None = None
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ""
    mode: Literal["ingress", "host"] = "ingress"


class ServiceMount(Model):
    """05-services.md, volumes and tmpfs. `source`: absolute path (bind), key of the top-level `volumes` (volume), None
    for an anonymous volume. `labels`: of a volume that is made for it. `propagation`: of a bind."""

    type: Literal["bind", "volume", "tmpfs"]
    target: str = Field(pattern=r"^/")
    source: str | None = None
    read_only: bool = False
    create_host_path: bool = True
    nocopy: bool = False
    size: int | None = None
    mode: int | None = None
    labels: dict[str, str] = {}
    subpath: str | None = None
    propagation: Literal["private", "slave", "shared"] = "private"


class VolumesFrom(Model):
    """05-services.md, volumes_from."""

    service: ServiceName
    read_only: bool = False


class NetworkUse(Model):
    """05-services.md, networks. `aliases`: names there besides the service's own."""

    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()  # ipv4_address, ipv6_address


class HealthcheckModel(Model):
    """05-services.md, healthcheck. `test` None: the image's. `disable` and NONE are the same."""

    disable: bool = False
    test: tuple[str, ...] | None = None
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None
    # x-gorae-healthcheck: a probe by the agent, with no process in the container
    http_port: int | None = None
    http_path: str = "/"
    tcp_port: int | None = None


class DependsOn(Model):
    """05-services.md, depends_on."""

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_started"
    required: bool = True
    restart: bool = False


class RestartModel(Model):
    """05-services.md, restart; deploy.md, restart_policy (which wins). default: the file says nothing."""

    condition: Literal["default", "no", "on-failure", "always", "unless-stopped"] = "default"
    max_attempts: int | None = None
    delay: float | None = None
    window: float | None = None


class ResourcesModel(Model):
    """deploy.md, resources; and mem_limit, cpus, pids_limit, mem_reservation of 05-services.md. pids 0: no limit."""

    memory: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpus_reservation: float | None = None
    pids: int | None = None


class UpdateModel(Model):
    """deploy.md, update_config and rollback_config; times in seconds. None: the file says nothing, and
    orchestrator/decide/update.py what that means. `parallelism` 0: all at once."""

    parallelism: int | None = Field(default=None, ge=0)
    delay: float = Field(default=0.0, ge=0)
    failure_action: Literal["continue", "pause", "rollback"] | None = None
    monitor: float | None = Field(default=None, ge=0)
    max_failure_ratio: float = Field(default=0.0, ge=0, le=1)
    order: Literal["start-first", "stop-first"] | None = None


class LoggingModel(Model):
    """05-services.md, logging. `kept` False: what containers write is kept nowhere. `max_size`: bytes; None: no limit
    but the host's."""

    kept: bool = True
    max_size: int | None = Field(default=None, ge=1, lt=2**53)
    max_file: int = Field(default=1, ge=1, le=1000)


class Service(Model):
    """05-services.md. None: as the image says; an empty tuple: reset to nothing."""

    image: str
    platform: str = Field(default="", pattern=r"^(linux/[a-z0-9]{1,20}(/[a-z0-9]{1,20})?)?$")  # "": this machine's
    pull_policy: Literal["missing", "always", "never", "refresh", "build"] = "missing"  # build: never pulled
    pull_after: float = Field(default=0.0, ge=0)  # seconds for which refresh trusts what is here
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    ports: tuple[PortMapping, ...] = ()
    expose: tuple[str, ...] = ()
    mounts: tuple[ServiceMount, ...] = ()
    volumes_from: tuple[VolumesFrom, ...] = ()
    networks: dict[str, NetworkUse] = {}  # by key; empty: the default one
    mac_address: str = Field(default="", pattern=r"^(([0-9a-f]{2}:){5}[0-9a-f]{2})?$")
    network_mode: str = Field(default="", pattern=NETWORK_MODE)
    depends_on: dict[ServiceName, DependsOn] = {}
    healthcheck: HealthcheckModel | None = None
    restart: RestartModel = RestartModel()
    replicas: int = Field(default=1, ge=0, le=1000)
    job: bool = False  # deploy.mode replicated-job, global-job: it is to end
    update: UpdateModel = UpdateModel()
    rollback: UpdateModel = UpdateModel()
    resources: ResourcesModel = ResourcesModel()
    user: str | None = None
    working_dir: str | None = None
    hostname: str | None = None
    naming: Naming = Naming()
    labels: dict[str, str] = {}
    read_only: bool = False
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    pre_start: tuple[Hook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    on_unhealthy: OnUnhealthy | None = None  # x-gorae-on-unhealthy
    drain: float | None = Field(default=None, ge=0, le=86400)  # x-gorae-drain
    stop_signal: str | None = None
    stop_grace_period: float | None = None
    logging: LoggingModel | None = None  # None: as logs are kept of which nothing is said


class Volume(Model):
    """07-volumes.md. `name`: as the host knows it (PROJECT_KEY unless given). `driver_opts`: of the driver `local`, as
    agent/kit/volume_options.py reads them."""

    name: str
    external: bool = False
    labels: dict[str, str] = {}
    driver_opts: dict[str, str] = {}


class Network(Model):
    """06-networks.md. `name`: stacks that say the same one share it (STACK_KEY unless given). `internal`: it leads
    nowhere else. `ipv6`: it has IPv6 besides. Of an external one, all of that is as the stack that declares it says."""

    name: str = Field(min_length=1, max_length=255)
    external: bool = False
    internal: bool = False
    ipv6: bool = False
    subnets: tuple[Subnet, ...] = ()
    mtu: int = Field(default=0, ge=0, le=65535)


class LockedImage(Model):
    """What a tag resolved to. `digest`: as its registry calls it, "" when the image came from none. `volumes`: where
    containers of it keep data whether the file mounts something there or not (VOLUME)."""

    id: str
    digest: str = ""
    volumes: tuple[str, ...] = ()


class Stack(Model):
    """A whole resolved project: what a revision is a snapshot of. `images`: by name as written; the daemon fills it,
    and what a client sends there is refused."""

    name: Name
    services: dict[ServiceName, Service]
    volumes: dict[str, Volume] = {}
    networks: dict[str, Network] = {}  # without `default` where that is as nobody changed it
    images: dict[str, LockedImage] = {}
