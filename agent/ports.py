"""The Protocols the host loop calls, and the values that cross them. Narrow on purpose: at most six methods each.

Each has a fake in agent/fakes that passes the same conformance suite as the real one (tests/agent/conformance).
Every `ensure`/`remove` is idempotent: already there and already gone are success. Errors are kit.errors: Temporary
is retried
with backoff, Permanent and UserError are reported. All methods may be called for different tasks at once; for one
task, one at a time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from agent.decide.firewall import Trouble
from agent.wire.batches import Part, Place
from agent.wire.messages import Event, Healthcheck, Hook, Listener, Mount, Port, PublishedPort, Resources, Route

UID_RANGE = 65536  # ids of one task's user namespace

# Allocation: from the instance's slice of the host-wide pools --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one task holds of the host; journalled before use. `index` (from 0, < 1024 per instance) gives all the rest:
    the uid range and, unless its networks say otherwise (decide/addresses.py), the addresses are pure functions of
    (slice, index)."""

    index: int
    address: str  # "10.181.3.7"; "": it is on no network
    uid_base: int  # host id of the container's root; UID_RANGE ids follow
    ports: tuple[PublishedPort, ...] = ()
    address_6: str = ""  # "" without IPv6


# Sandboxes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Namespaces pinned by bind mounts; a restart reuses them, with the address. `net_ns` None: the network is the
    host's. `space` tells these namespaces from those of another life of the sandbox."""

    task: str
    user_ns: Path
    net_ns: Path | None
    uid_base: int
    space: str = ""


class Sandboxes(Protocol):
    async def ensure(self, task: str, uid_base: int, *, host_network: bool = False) -> Sandbox: ...

    async def join(self, task: str, owner: str, uid_base: int) -> Sandbox:
        """The sandbox of `owner`, whose range begins at `uid_base`, for `task`, which has none of its own. Temporary
        sandbox-absent."""

    async def remove(self, task: str) -> None: ...

    async def list(self) -> frozenset[str]:
        """Tasks of this instance that have any part of a sandbox on the host."""


# Images and root file systems --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the runtime needs of an image's config. Absent in the image: None or empty."""

    id: str  # "sha256:…", the config's digest
    layers: tuple[str, ...]  # diff ids, lowest first
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()  # "K=V"
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: Healthcheck | None = None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One row of `image ls`."""

    id: str
    names: tuple[str, ...]  # "docker.io/library/redis:7" …, as Docker would show them familiar: "redis:7"
    digests: tuple[str, ...]  # registry digests, where known
    size: int  # bytes unpacked
    created: str = ""
    layers: int = 0


Progress = Callable[[dict[str, Any]], None]  # called with small JSON documents: {"image", "step", "done", "total"}
PullPolicy = Literal["missing", "always", "never", "refresh"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image a stack needs. `after`: seconds for which refresh trusts what is here. `id` and `digest`: what the stack
    is locked to, "" when it is not. `platform`: OS/ARCH[/VARIANT], "" for this machine's."""

    name: str
    policy: PullPolicy = "missing"
    after: float = 0.0
    id: str = ""
    digest: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name resolved to. `digest`: as the registry calls it; "" when the image came from none."""

    id: str
    digest: str


class Images(Protocol):
    async def config(self, image: str) -> ImageConfig:
        """By id or name, local only. UserError image-missing."""

    async def ensure(self, want: Wanted, progress: Progress, keys: Mapping[str, str] = ...) -> Resolved:
        """The image, pulled when the policy says so. UserError image-missing when it may not be.

        keys: the asker's own for registries, agent/images/auth.py."""

    async def pull(
        self, name: str, progress: Progress, platform: str = "", keys: Mapping[str, str] = ...
    ) -> ImageInfo: ...

    async def latest(self, name: str, keys: Mapping[str, str] = ..., platform: str = "") -> str:
        """The digest its registry has under this name now. Errors as of pull."""

    async def load(self, archive: Path, name: str | None, progress: Progress) -> Sequence[ImageInfo]: ...

    async def import_rootfs(self, tar: Path, name: str, config: Mapping[str, Any], progress: Progress) -> ImageInfo: ...

    async def list(self) -> Sequence[ImageInfo]: ...

    async def remove(self, image: str, in_use: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
        """Names removed and bytes freed. in_use: image id → who uses it; such an image is refused."""


@dataclass(frozen=True, slots=True)
class GcRule:
    """Which images may go. `unnamed`: only those that no name means any more. `young`, `old`: seconds since an image
    was wanted last; older ones than `old` go (None: none for its age), and when `bytes` must be freed the oldest others
    as well. A younger one than `young` never goes: whoever pulled it is about to use it."""

    unnamed: bool = False
    young: float = 600.0
    old: float | None = None
    bytes: int = 0


@dataclass(slots=True)
class StoreProblem:
    """`what`: blob, layer or stray, with its digest. `images`: those that need it. `done`: how it was repaired."""

    what: str
    digest: str
    why: str
    images: list[str] = field(default_factory=list)
    used_by: str = ""
    done: str = ""


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """`bytes`: of blobs, read and hashed."""

    images: int
    blobs: int
    layers: int
    bytes: int
    problems: list[StoreProblem]


class ImageShelf(Protocol):
    """What is done with images that are here."""

    async def inspect(self, image: str) -> dict[str, Any]: ...

    async def tag(self, image: str, name: str) -> ImageInfo: ...

    def save(self, images: Sequence[str], form: Literal["docker-archive", "oci-archive"]) -> AsyncIterator[bytes]:
        """The bytes of an archive. UserError image-missing before the first of them."""

    async def usage(self, in_use: Collection[str]) -> dict[str, Any]:
        """Numbers of images, bytes of the store and of its file system."""

    async def collect(self, keep: Collection[str], rule: GcRule, *, dry: bool = False) -> tuple[list[str], int]:
        """Remove what the rule allows; what went, as people know it, and the bytes freed."""

    async def check(self, repair: bool, in_use: Callable[[], Mapping[str, str]], progress: Progress) -> StoreCheck:
        """Every blob and layer verified. in_use: image id → who uses it, asked for before each repair; nothing of such
        an image is touched."""


class Logins(Protocol):
    """The instance's own passwords for registries."""

    async def login(self, registry: str, user: str, password: str) -> None:
        """Kept once the registry has taken them. UserError bad-login, Temporary registry-away."""

    def logout(self, registry: str) -> None:
        """UserError not-logged-in."""

    def known(self) -> Mapping[str, str]:
        """registry → user."""


@dataclass(frozen=True, slots=True)
class UserIds:
    """Ids inside the container. home: "/" when /etc/passwd does not say."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


class Rootfs(Protocol):
    async def ensure(self, task: str, image: ImageConfig, sandbox: Sandbox) -> Path:
        """Mount overlay(idmapped layers, the task's upper); the mounted path. Keeps what the task wrote before."""

    async def remove(self, task: str) -> None:
        """Unmount and delete the writable layer."""

    async def user(self, task: str, user: str) -> UserIds:
        """Numeric ids of "uid[:gid]" or "name[:group]", read inside the mounted rootfs, out of which no symlink leads.
        Permanent bad-user when the image knows no such name."""

    async def size(self, task: str) -> int:
        """Bytes on the disk of the task's writable layer; 0 if it has none."""

    async def list(self) -> frozenset[str]:
        """Tasks that have a mount or a writable layer."""


@dataclass(frozen=True, slots=True)
class BindSource:
    """What the OCI config needs to mount one Mount. Idmapping is already done: `source` is a mount made for this
    task, so
    the result depends on no crun version."""

    mount: Mount
    source: str  # host path; "tmpfs" for tmpfs
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume, as its manifest says. `stack`: which one it was made for, "" if by hand. `owner`: of an anonymous
    volume, SERVICE.SLOT. `created`: Unix seconds."""

    name: str
    created: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)  # kit/volume_options.py
    stack: str = ""
    owner: str = ""


class Volumes(Protocol):
    async def ensure(
        self, stack: str, mounts: Sequence[Mount], sandbox: Sandbox, rootfs: Path
    ) -> tuple[BindSource, ...]:
        """Create what is missing; a new named volume gets the image's content of its target. Bind sources are
        checked."""

    async def release(self, task: str) -> None:
        """Undo the mounts that ensure() made for this task; the data stays."""

    async def remove(self, names: Sequence[str]) -> None:
        """Delete named volumes with their data."""

    async def list(self) -> Sequence[VolumeInfo]:
        """The volumes that exist, by name."""

    async def mounted(self) -> frozenset[str]:
        """Tasks for which mounts exist on the host."""


@dataclass(slots=True)
class BackedUp:
    """`bytes`: of content. `changed`: files that grew, shrank or went away under our eyes. `skipped`: entries of kinds
    that no backup holds (sockets, devices, mounts)."""

    entries: int = 0
    bytes: int = 0
    changed: int = 0
    skipped: int = 0


class VolumeStore(Protocol):
    """Volumes as people handle them, by name. UserError volume-unknown, bad-volume-name."""

    async def create(self, info: VolumeInfo) -> VolumeInfo:
        """The volume; one that is there with the same options and labels is success. UserError volume-exists."""

    async def size(self, name: str) -> int:
        """Bytes on the disk."""

    async def backup(self, name: str, path: Path, owner: tuple[int, int]) -> BackedUp:
        """Into one new file, which belongs to `owner` (uid, gid). UserError file-exists, not-kept-here."""

    async def manifest(self, path: Path) -> VolumeInfo:
        """What a backup is of. UserError bad-backup."""

    async def restore(self, path: Path, name: str | None, force: bool) -> tuple[VolumeInfo, int]:
        """The volume made of a backup, under another `name` if one is given, and the bytes of its content. `force`: in
        place of what is in one that exists, else UserError volume-exists. UserError bad-backup."""


# Network ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attachment:
    """`networks`: full names; none means loopback alone. `outside`: whether it may reach more than its networks.
    `host`: whether it may reach the host, by the gateway's address. `address_6`: "" without IPv6; `networks_6`: those
    of its networks that have it. `mac`: of its link, "" for one of ours. `mtu`: 0 for that of the way out. `subnets`:
    that its addresses are of, where its networks name some."""

    task: str
    stack: str
    net_ns: Path
    index: int
    address: str
    networks: frozenset[str]
    outside: bool = True
    host: bool = False
    address_6: str = ""
    networks_6: frozenset[str] = frozenset()
    mac: str = ""
    mtu: int = 0
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else of the host has a say in packets of tasks. `troubles`: where they are lost. `firewalls`: whom a person
    tells what to let in, and who is not asked about published ports: ufw, firewalld. `sysctls`: that gorae has changed
    for as long as containers run, "NAME: BEFORE → NOW"."""

    troubles: tuple[Trouble, ...] = ()
    firewalls: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """What a task answers for: the published `ports` if it is ready, its service's `virtual` address ("": none) if it
    is among those chosen for it. One that drains keeps the flows it has; of one that is gone none may be left."""

    address: str
    state: Literal["ready", "running", "draining", "gone"]
    ports: tuple[PublishedPort, ...] = ()
    virtual: str = ""


@dataclass(frozen=True, slots=True)
class NameFiles:
    """Host paths, to be bind-mounted read-only at /etc/hosts, /etc/resolv.conf, /etc/hostname."""

    hosts: Path
    resolv: Path
    hostname: Path


class Network(Protocol):
    async def attach(self, attachment: Attachment) -> None:
        """veth, addresses, routes, and the task's place in the policy; returns after the nft commit that holds it. A
        task without networks gets its loopback, and nothing that would be listed."""

    async def detach(self, task: str) -> None: ...

    async def publish(self, task: str, serving: Serving) -> None:
        """Replace what `task` serves; without ports and virtual address it is taken out of everything. Returns after
        the commit."""

    async def names(
        self,
        task: str,
        hostname: str,
        address: str,
        peers: Mapping[str, tuple[str, ...]],
        *,
        address_6: str = "",
        domain: str = "",
        search: Sequence[str] | None = None,
        options: Sequence[str] = (),
        servers: Sequence[str] | None = None,
    ) -> NameFiles:
        """Write /etc/hosts, /etc/resolv.conf and /etc/hostname of a task; rewritten in place, so that a running
        container
        sees the change. peers: name → addresses, own names among them. domain: of the host name, "" for none. search,
        options: of resolv.conf; None and (): the host's. servers: of a task in the host's network, which knows the
        names in the host's own /etc/hosts as well and asks these, () the host's; None: it asks the resolver."""

    async def list(self) -> frozenset[str]:
        """Tasks that have a veth or an element in the table."""

    async def close(self) -> None:
        """After the last task: the table goes, sysctls that are still ours are restored."""


class Flows(Protocol):
    async def open(self, address: str) -> int:
        """TCP connections that others have to an address, through whatever address or port they came. Looks asked for
        together are one."""


class Resolver(Protocol):
    """The process that answers look-ups at 127.0.0.11:53. It may be away: what is asked meanwhile waits."""

    def tell(self, zone: Callable[[], str]) -> None:
        """Names have changed; `zone` gives the text of decide/zone.py when it is written, for many changes at once."""

    async def serve(self, task: str) -> None:
        """Look-ups in the task's sandbox are answered from now on, by the names told of so far. Temporary
        look-ups-refused."""

    async def drop(self, task: str) -> None: ...


# Runtime -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bundle:
    """One attempt, ready to run. `environment`, `args` … are final: merged from image and spec by decide/oci_config."""

    task: str
    attempt: int
    stack: str
    service: str
    rootfs: Path
    sandbox: Sandbox
    config: dict[str, Any]  # OCI config.json
    log: Path | None  # None: what it writes is kept nowhere


@dataclass(frozen=True, slots=True)
class Process:
    """Identity of a running container: a pid alone may be reused, (pid, start_ticks) not. conmon may be dead: None."""

    pid: int
    start_ticks: int  # field 22 of /proc/PID/stat
    conmon: int | None


@dataclass(frozen=True, slots=True)
class Exit:
    """How an attempt ended. code: 0-255 as a shell says it (128 + signal); None: unknown (conmon was lost)."""

    code: int | None
    signal: int | None
    oom: bool
    at: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Found:
    """An attempt seen on the host. process None: it is over; exit says how, if that is known."""

    task: str
    attempt: int
    process: Process | None
    exit: Exit | None


Before = Callable[[Process], Awaitable[None]]  # in a container that is made, but whose program has not begun


class Runtime(Protocol):
    async def start(self, bundle: Bundle, before: Before | None = None) -> Process:
        """conmon, crun create, /sys check, `before`, crun start. Permanent: command-not-found, not-executable, bad-user
        …; and what `before` raises. On failure nothing is left; cancelled, what is left shows in `list`."""

    async def wait(self, task: str, attempt: int, process: Process) -> Exit:
        """Returns when the process has ended (pidfd), with conmon's exit record where there is one."""

    async def signal(self, task: str, attempt: int, process: Process, signal: int, *, everyone: bool = False) -> None:
        """To pid 1 of the container; everyone: SIGKILL to the whole cgroup. Gone is success."""

    async def remove(self, task: str, attempt: int) -> None:
        """crun delete, bundle, exit file, conmon, cgroup; whatever is left of the attempt. Kills what still runs."""

    async def list(self) -> Sequence[Found]:
        """Every attempt of this instance with a crun state, a cgroup, a conmon or an exit file."""

    async def update(
        self, task: str, attempt: int, resources: Resources | None = None, *, frozen: bool | None = None
    ) -> None:
        """Change a running attempt in place: its limits, and whether its processes stand still; None: leave that."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    ok: bool
    output: str  # the tail, at most 4 KiB
    code: int | None = None  # exit code, or HTTP status
    timed_out: bool = False


class Prober(Protocol):
    async def probe(
        self, task: str, attempt: int, process: Process, check: Healthcheck, address: str, timeout: float
    ) -> ProbeResult:
        """One execution; never raises for a failed check. exec: in the container with its environment and user, its
        whole process group killed at the timeout. http, tcp: by the agent, no process in the container."""

    async def run(
        self, task: str, attempt: int, process: Process, hook: Hook, ids: UserIds | None, timeout: float | None
    ) -> ProbeResult:
        """A command of the task's life, as decide/hooks.py says; `ids`: of its user. What it leaves in the background
        stays, unless the time was over or this is cancelled."""


# Logs -----------------------------------------------------------------------------------------------------------------


class Logs(Protocol):
    def begin(self, stack: str, service: str, slot: int, task: str, attempt: int, at: float) -> Path:
        """Where conmon writes what this attempt says; the directory is made, and a mark of the attempt is there. `at`:
        Unix seconds."""

    def read(
        self,
        stack: str | None,
        services: Collection[str],
        *,
        follow: bool,
        since: float | None = None,
        until: float | None = None,
        tail: int | None = None,
        task: str | None = None,
        after: Mapping[str, Place] | None = None,
    ) -> AsyncGenerator[list[Part], None]:
        """Records over all tasks of these services (none named: of all; no stack: of every one), ended or running:
        first a part without data for each task, then batches, as agent/wire/batches.py has them. `since` and `until`
        are kept to roughly: their reader looks at each line. `tail`: the last so many lines of each slot. `after`:
        where another reader has stopped; tasks that are not there are new."""

    async def tail(self, stack: str, service: str, slot: int, task: str, lines: int) -> tuple[str, ...]: ...

    async def remove(self, stack: str) -> None: ...


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a task's output. `generation`: 0 is written now, 1 before it … `size`: bytes on the disk. `at`: last
    written, Unix seconds. `live`: the task has a place among those that run, so somebody may write to its newest."""

    stack: str
    service: str
    slot: int
    task: str
    generation: int
    size: int
    at: float
    live: bool = False


class LogFiles(Protocol):
    """Logs as they take room."""

    async def written(self, patience: float) -> None:
        """Returns when a log was written that was looked at before, or after so many seconds."""

    def look_at_all(self) -> None:
        """The next rotate_if_needed looks at every log, whether or not anybody has told that it was written."""

    async def rotate_if_needed(self, at: Callable[[str], int]) -> Sequence[LogFile]:
        """Put aside what was written and has grown to at(task) bytes, or will have at the next look; as those files
        were. Loses nothing."""

    async def files(self, stack: str | None = None, service: str | None = None) -> Sequence[LogFile]:
        """Of every task, or of those of one service; also of those that are gone."""

    async def drop(self, files: Sequence[LogFile]) -> list[LogFile]:
        """Delete them, but none that may be written by now; those that are gone."""


# Journal -----------------------------------------------------------------------------------------------------------


class Journal(Protocol):
    """The agent's own memory. Records are opaque JSON documents here; decide/record.py gives them their meaning."""

    async def load(self) -> JournalState: ...

    async def record(self, change: Change) -> None:
        """All of `change` in one transaction; returns after it is durable. Calls made together share one commit."""

    async def events_after(self, seq: int, limit: int) -> Sequence[tuple[int, Event]]: ...

    async def forget_events(self, through: int) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class JournalState:
    journal_id: str
    epoch: int  # this start's number: raised by load()
    fresh: bool  # nothing was ever recorded in it: what is on the host may be anybody's
    bound_store_id: str | None
    assignments: Mapping[str, str]  # stack → Assignment JSON
    records: Mapping[str, str]  # task → record JSON
    last_event: tuple[int, str] | None  # seq, ULID
    acknowledged: int  # highest number that events were forgotten through


@dataclass(frozen=True, slots=True)
class Change:
    """None and empty: leave alone. A record or assignment set to None is deleted."""

    assignments: Mapping[str, str | None] = field(default_factory=dict)
    records: Mapping[str, str | None] = field(default_factory=dict)
    events: Sequence[Event] = ()
    bound_store_id: str | None = None


# Mounts of the host ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MountTable:
    """`points`: absolute paths. `automounts`: those of them below which mounts come and go by themselves."""

    points: frozenset[str]
    automounts: frozenset[str] = frozenset()

    def holding(self, path: str) -> str | None:
        """The mount point on which a path (without symlinks) lies; None: on the root file system."""
        found = None
        for end in (at for at in range(1, len(path) + 1) if at == len(path) or path[at] == "/"):
            if (above := path[:end]) in self.points:
                found = above
            if above in self.automounts:
                break
        return found


class Mounts(Protocol):
    def table(self) -> MountTable: ...

    def real(self, path: str) -> str:
        """Without symlinks, as far as the path exists."""

    async def changed(self) -> None:
        """Returns when the table has changed since the last call, or since the start."""


# The host ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capacity:
    kernel: str
    cgroup: Literal["v2", "v1"]
    cpus: int
    memory: int  # bytes
    features: Mapping[str, bool]
    routes: tuple[Route, ...] = ()  # the host's own
    pool: str = ""  # where addresses of tasks come from


class Host(Protocol):
    """Facts that no other port tells. Cheap, so not asynchronous."""

    def boot_id(self) -> str:
        """The kernel's."""

    def run_id(self) -> str:
        """Changes when the host boots, and when the runtime directory is lost."""

    def capacity(self) -> Capacity: ...

    async def listeners(self, known: tuple[Listener, ...] | None = None) -> tuple[Listener, ...]:
        """`known`: the last answer; holders are looked up again only when the sockets have changed."""

    def free_port(self, port: Port, taken: frozenset[int]) -> int:
        """For a port that the file leaves open. Temporary no-free-port."""

    def trace(self, task: str) -> tuple[str | None, int | None]:
        """(stack, allocation index) of a task that the journal does not know, from what it left on disk."""
