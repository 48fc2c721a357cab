"""What gorae left behind on a host, read from the kernel and never from gorae: for the end of every host test.

Code of its own on purpose: it shares nothing with the adapters whose mistakes it is to find.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POOLS, FORWARDING = Path("/var/lib/gorae-pools.json"), Path("/run/gorae-forwarding.json")
DAEMONS = ("agent.main", "agent.resolver.main", "orchestrator.main", "mosquitto", "orchestrator.cli.main")
DAEMON_SOCKETS = ("agent.sock", "resolver.sock", "gorae.sock", "bus.sock")  # a dead one's file stays until a next start


@dataclass(frozen=True)
class Snapshot:
    """What was there before, whoever owned it: never a leftover."""

    processes: frozenset[tuple[int, str]]  # pid and start time
    cgroups: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    forward: str  # "" while another instance runs, which may have switched it and will switch it back


def snapshot() -> Snapshot:
    return Snapshot(
        frozenset((pid, _started(pid)) for pid in _pids()),
        frozenset(_cgroups("")),
        frozenset(point for point, _ in _mounts()),
        frozenset(name for _, name in socket.if_nameindex()),
        frozenset(_tables()),
        "" if _served() else _forward(),
    )


def leftovers(instance: str, root: Path, before: Snapshot) -> list[str]:
    """One line for each thing of this instance that is still there: "KIND NAME, detail". Daemons are named "daemon"."""
    root = root.absolute()
    lines = [line for pid, line in _processes(instance, root) if (pid, _started(pid)) not in before.processes]
    lines += [f"cgroup {path}" for path in _cgroups(instance) if path not in before.cgroups]
    for point, kind in _mounts():
        if _below(point, root) and point not in before.mounts:
            lines.append(f"netns pin {point}" if kind == "nsfs" else f"mount {point} ({kind})")
    links = (name for _, name in socket.if_nameindex())
    lines += [f"veth {name}" for name in links if name.startswith(f"g{instance}") and name not in before.links]
    mine = [table for table in _tables() if instance in table]
    lines += [f"nft table {table}" for table in mine if table not in before.tables]
    lines += [f"route {route}" for route in _routes(instance)]
    if before.forward not in ("", _forward()) and not _served():
        lines.append(f"sysctl net.ipv4.ip_forward is {_forward()}, was {before.forward}")
    if instance in _json(FORWARDING).get("instances", []):
        lines.append(f"entry of the instance in {FORWARDING}")
    lines += _sockets(root)
    lines += _locks(root)
    return sorted(lines)


def _processes(instance: str, root: Path) -> Iterator[tuple[int, str]]:
    """By cgroup, by root directory, by working directory, by a word of the command line, by environment."""
    family = _ancestors()
    for pid in _pids():
        if pid in family or "\nState:\tZ" in _read(f"/proc/{pid}/status"):
            continue  # the dead are their parent's to bury, and hold nothing
        words = _read(f"/proc/{pid}/cmdline").split("\0")
        line = " ".join(words)[:160]
        if instance and f"gorae-{instance}" in _read(f"/proc/{pid}/cgroup"):
            yield pid, f"process {pid} in the cgroup of {instance}: {line}"
        elif any(_below(_link(f"/proc/{pid}/{what}"), root) for what in ("root", "cwd", "exe")):
            yield pid, f"process {pid} inside {root}: {line}"
        elif any(str(root) in word for word in words) or f"GORAE_ROOT={root}\0" in _read(f"/proc/{pid}/environ") + "\0":
            kind = "daemon" if any(mark in line for mark in DAEMONS) else "process"
            yield pid, f"{kind} {pid}: {line}"


def _cgroups(instance: str) -> list[str]:
    """Directories named for the instance, and all below, in every hierarchy that is mounted, v1 and v2."""
    found = []
    for point, kind in _mounts():
        if kind in ("cgroup", "cgroup2"):
            for directory, _, _ in os.walk(point):
                if f"/gorae-{instance}" in directory.removeprefix(point):
                    found.append(directory)
    return sorted(set(found))


def _mounts() -> list[tuple[str, str]]:
    """(mount point, type), proc(5) mountinfo."""
    rows = (line.split(" ") for line in _read("/proc/self/mountinfo").splitlines())
    return [(row[4].encode().decode("unicode_escape"), row[row.index("-") + 1]) for row in rows]


def _tables() -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return [line.removeprefix("table ").strip() for line in done.stdout.splitlines()]


def _routes(instance: str) -> list[str]:
    """Routes into the instance's part of the address pool."""
    number = next((int(n) for n, e in _json(POOLS).items() if e.get("instance") == instance), None)
    if number is None:
        return []
    thirds = {f"10.181.{number * 8 + i}." for i in range(8)}
    done = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=False)
    routes = (line.strip() for line in done.stdout.splitlines())
    return [line for line in routes if any(third in line for third in thirds)]


def _sockets(root: Path) -> list[str]:
    """Sockets somebody still has open, and socket files nobody has (those of the daemons excepted)."""
    rows = (line.split(None, 7) for line in _read("/proc/net/unix").splitlines()[1:])
    alive = {row[7] for row in rows if len(row) == 8}
    lines = [f"socket {path}, open" for path in sorted(alive) if _below(path, root)]
    for directory, _, names in os.walk(root):
        for path in (Path(directory) / name for name in names):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(path.lstat().st_mode) and str(path) not in alive and path.name not in DAEMON_SOCKETS:
                    lines.append(f"socket {path}, its file")
    return lines


def _locks(root: Path) -> list[str]:
    """Files below root that a process holds locked (proc_locks(5))."""
    held = {}
    for line in _read("/proc/locks").splitlines():
        fields = line.split()
        if "->" not in fields and fields[1] == "FLOCK":
            held[int(fields[5].rsplit(":", 1)[1])] = fields[4]
    lines = []
    for path in [*root.rglob("*.lock"), *(root / "run/locks").glob("*")]:
        with contextlib.suppress(OSError):
            if path.stat().st_ino in held:
                lines.append(f"lock {path}, held by the daemon {held[path.stat().st_ino]}")
    return sorted(set(lines))


def _served() -> bool:
    """Whether an instance has containers on the network."""
    return any("gorae_" in table for table in _tables())


def _forward() -> str:
    return _read("/proc/sys/net/ipv4/ip_forward").strip()


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _started(pid: int) -> str:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _ancestors() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    return found


def _below(path: str, root: Path) -> bool:
    return path == str(root) or path.startswith(f"{root}/")


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, dict[str, str]]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
