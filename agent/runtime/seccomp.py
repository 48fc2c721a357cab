"""The default seccomp profile: what both containers-common and moby allow, in the form crun reads.

Alone, Debian's containers-common profile lets a container make nested user namespaces and mounts; moby's alone allows
io_uring. Where moby's file (Debian package golang-github-docker-docker-dev) is not installed, RESTRICTED below refuses
the same. seccomp(2), OCI config-linux.md "Seccomp"; the files' format: moby profiles/seccomp.

The default answer is ENOSYS, so that a libc falls back from a call it does not know to an older one; what needs a
capability we do not give answers EPERM, which programs expect there.
"""

from __future__ import annotations

import errno
import functools
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.decide.oci_config import CAPABILITIES

CONTAINERS = Path("/usr/share/containers/seccomp.json")
MOBY = Path("/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json")
_ARCHES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}

Rule = tuple[str, int | None, tuple[tuple[int, int, int, str], ...]]  # action, errno, args (index, value, two, op)
Rules = dict[str, set[Rule]]

ALLOW, REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_EPERM: Rule = (REFUSE, errno.EPERM, ())
_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: clone(2) with none of them is a thread or a fork

RESTRICTED: dict[str, str] = {  # → why, where moby's own file cannot say it
    **dict.fromkeys(
        ["mount", "umount", "umount2", "pivot_root", "mount_setattr", "move_mount"],
        "mounts: inside a nested user namespace they reach file system code never meant for it",
    ),
    **dict.fromkeys(
        ["open_tree", "fsopen", "fsconfig", "fsmount", "fspick"],
        "mounts: inside a nested user namespace they reach file system code never meant for it",
    ),
    **dict.fromkeys(["unshare", "setns"], "nested namespaces: root in one reaches most kernel bugs of recent years"),
    **dict.fromkeys(["io_uring_setup", "io_uring_enter", "io_uring_register"], "works past this filter"),
    **dict.fromkeys(["keyctl", "add_key", "request_key"], "keyrings are not namespaced"),
    **dict.fromkeys(["process_vm_readv", "process_vm_writev", "pidfd_getfd"], "other processes, without SYS_PTRACE"),
    **dict.fromkeys(["mbind", "get_mempolicy", "set_mempolicy"], "NUMA placement, without SYS_NICE"),
    **dict.fromkeys(["name_to_handle_at", "open_by_handle_at"], "file handles lead past the mount namespace"),
    **dict.fromkeys(["userfaultfd", "bpf", "perf_event_open", "reboot", "syslog", "vmsplice"], "of use to exploits"),
}

# Families a container has a use for: unix, inet, inet6 and other old ones below 16, netlink but for audit (EINVAL
# there, or su breaks). Above: packet, vsock, alg …, kernel code with a history; EAFNOSUPPORT as if not built in.
_SOCKET: set[Rule] = {
    (ALLOW, None, ((0, 16, 0, "SCMP_CMP_LT"),)),
    (ALLOW, None, ((0, 16, 0, "SCMP_CMP_EQ"), (2, 9, 0, "SCMP_CMP_NE"))),
    (REFUSE, errno.EINVAL, ((0, 16, 0, "SCMP_CMP_EQ"), (2, 9, 0, "SCMP_CMP_EQ"))),
    (REFUSE, errno.EAFNOSUPPORT, ((0, 16, 0, "SCMP_CMP_GT"),)),
}


@functools.cache
def default_profile(containers: Path = CONTAINERS, moby: Path = MOBY) -> Mapping[str, Any] | None:
    """Read and computed once; None where the distribution has no profile, or the machine is of another kind.

    The caller says so (gorae doctor): without it containers still have no_new_privileges and eleven capabilities.
    """
    machine = platform.machine()
    if machine not in _ARCHES or not containers.exists():
        return None
    second = json.loads(moby.read_text()) if moby.exists() else None
    return build(json.loads(containers.read_text()), second, machine)


def build(containers: Mapping[str, Any], moby: Mapping[str, Any] | None, machine: str) -> dict[str, Any]:
    """The OCI form for our capabilities; pure."""
    rules = resolve(containers, machine)
    if moby is not None:
        rules = _both(rules, resolve(moby, machine))
    for name in RESTRICTED:
        rules[name] = {_EPERM}
    rules["clone"] = {(ALLOW, None, ((0, _NAMESPACES, 0, "SCMP_CMP_MASKED_EQ"),))}
    rules["clone3"] = {(REFUSE, errno.ENOSYS, ())}  # its flags lie in memory, out of the filter's sight: use clone
    rules["socket"] = _SOCKET
    arch = _ARCHES[machine][1]
    subs: list[str] = next(
        (e["subArchitectures"] for e in containers.get("archMap", ()) if e["architecture"] == arch), []
    )
    return {
        "defaultAction": REFUSE,
        "defaultErrnoRet": errno.ENOSYS,
        "architectures": [arch, *subs],
        "syscalls": list(_oci(rules)),
    }


def resolve(profile: Mapping[str, Any], machine: str) -> Rules:
    """Every call's rules under our capabilities and on `machine`. minKernel is met: ours is younger than any named."""
    rules: Rules = {}
    for entry in profile["syscalls"]:
        wants, not_with = entry.get("includes") or {}, entry.get("excludes") or {}
        if not (_holds(wants, machine, empty=True) and not _any(not_with, machine)):
            continue
        args = tuple((a["index"], a["value"], a.get("valueTwo", 0), a["op"]) for a in entry.get("args") or ())
        code = entry.get("errnoRet") if entry["action"] == REFUSE else None
        for name in entry["names"]:
            rules.setdefault(name, set()).add((entry["action"], code, args))
    return rules


def _holds(condition: Mapping[str, Any], machine: str, *, empty: bool) -> bool:
    caps, arches = condition.get("caps"), condition.get("arches")
    if not caps and not arches:
        return empty
    return (not caps or set(caps) <= set(CAPABILITIES)) and (not arches or _ARCHES[machine][0] in arches)


def _any(condition: Mapping[str, Any], machine: str) -> bool:
    """An exclusion counts as soon as one of its parts does."""
    caps, arches = condition.get("caps") or (), condition.get("arches") or ()
    return bool(set(caps) & set(CAPABILITIES)) or _ARCHES[machine][0] in arches


def _both(first: Rules, second: Rules) -> Rules:
    """Allowed by both. Where one has conditions they count; where both have, only those they share."""
    out: Rules = {}
    for name, rules in first.items():
        mine, theirs = _allowed(rules), _allowed(second.get(name, set()))
        if not mine or not theirs:
            refusals = {rule for rule in rules if rule[0] == REFUSE} or {
                rule for rule in second.get(name, ()) if rule[0] == REFUSE
            }
            out[name] = refusals or {_EPERM}
        elif any(not rule[2] for rule in mine):
            out[name] = theirs
        elif any(not rule[2] for rule in theirs):
            out[name] = rules
        else:
            out[name] = (mine & theirs) or {_EPERM}
    return out


def _allowed(rules: Iterable[Rule]) -> set[Rule]:
    return {rule for rule in rules if rule[0] == ALLOW}


def _oci(rules: Rules) -> Iterable[dict[str, Any]]:
    """Calls with the same rule share an entry; an unconditional permission makes a conditional one moot."""
    grouped: dict[Rule, list[str]] = {}
    for name, each in rules.items():
        plain = (ALLOW, None, ())
        for rule in [plain] if plain in each else sorted(each, key=repr):
            grouped.setdefault(rule, []).append(name)
    for (action, code, args), names in grouped.items():
        entry: dict[str, Any] = {"names": sorted(names), "action": action}
        if code is not None:
            entry["errnoRet"] = code
        if args:
            entry["args"] = [{"index": i, "value": v, "valueTwo": two, "op": op} for i, v, two, op in args]
        yield entry
