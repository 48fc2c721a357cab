"""The process of a configuration (config.md of the OCI's runtime specification, "process"), in what the kernel takes:
for agent/sandbox/entering.py, which knows no names of capabilities. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.kit.errors import Permanent

# linux/capability.h, in the order of their numbers.
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(_NAMES.split())}
_KNOWN = {"args", "env", "cwd", "user", "capabilities", "noNewPrivileges", "oomScoreAdj", "terminal"}


def entry(process: Mapping[str, Any], *, groups: Sequence[str], seccomp: str) -> dict[str, Any]:
    """`groups`: its cgroup's directory in each hierarchy. `seccomp`: the file with the compiled filter; "": none.
    Permanent not-entered: the process asks for something that we do not do, which must not be left out in silence."""
    unknown = sorted(process.keys() - _KNOWN)
    sets = process["capabilities"]
    if unknown or process["terminal"] or not process["noNewPrivileges"] or sets.get("ambient"):
        what = ", ".join(unknown) or "a terminal, new privileges or ambient capabilities"
        raise Permanent(f"cannot enter a container with {what}", code="not-entered", hint="gorae exec can")
    user = process["user"]
    return {
        "args": process["args"],
        "env": process["env"],
        "cwd": process["cwd"],
        "umask": user["umask"],
        "uid": user["uid"],
        "gid": user["gid"],
        "additional_gids": user["additionalGids"],
        "oom_score_adj": str(process["oomScoreAdj"]),
        "cgroups": list(groups),
        "filter": seccomp,
        **{kind: _mask(sets.get(kind, ())) for kind in ("bounding", "effective", "permitted", "inheritable")},
    }


def _mask(names: Sequence[str]) -> int:
    return sum(1 << _NUMBERS[name] for name in names)
