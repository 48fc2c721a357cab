"""The processes of one container, from proc(5), without a fork. A pid may come to mean another process between two
reads: what is no member of the container's cgroup by the end is left out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.kit.errors import Permanent
from agent.ports import UID_RANGE
from agent.rootfs.inspect import read_small
from agent.rootfs.passwd import number
from agent.runtime.cgroups import Cgroups

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_COMMAND = 4096  # bytes of a command line that are told


def of(cgroups: Cgroups, name: str, pid: int, uid_base: int) -> list[dict[str, Any]]:
    """Of the attempt `name`, by their pids in the container. `pid`: of its first one. Blocks: not for the loop.

    {pid, host_pid, parent, user, state, cpu: seconds, rss: bytes, started_at: Unix seconds, command}"""
    names = _names(pid)
    found = [row for one in cgroups.pids(name) if (row := _row(one, name, uid_base, names)) is not None]
    inner = {row["host_pid"]: row["pid"] for row in found}
    return sorted(
        ({**row, "parent": inner.get(row["parent"], 0)} for row in found), key=lambda row: (row["pid"], row["host_pid"])
    )


def _row(pid: int, name: str, uid_base: int, names: Mapping[int, str]) -> dict[str, Any] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        with Path(f"/proc/{pid}/cmdline").open("rb") as file:
            command = file.read(_COMMAND)
        if not _in(name, Path(f"/proc/{pid}/cgroup").read_text()):
            return None
    except OSError:
        return None  # ended meanwhile
    end = text.rindex(b")")
    stat = text[end + 2 :].split()  # from field 3 on
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    uid = int(fields["Uid"].split()[1])
    inner = uid - uid_base if uid_base <= uid < uid_base + UID_RANGE else uid
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) * _TICK
    shown = command.rstrip(b"\0").replace(b"\0", b" ") or b"[" + text[text.index(b"(") + 1 : end] + b"]"
    return {
        "pid": int(fields["NSpid"].split()[-1]),
        "host_pid": pid,
        "parent": int(stat[1]),
        "user": names.get(inner, str(inner)),
        "state": stat[0].decode(),
        "cpu": round((int(stat[11]) + int(stat[12])) * _TICK, 2),
        "rss": int(stat[21]) * _PAGE,
        "started_at": round(time.time() - age, 2),
        "command": shown.decode(errors="replace"),
    }


def _in(name: str, cgroups: str) -> bool:
    """Whether /proc/PID/cgroup (cgroups(7)) has a directory of that name."""
    return any(name in line.partition(":/")[2].split("/") for line in cgroups.splitlines())


def _names(pid: int) -> dict[int, str]:
    """uid → name, as the container's own /etc/passwd has it."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        text = read_small(root, "etc/passwd") or ""
    except (Permanent, OSError):
        return {}
    finally:
        os.close(root)
    return named(text)


def named(passwd: str) -> dict[int, str]:
    """uid → name; the first of several counts. Lines that say something else are left out."""
    rows = [line.split(":") for line in passwd.splitlines()]
    numbered = [(number(row[2]), row[0]) for row in reversed(rows) if len(row) > 2]
    return {uid: name for uid, name in numbered if uid is not None}
