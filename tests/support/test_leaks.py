"""The leak finder finds each kind of thing it looks for, and nothing when there is nothing."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.kit import syscalls
from agent.kit.ids import instance_id
from tests.support.leaks import Snapshot, leftovers, snapshot
from tests.support.netns import moved, run

pytestmark = pytest.mark.host


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        made.enter_context(moved())
        yield made


@pytest.fixture
def root(stack: ExitStack) -> Path:
    path = Path(f"/tmp/g-{secrets.token_hex(4)}")
    path.mkdir(mode=0o755)
    stack.callback(shutil.rmtree, path)
    return path


@pytest.fixture
def before() -> Snapshot:
    return snapshot()


def test_nothing_is_nothing(stack: ExitStack, root: Path, before: Snapshot) -> None:
    assert leftovers(instance_id(), root, before) == []


def test_each_kind_is_named(stack: ExitStack, root: Path, before: Snapshot) -> None:
    instance = instance_id()
    run("ip", "link", "add", f"g{instance}0", "type", "veth", "peer", "name", "gffffffff0")
    run("nft", "add", "table", "inet", f"gorae_{instance}")

    (root / "net").touch()
    syscalls.mount("/proc/thread-self/ns/net", root / "net", None, syscalls.MS_BIND)
    stack.callback(syscalls.umount, root / "net")
    (root / "disk").mkdir()
    syscalls.mount("tmpfs", root / "disk", "tmpfs")
    stack.callback(syscalls.umount, root / "disk")

    sleeper = stack.enter_context(subprocess.Popen(["sleep", "60"], cwd=root))
    daemon = stack.enter_context(
        subprocess.Popen(["sh", "-c", "read x", "agent.main", str(root)], stdin=subprocess.PIPE)
    )
    grouped = stack.enter_context(subprocess.Popen(["sleep", "60"]))
    for process in (sleeper, daemon, grouped):
        stack.callback(process.kill)
    hierarchy = _hierarchy()
    cgroup = hierarchy / f"gorae-{instance}" / "task.1"
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text(str(grouped.pid))

    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(root / "open.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(root / "dead.sock"))
    (root / "x.lock").touch()
    lock = os.open(root / "x.lock", os.O_RDWR)
    stack.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert leftovers(instance, root, before) == sorted(
            [
                f"veth g{instance}0",
                f"nft table inet gorae_{instance}",
                f"netns pin {root}/net",
                f"mount {root}/disk (tmpfs)",
                f"process {sleeper.pid} inside {root}: sleep 60 ",
                f"process {grouped.pid} in the cgroup of {instance}: sleep 60 ",
                f"daemon {daemon.pid}: sh -c read x agent.main {root} ",
                f"cgroup {cgroup.parent}",
                f"cgroup {cgroup}",
                f"socket {root}/open.sock, open",
                f"socket {root}/dead.sock, its file",
                f"lock {root}/x.lock, held by the daemon {os.getpid()}",
            ]
        )
        assert leftovers(instance, root, snapshot()) != [], "sockets and locks are never excused"
        assert not any("veth" in line for line in leftovers(instance, root, snapshot()))
    finally:
        grouped.kill()
        grouped.wait()
        cgroup.rmdir()
        cgroup.parent.rmdir()


def _hierarchy() -> Path:
    """A cgroup hierarchy that takes a process without more ado."""
    v2 = Path("/sys/fs/cgroup/cgroup.controllers")
    return Path("/sys/fs/cgroup") if v2.exists() else Path("/sys/fs/cgroup/pids")
