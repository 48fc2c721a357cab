"""The filter: what both profiles allow and our own list does not refuse, as data and as real programs meet it."""

from __future__ import annotations

import errno
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.runtime import seccomp
from tests.agent.runtime.host import Host, new_root

ANY: dict[str, Any] = {"args": [], "includes": {}, "excludes": {}}


def profile(*entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": list(entries),
    }


def allow(*names: str, **more: Any) -> dict[str, Any]:
    return {**ANY, "names": list(names), "action": seccomp.ALLOW, **more}


def verdicts(made: dict[str, Any], name: str) -> list[tuple[str, int | None, bool]]:
    """(action, errno, has arguments) of every entry that names the call."""
    return [(e["action"], e.get("errnoRet"), "args" in e) for e in made["syscalls"] if name in e["names"]]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (allow("read"), True),
        (allow("read", includes={"arches": ["amd64", "x32"]}), True),
        (allow("read", includes={"arches": ["arm64"]}), False),
        (allow("read", includes={"caps": ["CAP_SYS_CHROOT"]}), True),
        (allow("read", includes={"caps": ["CAP_SYS_ADMIN"]}), False),
        (allow("read", includes={"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}), False),
        (allow("read", excludes={"caps": ["CAP_SYS_ADMIN"]}), True),
        (allow("read", excludes={"caps": ["CAP_CHOWN"]}), False),
        (allow("read", excludes={"arches": ["amd64"]}), False),
        (allow("read", includes={"minKernel": "4.8"}), True),
    ],
    ids=["plain", "our arch", "other arch", "our cap", "other cap", "one of two caps", "without other cap", "without our cap", "without our arch", "kernel"],
)  # fmt: skip
def test_conditions(entry: dict[str, Any], expected: bool) -> None:
    assert ("read" in seccomp.resolve(profile(entry), "x86_64")) is expected


ARGS = [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]
OTHER = [{"index": 0, "value": 6, "op": "SCMP_CMP_EQ"}]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([allow("x")], [allow("x")], [(seccomp.ALLOW, None, False)]),
        ([allow("x")], [], [(seccomp.REFUSE, errno.EPERM, False)]),
        ([], [allow("x")], []),
        ([allow("x", args=ARGS)], [allow("x")], [(seccomp.ALLOW, None, True)]),
        ([allow("x")], [allow("x", args=ARGS)], [(seccomp.ALLOW, None, True)]),
        ([allow("x", args=ARGS), allow("x", args=OTHER)], [allow("x", args=ARGS)], [(seccomp.ALLOW, None, True)]),
        ([allow("x", args=ARGS)], [allow("x", args=OTHER)], [(seccomp.REFUSE, errno.EPERM, False)]),
    ],
    ids=["both", "first only", "second only", "first has conditions", "second has", "shared conditions", "none shared"],
)
def test_intersection(first: list[dict[str, Any]], second: list[dict[str, Any]], expected: list[Any]) -> None:
    made = seccomp.build(profile(*first), profile(*second), "x86_64")
    assert verdicts(made, "x") == expected


def test_absent_file_or_machine(tmp_path: Path) -> None:
    assert seccomp.default_profile(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "name", ["mount", "unshare", "setns", "io_uring_setup", "keyctl", "bpf", "userfaultfd", "ptrace_x"]
)
def test_refused_by_either_way(name: str) -> None:
    """With and without moby's file nothing dangerous gets through."""
    made = seccomp.build(profile(allow(name, "read")), None, "x86_64")
    assert (seccomp.ALLOW in {action for action, _, _ in verdicts(made, name)}) is (name == "ptrace_x")


def test_clone_is_for_threads_and_forks() -> None:
    made = seccomp.build(profile(allow("clone", "clone3")), None, "x86_64")
    assert verdicts(made, "clone") == [(seccomp.ALLOW, None, True)]
    assert verdicts(made, "clone3") == [(seccomp.REFUSE, errno.ENOSYS, False)]
    assert made["defaultErrnoRet"] == errno.ENOSYS


@pytest.mark.host
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("busybox unshare -U true", "Operation not permitted"),
        ("busybox unshare -m true", "Operation not permitted"),
        ("busybox mount -t tmpfs x /tmp", "ermission denied (are you root?)"),
        ("busybox chroot / true && echo well", "well"),
        ("echo a | grep a | head -1; (sleep 0; echo well)", "well"),
    ],
    ids=["no user namespace", "no mount namespace", "no mount", "chroot", "pipes and forks"],
)
async def test_real_programs(host: Host, script: str, said: str) -> None:
    bundle = host.bundle("sh", "-c", script)
    process = await host.runtime.start(bundle)
    await host.runtime.wait(bundle.task, 1, process)
    assert said in host.log(bundle)


PROGRAM = """
import ctypes, errno, os, socket, subprocess, threading
threads = [threading.Thread(target=os.getpid) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert subprocess.run(["/bin/true"]).returncode == 0
def refused(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "allowed"
libc = ctypes.CDLL(None, use_errno=True)
def raw(number, *args):
    libc.syscall(number, *args)
    return errno.errorcode.get(ctypes.get_errno(), "allowed")
print("alg", refused(lambda: socket.socket(38, socket.SOCK_SEQPACKET)))
print("vsock", refused(lambda: socket.socket(40, socket.SOCK_STREAM)))
print("audit", refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)))
print("route", refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)))
print("tcp", refused(lambda: socket.socket()))
print("ring", raw(425, 8, None))
print("clone3", raw(435, None, 0))
print("newuser", raw(56, 0x10000011, None))
print("keyctl", raw(250, 0))
"""


@pytest.mark.host
@pytest.mark.skipif(platform.machine() != "x86_64", reason="call numbers of x86-64")
async def test_python_under_the_filter() -> None:
    """Threads, child processes and sockets work; what leads out does not. Twice: compiled by crun, then by annotation."""
    host = Host(new_root(), sandboxed=False)
    try:
        for _ in range(2):
            bundle = host.bundle(str(Path(sys.executable).resolve()), "-c", PROGRAM)
            for place in ("/usr", "/lib", "/lib64", "/bin", sys.base_prefix):
                mount = {"destination": place, "type": "bind", "source": place, "options": ["rbind", "ro"]}
                bundle.config["mounts"].append(mount)
            process = await host.runtime.start(bundle)
            done = await host.runtime.wait(bundle.task, 1, process)
            assert done.code == 0, host.log(bundle)
            assert [line.split(" F ", 1)[1] for line in host.log(bundle).splitlines()] == [
                "alg EAFNOSUPPORT",
                "vsock EAFNOSUPPORT",
                "audit EINVAL",
                "route allowed",
                "tcp allowed",
                "ring EPERM",
                "clone3 ENOSYS",
                "newuser ENOSYS",
                "keyctl EPERM",
            ]
    finally:
        await host.close()
