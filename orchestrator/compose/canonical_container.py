"""What any container of a project may say of itself: a service's, and one that runs before it (pre_start)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.compose.canonical_base import (
    Bool,
    DeviceRequest,
    Duration,
    Environment,
    FileReference,
    Int,
    Model,
    Name,
    Number,
    Size,
    Texts,
    Ulimits,
    Words,
)


class MountBind(Model):
    """05-services.md, volumes, long syntax, bind. `propagation`: private, rprivate, shared, rshared, slave, rslave."""

    selinux: Literal["z", "Z"] | None = None
    propagation: str | None = None
    create_host_path: Bool = True
    recursive: Literal["enabled", "disabled", "writable", "readonly"] | None = None


class MountVolume(Model):
    """05-services.md, volumes, long syntax, volume."""

    labels: Texts = {}
    nocopy: Bool = False
    subpath: str | None = None


class MountTmpfs(Model):
    """05-services.md, volumes, long syntax, tmpfs. `mode`: the permission bits as a plain number, 0o777 is 511."""

    size: Size | None = None
    mode: Int | None = None


class MountImage(Model):
    """05-services.md, volumes, long syntax, image."""

    subpath: str | None = None


class Mount(Model):
    """05-services.md, volumes. `target`: absolute and clean.

    `source`: an absolute path (bind); a key of the top-level volumes, or None for an anonymous one (volume); an image
    (image).
    """

    type: Literal["bind", "volume", "tmpfs", "cluster", "npipe", "image"]
    source: str | None = None
    target: str
    read_only: Bool = False
    consistency: str | None = None
    bind: MountBind | None = None
    volume: MountVolume | None = None
    tmpfs: MountTmpfs | None = None
    image: MountImage | None = None


class ServiceNetwork(Model):
    """05-services.md, networks: how the container is on one of them. The greatest `gw_priority` is the way out."""

    aliases: Words = ()
    driver_opts: Texts = {}
    gw_priority: Int = 0
    interface_name: str | None = None
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    link_local_ips: Words = ()
    mac_address: str | None = None
    priority: Int = 0


class ServiceModel(Model):
    """05-services.md, models: names of the variables that tell where the model is, and which it is."""

    endpoint_var: str | None = None
    model_var: str | None = None


class Device(Model):
    """05-services.md, devices. `source` may be a CDI name, VENDOR/CLASS=NAME. `permissions`: of r, w, m."""

    source: str
    target: str
    permissions: str = "rwm"


class EnvFile(Model):
    """05-services.md, env_file. `path`: absolute. `format`: None, or raw: values as they are.

    Those of a service are gone, their variables in its `environment`; those of a pre_start are still to be read.
    """

    path: str
    required: Bool = True
    format: str | None = None


class Logging(Model):
    """05-services.md, logging."""

    driver: str | None = None
    options: Texts = {}


class CredentialSpec(Model):
    """05-services.md, credential_spec."""

    config: str | None = None
    file: str | None = None
    registry: str | None = None


class BlkioWeight(Model):
    """05-services.md, blkio_config, weight_device. The capital letters are the reference's."""

    path: str = Field(default="", alias="Path")
    weight: Int = Field(default=0, alias="Weight")


class BlkioLimit(Model):
    """05-services.md, blkio_config, device_read_bps and its kin. `rate`: bytes or operations a second."""

    path: str = Field(default="", alias="Path")
    rate: Size = Field(default="0", alias="Rate")


class BlkioConfig(Model):
    """05-services.md, blkio_config."""

    weight: Int | None = None
    weight_device: tuple[BlkioWeight, ...] = ()
    device_read_bps: tuple[BlkioLimit, ...] = ()
    device_read_iops: tuple[BlkioLimit, ...] = ()
    device_write_bps: tuple[BlkioLimit, ...] = ()
    device_write_iops: tuple[BlkioLimit, ...] = ()


class Container(Model):
    """05-services.md: the keys of a service that are about its container alone.

    `command`, `entrypoint` None: the image's; (): none at all. `networks` values None: no particulars.
    """

    image: str | None = None
    platform: str | None = None
    pull_policy: str | None = None  # always never missing if_not_present build refresh daily weekly every_12h
    pull_refresh_after: str | None = None
    runtime: str | None = None

    # the process
    command: Words | None = None
    entrypoint: Words | None = None
    environment: Environment = {}
    env_file: tuple[EnvFile, ...] = ()
    working_dir: str | None = None
    user: str | None = None
    group_add: Words = ()
    init: Bool | None = None
    stop_signal: str | None = None
    stop_grace_period: Duration | None = None
    logging: Logging | None = None
    models: dict[Name, ServiceModel | None] = {}

    # names and labels
    hostname: str | None = None
    domainname: str | None = None
    annotations: Texts = {}
    labels: Texts = {}
    label_file: Words = ()  # absolute paths; what they say is not in `labels`

    # files
    volumes: tuple[Mount, ...] = ()
    volumes_from: Words = ()  # SERVICE, SERVICE:ro, container:NAME
    tmpfs: Words = ()  # PATH or PATH:OPTIONS
    configs: tuple[FileReference, ...] = ()
    secrets: tuple[FileReference, ...] = ()
    read_only: Bool = False
    shm_size: Size | None = None
    storage_opt: Texts = {}

    # networks
    networks: dict[Name, ServiceNetwork | None] = {}
    network_mode: str | None = None  # none host bridge service:NAME container:NAME
    dns: Words = ()
    dns_opt: Words = ()
    dns_search: Words = ()
    extra_hosts: Words = ()  # NAME=ADDRESS, the same name several times if it has several addresses
    mac_address: str | None = None

    # namespaces and rights
    cgroup: Literal["host", "private"] | None = None
    cgroup_parent: str | None = None
    ipc: str | None = None
    pid: str | None = None
    userns_mode: str | None = None
    uts: str | None = None
    isolation: str | None = None
    privileged: Bool = False
    cap_add: Words = ()
    cap_drop: Words = ()
    security_opt: Words = ()
    credential_spec: CredentialSpec | None = None
    use_api_socket: Bool = False
    sysctls: Texts = {}
    ulimits: Ulimits = {}

    # devices
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: Words = ()
    gpus: tuple[DeviceRequest, ...] = ()

    # resources; times of the real-time scheduler are microseconds
    blkio_config: BlkioConfig | None = None
    cpu_count: Int | None = None
    cpu_percent: Number | None = None
    cpu_period: Int | None = None
    cpu_quota: Int | None = None
    cpu_rt_period: Int | None = None
    cpu_rt_runtime: Int | None = None
    cpu_shares: Int | None = None
    cpus: Number | None = None
    cpuset: str | None = None
    mem_limit: Size | None = None
    mem_reservation: Size | None = None
    mem_swappiness: Size | None = None  # a percentage, spelled as a size
    memswap_limit: Size | None = None  # memory and swap together; -1: no limit of swap
    oom_kill_disable: Bool = False
    oom_score_adj: Int | None = None
    pids_limit: Int | None = None  # -1: no limit
