"""The contract between orchestrator and agent: frozen values, one class per message.

Every message is *state that can be sent again*: the truth lives in the two SQLite files, the bus only carries it.
An unknown field is an error: a peer that says more than we understand speaks another WIRE_VERSION.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.kit.pools import VIRTUALS
from agent.kit.troubles import Trouble

WIRE_VERSION = 1
NETWORKS = 12  # per service: the record on its link has room for that many

State = Literal[
    "pending",
    "preparing",
    "starting",
    "running",
    "stopping",
    "backoff",
    "stopped",
    "completed",
    "failed",
    "removed",
]
Health = Literal["none", "starting", "healthy", "unhealthy"]
Desired = Literal["running", "stopped", "paused", "drained"]
OnUnhealthy = Literal["restart", "recreate", "stop", "none"]
NETWORK_MODE = r"^(|none|host|service:[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}|container:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,253})$"
HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9_])?")
HostName = Annotated[str, Field(pattern=f"^{HOSTNAME.pattern}$")]


def _address(text: str) -> str:
    ip_address(text)
    return text


def _range(text: str) -> str:
    ip_network(text)
    return text


Address = Annotated[str, Field(pattern=r"^[0-9a-fA-F:.]{2,45}$"), AfterValidator(_address)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]  # seconds, cores


class Wire(BaseModel):
    """Numbers are finite: JSON has no word for the others, so what was written could not be read back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# What a task is made of -------------------------------------------------------------------------------------------


class Mount(Wire):
    """`source`: absolute host path (bind), full volume name (volume), absent (tmpfs, anonymous volume). `target`:
    absolute. `owner`: of an anonymous volume, the service whose first slot it belongs to; "": the task's own.
    `labels`, `options` (kit/volume_options.py): what a volume gets when it is made; other labels replace no container.
    `external`: it must be there. `subpath`: the part of the volume that is mounted. `propagation`: of a bind; mounts
    made on the host later appear in the container (slave, and shared, which is no more: a container mounts nothing)."""

    kind: Literal["bind", "volume", "tmpfs"]
    target: str
    source: str | None = None
    read_only: bool = False
    create_host_path: bool = True
    no_copy: bool = False
    size: Count | None = None  # bytes, tmpfs
    mode: int | None = Field(default=None, ge=0, le=0o7777)  # permission bits, tmpfs
    owner: str = ""
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    external: bool = False
    subpath: str | None = None
    propagation: Literal["private", "slave", "shared"] = "private"


class VolumesFrom(Wire):
    """The VOLUMEs of another service's image, as its first slot has them, at places where the spec mounts nothing."""

    service: str
    read_only: bool = False


class Port(Wire):
    """One published port. `published` None: the agent picks a free one, `among` (first, last) if that is given.
    `host_ip` "": every address of the host."""

    target: PortNumber
    published: PortNumber | None = None
    among: tuple[PortNumber, PortNumber] | None = None
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ""


class Subnet(Wire):
    """A range of addresses of a network. `subnet`, `among`: "172.28.0.0/16"; addresses are taken out of `among`, "" for
    all of it. `reserved`: not given out (gateways and others that the file names)."""

    subnet: Annotated[str, Field(max_length=45), AfterValidator(_range)]
    among: Annotated[str, Field(max_length=45), AfterValidator(lambda text: text and _range(text))] = ""
    reserved: tuple[Address, ...] = ()


class Membership(Wire):
    """A task's place on one network. `network`: its full name, the same in every stack that shares it. `aliases`: names
    of the service there besides its own. `internal`: the network leads nowhere else. `ipv6`: it has IPv6 besides.
    `subnets`: where addresses of its tasks come from, where the file says so. `addresses`: chosen for the service, one
    of a family at most. `mtu`: 0 for that of the way out."""

    network: str = Field(min_length=1, max_length=255)
    aliases: tuple[str, ...] = ()
    internal: bool = False
    ipv6: bool = False
    subnets: tuple[Subnet, ...] = ()
    addresses: tuple[Address, ...] = ()
    mtu: int = Field(default=0, ge=0, le=65535)


class Naming(Wire):
    """Names besides those of its networks. `container`: by which others know this one; "": STACK-SERVICE-SLOT. The rest
    is for the container alone. `domain`: of its host name. `links`: alias → service. `servers`: addresses, asked for
    what is not in its networks; (): the host's. `search`, `options`: of resolv.conf(5); None and (): the host's.
    `hosts`: name → addresses; host-gateway opens the host to the container, and stands for its address there."""

    container: HostName | Literal[""] = ""
    domain: HostName | Literal[""] = ""
    links: dict[HostName, str] = {}
    servers: tuple[Address, ...] = ()
    search: tuple[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,253}$")], ...] | None = None
    options: tuple[Annotated[str, Field(pattern=r"^[a-z0-9:-]{1,40}$")], ...] = ()
    hosts: dict[HostName, tuple[Address | Literal["host-gateway"], ...]] = {}


class Hook(Wire):
    """A command run in the task's container, besides its own. None and empty: as the container's own. `environment`:
    over the container's. `privileged`: with every capability in the container's user namespace. `per_replica`: of
    pre_start alone; else the service's first slot runs it, and the others wait for that."""

    command: tuple[str, ...] = Field(min_length=1)
    user: str | None = None
    environment: dict[str, str] = {}
    working_dir: str | None = None
    privileged: bool = False
    per_replica: bool = True


class ContainerSpec(Wire):
    """What forces a new container when it changes; its hash is the task's template.

    None means "as the image says"; an empty tuple resets the image's value. `networks`: empty means the stack's own,
    STACK_default. `network_mode` none: no network but the container's loopback; host: the host's own;
    service:NAME, container:NAME: that of a task of the service in this stack, or of the task that others know by this
    name (Naming.container), in any stack.
    """

    image: str  # as the user wrote it
    image_id: str  # config digest, "sha256:…": a restart never changes the image
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    user: str | None = None
    working_dir: str | None = None
    hostname: str | None = None  # matches HOSTNAME
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[VolumesFrom, ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    networks: tuple[Membership, ...] = Field(default=(), max_length=NETWORKS)
    network_mode: Annotated[str, Field(pattern=NETWORK_MODE)] = ""
    naming: Naming = Naming()
    mac: str = Field(default="", pattern=r"^(([0-9a-f]{2}:){5}[0-9a-f]{2})?$")  # of its link; "": one of ours
    init: bool = False  # pid 1 is a small init, which reaps and hands on signals
    pre_start: tuple[Hook, ...] = ()  # before the first attempt's program
    logged: bool = True  # False: what it writes is kept nowhere
    tty: bool = False  # its three streams are one terminal
    stdin: bool = False  # its input stays open, for who attaches
    once: bool = False  # of a run: its anonymous volumes go with it, and its input ends with that of who is attached
    attended: bool = False  # its program begins when somebody is attached


class Restart(Wire):
    """`default`: the file says nothing. Exits are final, but a failed health check restarts."""

    condition: Literal["default", "no", "on-failure", "always", "unless-stopped"] = "default"
    max_attempts: Count | None = None
    delay: Amount | None = None
    window: Amount | None = None


class Healthcheck(Wire):
    """Times in seconds; None where the file is silent (the image's value, else Docker's default, applies).

    kind `exec`: `test` is ("CMD", …) or ("CMD-SHELL", line), empty to keep the image's; `http`/`tcp`: `port`, `path`.
    kind `none`: no healthcheck, the image's included.
    """

    kind: Literal["none", "exec", "http", "tcp"] = "exec"
    test: tuple[str, ...] = ()
    port: PortNumber | None = None
    path: str = Field(default="/", pattern="^/[!-~]*$")  # a space or a line end would reach into the request
    interval: Amount | None = None
    timeout: Amount | None = None
    retries: Count | None = None
    start_period: Amount | None = None
    start_interval: Amount | None = None


class Resources(Wire):
    memory: Count | None = None  # bytes, limit
    memory_reservation: Count | None = None  # bytes, used in admission
    cpus: Amount | None = None  # limit
    cpus_reservation: Amount | None = None  # used in admission
    pids: int | None = Field(default=None, ge=-1, lt=2**63)  # 0 and -1: no limit


class Dependency(Wire):
    """`restart`: when the other is restarted or replaced, but not when it crashes, this one is restarted after it."""

    service: str
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_started"
    required: bool = True
    restart: bool = False


class LogLimits(Wire):
    """What the logs of one slot may take: `max_file` files of `max_size` bytes; None: as the host's budget has it."""

    max_size: Annotated[int, Field(ge=1, lt=2**53)] | None
    max_file: Annotated[int, Field(ge=1, le=1000)] = 1


class Policy(Wire):
    """What may change in place, without a new container. `on_unhealthy` None: as `restart` says. `drain`: seconds at
    most between its leaving ports and virtual address and its end, for connections to finish. post_start: after each
    start; pre_stop: before the stop signal."""

    restart: Restart = Restart()
    healthcheck: Healthcheck | None = None  # None: the image's, if it has one
    on_unhealthy: OnUnhealthy | None = None
    resources: Resources = Resources()
    stop_signal: str | None = None
    stop_grace: Amount = 10.0
    drain: Amount = 5.0
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    logs: LogLimits | None = None  # None: the agent's default


class Task(Wire):
    """One slot of one service, to be run. `restart_request`: the agent restarts while its journal's is smaller.
    `lineage`: the slot's first task, under whose id its anonymous volumes are kept; "": this one. `beside`: the id of
    the slot's previous task, with which it may run side by side, until it is ready; "": it waits until that is gone.
    Drained is stopped for as long as the host is: one that is done by itself stays so."""

    id: str
    service: str
    slot: int  # from 1
    template: str
    container: ContainerSpec
    policy: Policy = Policy()
    desired: Desired = "running"
    restart_request: Count = 0
    lineage: str = ""
    beside: str = ""

    @property
    def wanted(self) -> bool:
        """Whether it is to have a process; a paused one has."""
        return self.desired in ("running", "paused")


class Assignment(Wire):
    """The complete task set of one stack. A task that is absent is to be removed; an absent *stack* means nothing.

    `removed` (a tombstone) is the only way to remove a stack; `remove_volumes` goes with it. `model` is the resolved
    Compose model of the revision, carried so that a lost orchestrator database can be rebuilt from the agent's journal.
    `virtual`: service → the number of its virtual address; a service without one is reached at its tasks' addresses.
    """

    wire_version: int = WIRE_VERSION
    store_id: str
    stack: str
    generation: int
    revision: int = 0
    removed: bool = False
    remove_volumes: bool = False
    model: dict[str, Any] = {}
    virtual: dict[str, Annotated[int, Field(ge=0, lt=VIRTUALS)]] = {}
    tasks: tuple[Task, ...] = ()
    cause: str | None = None  # event id of the change that raised the generation


# What the agent says ----------------------------------------------------------------------------------------------


class PublishedPort(Wire):
    target: int
    published: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ""


class TaskStatus(Wire):
    """Times are Unix seconds. `reason`: stable code. `message`: one sentence. `evidence`: JSON values. `health` is
    "starting" as well while post_start commands run. `failures`: ends in a row that made it wait to start again."""

    id: str
    service: str
    slot: int
    template: str
    state: State
    health: Health = "none"
    attempt: int = 0
    restarts: int = 0  # attempts after the first, of this task
    failures: int = 0
    paused: bool = False
    since: float = 0.0  # when `state` was entered
    started_at: float | None = None
    pid: int | None = None
    exit_code: int | None = None
    oom: bool = False
    reason: str = ""
    message: str = ""
    evidence: dict[str, Any] = {}
    next_at: float | None = None  # backoff: when the next attempt starts
    address: str | None = None
    ports: tuple[PublishedPort, ...] = ()
    restart_request: int = 0


class StackStatus(Wire):
    """(epoch, seq) grows: epoch counts the agent's starts, seq its messages. The store drops what is not newer."""

    wire_version: int = WIRE_VERSION
    store_id: str
    stack: str
    observed_generation: int
    epoch: int
    seq: int
    removed: bool = False  # acknowledges a tombstone: nothing of the stack is left
    tasks: tuple[TaskStatus, ...] = ()


class Listener(Wire):
    """A listening socket of the host's own network namespace. `holder`: "name (pid N)", or ""."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    holder: str = ""


class Route(Wire):
    """A route of the host's own that leads somewhere in particular. `network`: in CIDR form."""

    network: str
    link: str


class HostStatus(Wire):
    """What planning needs and an unprivileged process cannot see."""

    wire_version: int = WIRE_VERSION
    instance: str
    bound_store_id: str | None  # whose assignments the agent obeys; None: never bound, takes the first
    journal_id: str
    epoch: int
    seq: int
    version: str
    boot_id: str
    kernel: str
    cgroup: Literal["v2", "v1"]
    cpus: int
    memory: int  # bytes
    listeners: tuple[Listener, ...] = ()
    routes: tuple[Route, ...] = ()
    pool: str = ""  # where addresses of tasks come from
    features: dict[str, bool] = {}
    stacks: dict[str, int] = {}  # every stack in the journal → generation of its last accepted assignment
    acknowledged: int = 0  # highest cursor that was obeyed: a database that knows less is an older copy


class Online(Wire):
    """Retained; the agent's last will is Online(online=False). `troubles`: what holds it up. One that cannot read or
    write its journal at its start is not online yet; its epoch, which it does not know, is 0."""

    wire_version: int = WIRE_VERSION
    online: bool
    epoch: int
    troubles: tuple[Trouble, ...] = ()


class Event(Wire):
    """For people, append-only, never an input to planning. `cause`: the id of the event this one follows from.

    kind, e.g. task.started, task.exited, task.restarted, task.unhealthy, stack.applied, agent.started, gap.
    """

    id: str  # ULID
    at: float  # Unix seconds
    boot_id: str = ""
    monotonic: float = 0.0
    source: Literal["agent", "orchestrator"] = "agent"
    kind: str
    stack: str | None = None
    service: str | None = None
    slot: int | None = None
    task: str | None = None
    attempt: int | None = None
    reason: str = ""
    message: str = ""
    evidence: dict[str, Any] = {}
    cause: str | None = None


class EventBatch(Wire):
    """Events `after`+1 … in order of the journal's own sequence numbers, which have no holes.

    The orchestrator takes a batch only if `after` ≤ its cursor (dropping what it has); else it publishes its cursor
    again
    and the agent resends from there. When the agent had to forget, the batch starts with a `gap` event that says how
    many.
    """

    wire_version: int = WIRE_VERSION
    journal_id: str
    after: int
    events: tuple[tuple[int, Event], ...]


# What the orchestrator says, besides assignments ------------------------------------------------------------------


class Cursor(Wire):
    """Retained: the agent may forget events up to `seq` of this journal."""

    wire_version: int = WIRE_VERSION
    journal_id: str
    seq: int


class Store(Wire):
    """Retained: who the orchestrator is. At a store_id the agent is not bound to, it keeps everything running,
    publishes its journal (Report), and applies nothing, until `adopts` names the store_id it is bound to."""

    wire_version: int = WIRE_VERSION
    store_id: str
    adopts: tuple[str, ...] = ()


class Report(Wire):
    """Retained while the store is unknown: the agent's last accepted assignment of one stack."""

    wire_version: int = WIRE_VERSION
    bound_store_id: str
    assignment: Assignment
