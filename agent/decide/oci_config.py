"""One attempt's OCI config.json, from the task, its image and what was prepared. Pure.

OCI runtime-spec 1.0.2 (config.md, config-linux.md). The defaults are Docker's or stricter; each difference says why.
"""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from agent.kit.errors import Permanent
from agent.ports import BindSource, ImageConfig, NameFiles, Sandbox, UserIds
from agent.wire.messages import Resources, Task

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_PIDS = 4096  # Docker: no limit. Room for the largest JVM; a fork bomb ends here, not at the host's pid_max
CPU_PERIOD = 100_000  # µs

# Docker's fourteen without MKNOD (device nodes are of no use in a user namespace), AUDIT_WRITE (the kernel ignores it
# there) and NET_RAW (forged packets; ping works by ping_group_range). NET_BIND_SERVICE stays: programs look for it.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

# capabilities(7), Linux 5.9 and later: what `privileged` means in a user namespace of one's own.
EVERY_CAPABILITY = (
    *CAPABILITIES,
    *("CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF"),
    *("CAP_CHECKPOINT_RESTORE", "CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_LEASE"),
    *("CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BROADCAST"),
    *("CAP_NET_RAW", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_NICE"),
    *("CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG"),
    "CAP_WAKE_ALARM",
)
INIT = "/dev/init"  # in the container: /dev is always a tmpfs of ours, so nothing of the image is covered

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
STDIN = "gorae.stdin"  # the annotation of a container with input: it stays "open", or is "theirs" who are attached
TERM = "xterm"  # what a program on a terminal is told, as Docker does
SYSCTL = {  # of the task's own network namespace, as Docker: any user may ping and bind port 80
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 65535",  # ids that the user namespace maps
}
_OURS = ("/proc", "/sys", "/dev")  # what a mount may not hide; below /dev it may (/dev/shm)


def oci_config(
    *,
    instance: str,
    stack: str,
    task: Task,
    attempt: int,
    image: ImageConfig,
    ids: UserIds,
    sandbox: Sandbox,
    rootfs: Path,
    binds: Sequence[BindSource],
    names: NameFiles,
    seccomp: Mapping[str, Any] | None,
    hostname: str,
    cgroup: Literal["v2", "v1"] = "v1",
    init: str | None = None,
) -> dict[str, Any]:
    """config.json as a document. `cgroup`: v2 adds a cgroup namespace and /sys/fs/cgroup (read-only). `init`: the
    host's catatonit, a static program, for a task that asks for one.

    Permanent: no-command, bad-workdir, bad-mount, no-program.
    """
    domain = task.container.naming.domain
    linux: dict[str, Any] = {
        "namespaces": [
            {"type": "user", "path": str(sandbox.user_ns)},
            *([] if sandbox.net_ns is None else [{"type": "network", "path": str(sandbox.net_ns)}]),
            *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", *(["cgroup"] if cgroup == "v2" else []))),
        ],
        "cgroupsPath": f"/gorae-{instance}/{task.id}.{attempt}",
        "resources": resources(task.policy.resources),
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
        "sysctl": {} if sandbox.net_ns is None else dict(SYSCTL),
    }
    if seccomp is not None:
        linux["seccomp"] = seccomp
    if any(bind.mount.propagation != "private" for bind in binds):
        linux["rootfsPropagation"] = "rslave"  # or crun cuts every mount off from the host's before it makes ours
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(rootfs), "readonly": task.container.read_only},
        "hostname": hostname,
        **({"domainname": domain} if domain else {}),
        "process": {
            "terminal": task.container.tty,
            "user": {"uid": ids.uid, "gid": ids.gid, "additionalGids": list(ids.groups), "umask": 0o022},
            "args": [*_init(task, init), *arguments(task, image)],
            "env": list(environment(task, image, ids, hostname)),
            "cwd": working_dir(task, image),
            "capabilities": _capabilities(ids),
            "noNewPrivileges": True,
            "oomScoreAdj": 0,  # whatever a service manager gave the agent, a container must not inherit it
        },
        "mounts": [
            *_system_mounts(cgroup, sandbox.net_ns is None),
            *_binds(binds),
            *_name_mounts(names),
            *_init_mount(task, init),
        ],
        "annotations": {
            "gorae.instance": instance,
            "gorae.stack": stack,
            "gorae.service": task.service,
            "gorae.task": task.id,
            **({STDIN: "theirs" if task.container.once else "open"} if task.container.stdin else {}),
        },
        "linux": linux,
    }


def _init(task: Task, init: str | None) -> tuple[str, ...]:
    """catatonit(1): it is pid 1, runs the rest, hands it signals and reaps orphans."""
    if not task.container.init:
        return ()
    if init is None:
        raise Permanent(
            f"cannot start {task.service}: it asks for an init, and catatonit is not installed",
            code="no-program",
            hint="apt-get install catatonit",
        )
    return (INIT, "--")


def _init_mount(task: Task, init: str | None) -> list[dict[str, Any]]:
    if not task.container.init or init is None:
        return []
    return [_mount(INIT, "bind", init, "bind", "ro", "nosuid", "nodev")]


def arguments(task: Task, image: ImageConfig) -> tuple[str, ...]:
    """Docker's rule: an entrypoint that the spec sets (even to nothing) drops the image's command."""
    spec = task.container
    entrypoint = image.entrypoint if spec.entrypoint is None else spec.entrypoint
    default = image.command if spec.entrypoint is None else ()
    args = (*entrypoint, *(default if spec.command is None else spec.command))
    if not args or not args[0]:
        raise Permanent(
            f"cannot start {task.service}: neither the image {spec.image} nor the file names a command",
            code="no-command",
            hint="set command or entrypoint",
        )
    return args


def environment(task: Task, image: ImageConfig, ids: UserIds, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME and HOME as defaults, and TERM on a terminal; then the image's, then the spec's: the last
    one wins, its place stays."""
    merged = {"PATH": PATH, "HOSTNAME": hostname, "HOME": ids.home or "/"}
    for entry in image.environment:
        key, _, value = entry.partition("=")
        merged[key] = value
    if task.container.tty:
        merged.setdefault("TERM", TERM)
    merged.update(task.container.environment)
    return tuple(f"{key}={value}" for key, value in merged.items() if key and "\0" not in key + value)


def working_dir(task: Task, image: ImageConfig) -> str:
    """The spec's, else the image's (relative ones are taken from /, as Docker does), else /."""
    given = task.container.working_dir
    path = given if given is not None else posixpath.join("/", image.working_dir)
    if not plain_directory(path or "/"):
        # /proc/self/fd/N as a working directory is the way out of the container (CVE-2024-21626).
        raise Permanent(
            f"cannot start {task.service}: working_dir {path!r} is not a plain absolute path",
            code="bad-workdir",
            hint='give an absolute path without ".." outside /proc',
        )
    return posixpath.normpath(path or "/").replace("//", "/")


def plain_directory(path: str) -> bool:
    return _plain(path) and not _below(path, "/proc")


def stop_signal(task: Task, image: ImageConfig) -> int:
    """Number of the spec's signal, else the image's, else SIGTERM. "SIGINT", "INT", "2", "RTMIN+3". Permanent
    bad-signal."""
    text = (task.policy.stop_signal or image.stop_signal or "SIGTERM").upper()
    if text.isdigit() and 1 <= int(text) <= 64:
        return int(text)
    base, sign, offset = text.removeprefix("SIG").partition("+" if "+" in text else "-")
    number = signal.Signals.__members__.get(f"SIG{base}")
    if number is not None and (not sign or (base in ("RTMIN", "RTMAX") and offset.isdigit())):
        value = int(number) + (int(f"{sign}{offset}") if sign else 0)
        if 1 <= value <= 64:
            return value
    raise Permanent(
        f"cannot stop {task.service}: there is no signal {text}", code="bad-signal", hint="kill -l lists them"
    )


def resources(wanted: Resources) -> dict[str, Any]:
    """config-linux.md, control groups. Swap equals memory: a container never swaps past its limit. Reservations are
    for admission, not for the kernel. pids ≤ 0: no limit."""
    limits: dict[str, Any] = {
        "devices": [{"allow": False, "access": "rwm"}]
    }  # crun allows null, zero, random … after it
    pids = DEFAULT_PIDS if wanted.pids is None else wanted.pids
    if pids > 0:
        limits["pids"] = {"limit": pids}
    if wanted.memory is not None:
        limits["memory"] = {"limit": wanted.memory, "swap": wanted.memory}
    if wanted.cpus is not None:
        limits["cpu"] = {"quota": max(1000, round(wanted.cpus * CPU_PERIOD)), "period": CPU_PERIOD}
    return limits


def _capabilities(ids: UserIds) -> dict[str, list[str]]:
    """Another user than root holds none of them at its start, and no_new_privileges keeps it so: Docker's outcome."""
    held = list(CAPABILITIES) if ids.uid == 0 else []
    return {"bounding": list(CAPABILITIES), "effective": held, "permitted": held, "inheritable": [], "ambient": []}


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _system_mounts(cgroup: str, in_host: bool) -> list[dict[str, Any]]:
    """/dev is always a tmpfs: over an image's own /dev, crun 1.8.1 would follow a symlink into the host. In the host's
    network a user namespace may mount no sysfs: /sys is the host's, as Docker has it there, read-only to the last."""
    quiet = ("nosuid", "noexec", "nodev")
    mounts = [
        _mount("/proc", "proc", "proc", *quiet),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/dev/shm", "tmpfs", "shm", *quiet, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
        _mount("/sys", "bind", "/sys", "rbind", "rro", *quiet)
        if in_host
        else _mount("/sys", "sysfs", "sysfs", *quiet, "ro"),
    ]
    if cgroup == "v2":
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", *quiet, "relatime", "ro"))
    return mounts


def _binds(binds: Sequence[BindSource]) -> list[dict[str, Any]]:
    """Parents before what lies inside them."""
    mounts = []
    for bind in sorted(binds, key=lambda bind: posixpath.normpath(bind.mount.target).count("/")):
        target = bind.mount.target
        plain = _plain(target) and posixpath.normpath(target) not in ("/", *_OURS)
        if not plain or _below(target, "/proc") or _below(target, "/sys"):
            raise Permanent(
                f"cannot mount at {target!r}: not a plain absolute path outside /proc and /sys",
                code="bad-mount",
                hint='give an absolute path without ".."',
            )
        kind = "tmpfs" if bind.mount.kind == "tmpfs" else "bind"
        mounts.append(_mount(posixpath.normpath(target), kind, bind.source, *bind.options))
    return mounts


def _name_mounts(names: NameFiles) -> list[dict[str, Any]]:
    """Last, so that a volume over /etc does not hide them."""
    options = ("bind", "ro", "nosuid", "nodev", "noexec")
    files = (("/etc/hosts", names.hosts), ("/etc/resolv.conf", names.resolv), ("/etc/hostname", names.hostname))
    return [_mount(target, "bind", str(source), *options) for target, source in files]


def _plain(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def _below(path: str, parent: str) -> bool:
    return f"{posixpath.normpath(path)}/".replace("//", "/").startswith(f"{parent}/")
