"""What gorae needs of a host, one function per question. Each only looks; the cures are for doctor to name or apply.

The agent's rooms are not imported here: what only they know is asked on the agent's socket.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.kit import syscalls
from agent.kit.errors import GoraeError
from agent.kit.layout import Layout
from agent.kit.pools import REGISTRY, SLICES
from agent.wire import broker
from orchestrator.cli import household
from orchestrator.cli.client import Client, Unreachable, ask_agent
from orchestrator.cli.render import size

CGROUPS = Path("/sys/fs/cgroup")
PROGRAMS = {
    "crun": ("--version", "crun"),
    "conmon": ("--version", "conmon"),
    "catatonit": ("--version", "catatonit"),
    "nft": ("--version", "nftables"),
    "mosquitto": ("-h", "mosquitto"),
    "skopeo": ("--version", "skopeo"),
}


SCARCE, NOTHING = 256 << 20, 1 << 20  # bytes left on a disk that are few, and too few for anything


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: ok, note (works, but you should know) or bad. `fix`: a key of FIXES that doctor --fix may apply."""

    state: str
    what: str
    text: str
    cure: str = ""
    fix: str = ""


def kernel() -> Iterator[Finding]:
    release = platform.release()
    numbers = tuple(int(n) for n in re.findall(r"\d+", release)[:2])
    if numbers >= (5, 12):
        yield Finding("ok", "kernel", release)
    else:
        yield Finding("bad", "kernel", f"{release} has no idmapped mounts", "use Linux 5.12 or newer")
    filesystems = Path("/proc/filesystems").read_text().split()
    if "overlay" not in filesystems and not _module("overlay"):
        yield Finding("bad", "overlay", "the kernel has no overlay file system", "modprobe overlay")
    try:
        allowed = int(Path("/proc/sys/user/max_user_namespaces").read_text())
    except (OSError, ValueError):
        allowed = 0
    if allowed <= 0:
        yield Finding("bad", "user namespaces", "they are switched off", "sysctl user.max_user_namespaces=28633")
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        yield Finding("bad", "pidfd", "the kernel has no pidfd_open(2)", "use Linux 5.12 or newer")


def _module(name: str) -> bool:
    return any(Path("/lib/modules", platform.release()).glob(f"kernel/fs/*/{name}.ko*"))


def trapped(cgroups: Path = CGROUPS) -> list[str]:
    """Controllers that still sit on the unified tree of a v1 hybrid host: crun then refuses every container."""
    try:
        return (cgroups / "unified" / "cgroup.controllers").read_text().split()
    except OSError:
        return []


def cgroup(cgroups: Path = CGROUPS) -> Iterator[Finding]:
    if (cgroups / "cgroup.controllers").exists():
        missing = {"cpu", "memory", "pids"} - set((cgroups / "cgroup.controllers").read_text().split())
        if missing:
            text = f"v2, without {', '.join(sorted(missing))}"
            yield Finding("bad", "cgroups", text, "boot without cgroup_disable= for them")
        else:
            yield Finding("ok", "cgroups", "v2")
        return
    names = trapped(cgroups)
    if names:
        cure = "; ".join(
            f"mkdir -p {cgroups}/{name} && mount -t cgroup -o {name} cgroup {cgroups}/{name}" for name in names
        )
        text = f"v1 hybrid with {', '.join(names)} on the unified tree: crun refuses that"
        yield Finding("bad", "cgroups", text, f"gorae doctor --fix, which runs: {cure}", fix="cgroups")
        return
    missing = {name for name in ("cpu", "memory", "pids") if not (cgroups / name).is_dir()}
    if missing:
        text = f"v1, without {', '.join(sorted(missing))}"
        yield Finding("bad", "cgroups", text, "mount the missing hierarchies, or boot with systemd and cgroup v2")
    else:
        yield Finding("ok", "cgroups", "v1 hybrid")


def fix_cgroups(cgroups: Path = CGROUPS) -> list[str]:
    """Mount a v1 hierarchy for each trapped controller; what was done, in sentences."""
    done = []
    for name in trapped(cgroups):
        target = cgroups / name
        target.mkdir(exist_ok=True)
        syscalls.mount("cgroup", target, "cgroup", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, name)
        done.append(f"mounted the cgroup v1 hierarchy {name} at {target}")
    return done


FIXES = {"cgroups": fix_cgroups}


def programs() -> Iterator[Finding]:
    path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    for name, (option, package) in PROGRAMS.items():
        program = shutil.which(name, path=path)
        if program is None:
            yield Finding("bad", name, "is not installed", f"apt-get install {package}")
            continue
        try:
            result = subprocess.run([program, option], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Finding("bad", name, f"{program} does not run: {error}", f"apt-get install --reinstall {package}")
            continue
        version = re.search(r"\d+(\.\d+)+", result.stdout + result.stderr)
        yield Finding("ok", name, version.group() if version else program)


def users() -> Iterator[Finding]:
    for name in (broker.USER, household.ORCHESTRATOR_USER):
        if household.account(name) is None:
            text = f"there is no user {name}: that daemon runs as root"
            yield Finding("note", "users", text, f"useradd --system --user-group --shell /usr/sbin/nologin {name}")
    if household.account(household.RESOLVER_USER) is None:
        text = f"there is no user {household.RESOLVER_USER}: the resolver runs as nobody, as others may"
        cure = f"useradd --system --user-group --shell /usr/sbin/nologin {household.RESOLVER_USER}"
        yield Finding("note", "users", text, cure)
    user = household.account(household.ORCHESTRATOR_USER)
    if user is not None and os.geteuid() == 0:
        missing = household.unreadable(user)
        if missing is None:
            yield Finding("ok", "users", "gorae can read the code")
        else:
            text = f"gorae cannot read {missing}: the orchestrator runs as root"
            yield Finding("note", "users", text, "install below /opt or /usr: deploy/setup")


def disks(root: str | None) -> Iterator[Finding]:
    """Of the directories that the daemons write to: room, and leave to write."""
    layout = Layout.at(root)
    seen: set[int] = set()
    for path in (layout.state, layout.run):
        try:
            device, disk = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue  # not there yet
        if device in seen:
            continue
        seen.add(device)
        room = disk.f_bavail * disk.f_frsize
        if disk.f_flag & os.ST_RDONLY:
            yield Finding("bad", "disk", f"{path} is on a file system that is read-only", "dmesg says why")
        elif room < SCARCE or (disk.f_files and not disk.f_favail):
            what = f"{size(room)} left" if disk.f_favail or not disk.f_files else "no inodes left"
            cure = "gorae df says what takes it; gorae image prune, gorae volume prune"
            yield Finding("bad" if room < NOTHING or "inodes" in what else "note", "disk", f"{what} at {path}", cure)
        else:
            yield Finding("ok", "disk", f"{size(room)} left at {path}")


def daemons(root: str | None) -> Iterator[Finding]:
    layout = Layout.at(root)
    log = f"less {layout.state}/daemon.log"
    pid = None
    try:
        pid = household.holder(layout)
        if pid:
            yield Finding("ok", "daemon", f"runs, process {pid}")
    except PermissionError:
        pass  # only root may look at the lock; the API says more anyway
    cure = log if pid else "gorae daemon --detach, as root"
    try:
        version = Client(root).get("/v1/version")
    except GoraeError as error:
        known = isinstance(error.__cause__, PermissionError) or not isinstance(error, Unreachable)
        yield Finding("bad", "API", error.message, error.hint if known else cure)
    else:
        yield Finding("ok", "API", f"answers, version {version['version']}")
        if not version["agent"]["online"]:
            yield Finding("bad", "bus", "the orchestrator does not hear the agent", log)
        for trouble in version.get("troubles", ()):
            yield Finding("bad", trouble["of"], trouble["message"], trouble["hint"] or log)
    if os.geteuid() == 0:
        try:
            answer = next(value for kind, value in ask_agent(root, "ping") if kind == "result")
        except GoraeError as error:
            yield Finding("bad", "agent", error.message, cure if isinstance(error, Unreachable) else error.hint)
        else:
            yield Finding("ok", "agent", f"answers, instance {answer['instance']}")


def names(root: str | None) -> Iterator[Finding]:
    """Whether anybody listens at the resolver's socket. Not by calling: a call there is the agent's."""
    layout = Layout.at(root)
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()}
    if str(layout.resolver_socket) in listening:
        yield Finding("ok", "names", "the resolver runs")
    else:
        text = "the resolver does not run: containers look up only what is in their /etc/hosts"
        yield Finding("bad", "names", text, f"less {layout.state}/daemon.log")


def network(root: str | None, forward: Path = Path("/proc/sys/net/ipv4/ip_forward")) -> Iterator[Finding]:
    """What of this host has a say in the containers' packets; the agent looks, for root."""
    if os.geteuid() != 0:
        return
    try:
        found = next(value for kind, value in ask_agent(root, "surroundings") if kind == "result")
    except Unreachable:
        return  # said already
    except GoraeError as error:
        yield Finding("bad", "firewall", error.message, error.hint)
        return
    for trouble in found["troubles"]:
        yield Finding("bad", "firewall", trouble["text"], trouble["cure"])
    for name in found["firewalls"]:
        text = f"{name} is not asked about published ports: gorae ports lists who reaches them"
        yield Finding("note", "firewall", text, "127.0.0.1:PORT:PORT in a file, or default_address in gorae.toml")
    if found["sysctls"]:
        yield Finding("ok", "sysctls", f"{', '.join(found['sysctls'])}: put back after the last container")
    elif forward.read_text().strip() == "0":
        yield Finding("ok", "sysctls", "net.ipv4.ip_forward is 0, and will be 1 while containers run")


def pools(root: str | None) -> Iterator[Finding]:
    """Slices of addresses, and what instances left that are gone."""
    import json

    try:
        entries = json.loads(REGISTRY.read_text())
    except FileNotFoundError:
        entries = {}
    except (OSError, ValueError) as error:
        yield Finding("bad", "pools", f"cannot read {REGISTRY}: {error}", f"remove {REGISTRY} when nothing runs")
        return
    gone = [entry["instance"] for entry in entries.values() if not Path(entry["root"]).exists()]
    state = "bad" if len(entries) - len(gone) >= SLICES else "ok"
    yield Finding(state, "pools", f"{len(entries) - len(gone)} of {SLICES} slices of addresses are in use")
    known = {entry["instance"] for entry in entries.values()} - set(gone)
    left = sorted(
        {
            path.name
            for tree in ("", "pids", "memory", "unified")
            for path in (CGROUPS / tree).glob("gorae-" + "[0-9a-f]" * 8)
        }
    )
    orphans = [name for name in left if name.removeprefix("gorae-") not in known]
    if orphans:
        text = (
            f"{', '.join(orphans[:4])}{' …' if len(orphans) > 4 else ''}: cgroups of instances that are not registered"
        )
        yield Finding("note", "leftovers", text, "end their processes (cgroup.procs), then rmdir them")
