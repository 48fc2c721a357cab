"""The cgroups of one instance: /gorae-INSTANCE/TASK.ATTEMPT in every mounted hierarchy.

v2 alone, or v1 with v2 beside it. crun makes them; here they are listed, emptied, removed and changed in place. Exit
codes of tools are not believed: a container is dead when its cgroup.procs are empty. See cgroups(7), and cgroup-v1
and cgroup-v2 in the kernel's admin guide.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from agent.decide.oci_config import CPU_PERIOD as PERIOD
from agent.decide.oci_config import DEFAULT_PIDS
from agent.kit.errors import Temporary
from agent.runtime import pidfd
from agent.wire.messages import Resources

_ORPHANS = 0.02  # seconds: longer than a death takes, unless an unreaped orphan stands in its way
OWN = Path("/proc/self/cgroup")
_MONITORS = "monitors"  # the cgroup of our conmons; not an attempt, so it carries no dot
# Below an attempt's: for healthchecks, for commands of its life, for what people run in it.
CHECKS, HOOKS, EXECS = "checks", "hooks", "execs"


class Cgroups:
    def __init__(self, instance: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
        self.parent = f"/gorae-{instance}"
        self.version: Literal["v2", "v1"] = "v1"
        self._roots: list[Path] = []  # every hierarchy's mount point
        self._by_controller: dict[str, Path] = {}
        self._unified: Path | None = None
        for line in mountinfo.read_text().splitlines():
            left, _, right = line.partition(" - ")
            point, kind, options = Path(left.split()[4]), right.split()[0], right.split()[2]
            if kind == "cgroup2":
                self._roots.append(point)
                self._unified = self._unified or point
                if point == Path("/sys/fs/cgroup"):
                    self.version = "v2"
            elif kind == "cgroup":
                self._roots.append(point)
                self._by_controller.update(dict.fromkeys(options.split(","), point))

    def directories(self, name: str) -> list[Path]:
        """Every existing directory of the attempt."""
        paths = (Path(f"{root}{self.parent}/{name}") for root in self._roots)
        return [path for path in paths if path.is_dir()]

    def directory(self, name: str, controller: str) -> str | None:
        """The attempt's directory in the hierarchy of a v1 controller, or, "", of v2; None: there is no such one."""
        root = self._by_controller.get(controller) if controller else self._unified
        return f"{root}{self.parent}/{name}" if root is not None else None

    def names(self) -> frozenset[str]:
        """TASK.ATTEMPT of every attempt that has a cgroup in any hierarchy."""
        found: set[str] = set()
        for root in self._roots:
            with suppress(FileNotFoundError):
                found.update(e.name for e in os.scandir(f"{root}{self.parent}") if e.is_dir() and "." in e.name)
        return frozenset(name for name in found if name.rpartition(".")[2].isdigit())

    def pids(self, name: str) -> frozenset[int]:
        """Every process in the attempt's cgroups and below them."""
        found: set[int] = set()
        for directory in self.directories(name):
            for path, _, _ in os.walk(directory):
                with suppress(OSError):  # removed meanwhile, or a threaded one (v2): its processes are listed above it
                    found.update(map(int, Path(path, "cgroup.procs").read_text().split()))
        return frozenset(found - {0})

    def part(self, name: str, part: str) -> str:
        """The name of a part of an attempt's cgroup, for what runs besides its program; made if missing, removed with
        it.

        In every hierarchy, or crun puts the process into the root. OSError: the attempt is gone.
        """
        whole = f"{name}/{part}"
        for root in reversed(self._roots):  # for each probe: not a Path more than it takes
            if os.path.isdir(f"{root}{self.parent}/{name}"):  # noqa: PTH112
                if os.path.isdir(f"{root}{self.parent}/{whole}"):  # noqa: PTH112 (made last)
                    return whole
                break
        parts = [directory / part for directory in self.directories(name)]
        if not parts:
            raise FileNotFoundError(errno.ENOENT, "it has no cgroup", name)
        for directory in parts:
            directory.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems") if self.version == "v1" else ():
                if (directory / file).exists():  # empty at first, and such a group takes nobody
                    (directory / file).write_text((directory.parent / file).read_text())
        return whole

    def occupied(self, name: str) -> bool:
        """Whether crun has put a process there that still lives: it puts one into every hierarchy, so one tells."""
        for root in reversed(self._roots):
            with suppress(OSError), open(f"{root}{self.parent}/{name}/cgroup.procs") as file:  # noqa: PTH123
                return bool(file.read(1))
        return False

    def oom_kills(self, name: str) -> int:
        """How often the kernel killed for lack of memory inside the attempt's limit."""
        base = self._roots[0] if self.version == "v2" else self._by_controller.get("memory")
        file = "memory.events" if self.version == "v2" else "memory.oom_control"
        try:
            text = Path(f"{base}{self.parent}/{name}/{file}").read_text()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    def signal_all(self, name: str) -> frozenset[int]:
        """SIGKILL to everyone once, frozen ones too; pidfds of those that still have to die. The caller closes them."""
        for directory in self.directories(name):
            for file, value in (("cgroup.kill", "1"), ("freezer.state", "THAWED")):
                if (directory / file).exists():
                    with suppress(OSError):  # removed meanwhile, or a threaded cgroup: the loop below gets them
                        (directory / file).write_text(value)
        held: dict[int, int] = {}
        for pid in self.pids(name):
            with suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
        members = self.pids(name) if held else frozenset()
        for pid, fd in held.items():
            if pid in members:  # read again after the open: the descriptor is of a member, not of a reused pid
                pidfd.kill(fd)
        return frozenset(held.values())

    async def empty(self, name: str, timeout: float = 10.0) -> None:
        """Kill until no process is left. Temporary still-alive: one hangs in the kernel."""
        end = time.monotonic() + timeout
        while fds := self.signal_all(name):
            try:
                for fd in fds:
                    while not await pidfd.readable(fd, timeout=_ORPHANS) and time.monotonic() < end:
                        pidfd.reap_orphans()
                    pidfd.reap(fd)
            finally:
                for fd in fds:
                    os.close(fd)
            if time.monotonic() >= end:
                raise Temporary(
                    f"cannot end the processes of {name}: they did not die of SIGKILL within {timeout:g} s",
                    code="still-alive",
                    hint="look for a hung disk or network file system: /proc/PID/stack of the processes named",
                    pids=sorted(self.pids(name)),
                )

    async def remove(self, name: str) -> None:
        """Remove the directories, deepest first. Call `empty` before. Temporary cgroup-busy."""
        for attempt in range(8):
            left = await asyncio.to_thread(self._remove_once, name)  # on v1 a rmdir takes up to 2 ms, and there are 12
            if not left:
                return
            # A task that has just died counts for some microseconds more, and v1 tells no one when that ends.
            await asyncio.sleep(0.001 * 2**attempt)
        raise Temporary(
            f"cannot remove the cgroup {left[0]}: it is busy", code="cgroup-busy", pids=sorted(self.pids(name))
        )

    def _remove_once(self, name: str) -> list[Path]:
        left = []
        for directory in self.directories(name):
            for path, _, _ in os.walk(directory, topdown=False):
                try:
                    Path(path).rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    left.append(Path(path))
        return left

    async def remove_parent(self, creating: Callable[[], bool]) -> None:
        """After the last attempt; while anything is in it, or is about to be, nothing happens."""
        for attempt in range(6):
            if creating() or self.names() or not self._remove_parent_once():
                return
            await asyncio.sleep(0.001 * 2**attempt)  # the last conmon has just died, and counts for a moment more

    def _remove_parent_once(self) -> bool:
        """Is anything left?"""
        left = False
        for root in self._roots:
            for path in (f"{root}{self.parent}/{_MONITORS}", f"{root}{self.parent}"):
                try:
                    Path(path).rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    left = True
        return left

    def monitors(self) -> Path | None:
        """Where conmon goes so that no service manager, ending the agent's cgroup, ends it too; made before each use.

        None where the agent sits in the root, which nobody ends. Managers end by the v2 tree, or on v1 by name=systemd.
        """
        base = self._roots[0] if self.version == "v2" else self._by_controller.get("name=systemd")
        controller = "" if self.version == "v2" else "name=systemd"
        places = dict(line.split(":", 2)[1:] for line in OWN.read_text().splitlines())  # proc(5): ID:CONTROLLERS:PATH
        if base is None or places.get(controller, "/") == "/":
            return None
        return Path(f"{base}{self.parent}/{_MONITORS}")

    def update(self, name: str, resources: Resources) -> None:
        """Write the limits of a running attempt; None lifts one.

        Raises OSError; EBUSY: on v1, more memory is in use than that.
        """
        pids = DEFAULT_PIDS if resources.pids is None else resources.pids
        quota = -1 if resources.cpus is None else max(1000, round(resources.cpus * PERIOD))
        limit = "max" if pids <= 0 else str(pids)
        if self.version == "v2":
            directory = Path(f"{self._roots[0]}{self.parent}/{name}")
            (directory / "memory.max").write_text("max" if resources.memory is None else str(resources.memory))
            swap = directory / "memory.swap.max"
            if swap.exists():
                swap.write_text("max" if resources.memory is None else "0")
            (directory / "cpu.max").write_text(f"{'max' if quota < 0 else quota} {PERIOD}")
            (directory / "pids.max").write_text(limit)
            return
        self._write("pids", name, "pids.max", limit)
        self._write("cpu", name, "cpu.cfs_quota_us", str(quota))
        memory = -1 if resources.memory is None else resources.memory
        pair = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        # memsw may never be below memory: which goes first depends on the direction.
        with suppress(OSError):
            self._write("memory", name, pair[1], str(memory))
        self._write("memory", name, pair[0], str(memory))
        self._write("memory", name, pair[1], str(memory))

    async def freeze(self, name: str, frozen: bool) -> None:
        """Returns when every process stands still, or when none does. OSError; TimeoutError: one hangs in the kernel.

        cgroup-v2, cgroup.freeze; cgroup-v1, freezer-subsystem.
        """
        if self.version == "v2":
            directory = Path(f"{self._roots[0]}{self.parent}/{name}")
            (directory / "cgroup.freeze").write_text("1" if frozen else "0")
            file, reached = directory / "cgroup.events", f"frozen {int(frozen)}"
        else:
            file = Path(f"{self._by_controller.get('freezer')}{self.parent}/{name}/freezer.state")
            reached = "FROZEN" if frozen else "THAWED"
            file.write_text(reached)
        for attempt in range(12):
            if reached in file.read_text().splitlines():
                return
            await asyncio.sleep(0.001 * 2**attempt)
            if self.version == "v1" and frozen:
                file.write_text(reached)  # one that had just been forked was missed
        raise TimeoutError(errno.ETIMEDOUT, "it does not come to rest", str(file))

    def _write(self, controller: str, name: str, file: str, value: str) -> None:
        root = self._by_controller.get(controller)
        path = Path(f"{root}{self.parent}/{name}/{file}")
        if root is not None and path.exists():
            path.write_text(value)
