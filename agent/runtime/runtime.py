"""Containers through crun and conmon, by descriptors and files; the host is asked, crun's word is checked.

Nothing is remembered here that is not on the host: bundle directory, crun's state, cgroup, exit file. `list` reads
those without a fork, so any process may die between two lines and the next `list` shows what is left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal as signals
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from agent.kit import disk
from agent.kit.errors import Permanent, Temporary
from agent.kit.layout import Layout
from agent.kit.syscalls import PR_SET_CHILD_SUBREAPER, prctl
from agent.ports import Before, Bundle, Exit, Found, Process
from agent.runtime import checks, conmon, failures, pidfd
from agent.runtime.cgroups import Cgroups
from agent.runtime.exits import ExitFiles
from agent.runtime.filters import Filters
from agent.runtime.sealed import Sealed
from agent.runtime.spawn import PATH, spawn
from agent.wire.messages import Resources

_EXIT_FILE_PATIENCE = 2.0  # seconds between the death and conmon's record of it; usually under one millisecond


class CrunRuntime:
    """Cheap to make; the inotify watch begins with the first `wait`. `close` when the loop ends."""

    def __init__(self, layout: Layout, instance: str) -> None:
        self._layout = layout
        self._cgroups = Cgroups(instance)
        self._monitor: conmon.Monitor | None = None
        self._exits: ExitFiles | None = None
        self._creating = 0
        self._filters = Filters()

    def cgroup_version(self) -> Literal["v2", "v1"]:
        return self._cgroups.version

    async def start(self, bundle: Bundle, before: Before | None = None) -> Process:
        """A container that runs. What an earlier, interrupted start left of the same attempt is removed first.

        On failure nothing is left; cancelled, what is left shows in `list`, and `remove` takes it away.
        """
        cid = _cid(bundle.task, bundle.attempt)
        checks.rootfs(bundle.rootfs)
        if self._bundle(bundle.task, bundle.attempt).exists() or (self._layout.crun_root / cid).exists():
            await self.remove(bundle.task, bundle.attempt)
        try:
            return await self._start(bundle, cid, before)
        except (Permanent, Temporary):
            await self.remove(bundle.task, bundle.attempt)
            raise

    async def _start(self, bundle: Bundle, cid: str, before: Before | None) -> Process:
        name, directory = f"{bundle.stack}/{bundle.service}", self._bundle(bundle.task, bundle.attempt)
        monitor = self._ready()
        self._creating += 1  # while it is, the parent cgroup must not be taken from under crun
        try:
            _write_bundle(directory, bundle, self._filters.annotate(bundle.config))
            pid, said = await monitor.create(cid, directory, bundle.log, bundle.config)
        except OSError as error:
            raise failures.from_os(error, name) from error
        finally:
            self._creating -= 1
        if pid < 0:
            raise failures.from_crun(said, name, list(bundle.config["process"]["args"]), disk.trouble(self._layout.run))
        self._filters.learn(bundle.config, self._layout.crun_root / cid)
        in_host = bundle.sandbox.net_ns is None
        return await self._release(cid, pid, name, directory, before, in_host=in_host)

    async def _release(
        self, cid: str, pid: int, name: str, directory: Path, before: Before | None, *, in_host: bool
    ) -> Process:
        ticks = pidfd.start_ticks(pid)
        try:
            checks.created(pid, name, in_host=in_host)
            if before is not None and ticks is not None:
                await before(Process(pid, ticks, None))
            monitor = conmon.find(cid, directory)  # now: a program that ends at once takes it along
            await self._exec(cid)
        except OSError as error:  # no such process, no reader: it died under our hands
            raise Temporary(f"cannot start {name}: it was killed while it was created", code="start-failed") from error
        if ticks is None:
            raise Temporary(f"cannot start {name}: it was killed while it was created", code="start-failed")
        return Process(pid, ticks, monitor)

    async def _exec(self, cid: str) -> None:
        """What `crun start` does, without the fork: a byte into the FIFO on which the container waits, then its removal
        (by which `crun state`, and `list`, know created from running). In this order: to die in between means that it
        is taken for never started, and removed, not that it waits for ever and passes for running."""
        fifo = self._layout.crun_root / cid / "exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # another version of crun, which waits elsewhere
            monitor = self._ready()
            child = spawn([monitor.crun.program, *monitor.crun_args, "start", cid])
            try:
                if await child.wait(conmon.CREATE_TIMEOUT) != 0:
                    raise Temporary(f"cannot start {cid}: crun start failed", code="start-failed") from None
            finally:
                child.kill()
            return
        try:
            os.write(fd, b"\0")
        finally:
            os.close(fd)
        fifo.unlink(missing_ok=True)

    async def wait(self, task: str, attempt: int, process: Process) -> Exit:
        """A container whose conmon died has lost its output and its exit code: it is ended, with code None."""
        cid = _cid(task, attempt)
        self._ready()
        container = pidfd.open_process(process.pid, process.start_ticks)
        found = conmon.find(cid, self._bundle(task, attempt))
        monitor = None
        if found is not None and (ticks := pidfd.start_ticks(found)) is not None:
            monitor = pidfd.open_process(found, ticks)
        try:
            if container is not None:
                ended = pidfd.has_ended(container)
                if not ended and monitor is not None:
                    ended = container in await pidfd.readable(container, monitor)
                if not ended:
                    await self._cgroups.empty(cid)
                    pidfd.kill(container)  # also when something took it out of its cgroup
                    await pidfd.readable(container)
                pidfd.reap(container)
            return await self._exit(cid, monitored=monitor is not None and not pidfd.has_ended(monitor))
        finally:
            for fd in (container, monitor):
                if fd is not None:
                    os.close(fd)

    async def _exit(self, cid: str, *, monitored: bool) -> Exit:
        if self._exits is None:
            self._exits = ExitFiles(self._layout.exits)
        patience = _EXIT_FILE_PATIENCE if monitored else 0.0
        record = await self._exits.wait(cid, patience)
        return self._as_exit(cid, record)

    def _as_exit(self, cid: str, record: tuple[int, float] | None) -> Exit:
        code, at = record or (None, time.time())
        number = code - 128 if code is not None and 128 < code <= 128 + signals.NSIG else None
        return Exit(code, number, code != 0 and self._cgroups.oom_kills(cid) > 0, at)

    async def signal(self, task: str, attempt: int, process: Process, signal: int, *, everyone: bool = False) -> None:
        container = pidfd.open_process(process.pid, process.start_ticks)
        if container is not None:
            pidfd.kill(container, signals.SIGKILL if everyone else signal)
            os.close(container)
        if everyone:
            for fd in self._cgroups.signal_all(_cid(task, attempt)):
                os.close(fd)

    async def remove(self, task: str, attempt: int) -> None:
        """Processes, then cgroups, then files; each step looks first, and whatever is still there shows in `list`."""
        cid, directory = _cid(task, attempt), self._bundle(task, attempt)
        if directory.exists() or (self._layout.crun_root / cid).exists() or cid in self._cgroups.names():
            await self._end(cid, directory)
            await self._cgroups.remove(cid)
        shutil.rmtree(self._layout.crun_root / cid, ignore_errors=True)
        (self._attach / cid).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        (self._layout.exits / cid).unlink(missing_ok=True)
        with suppress(OSError):  # holds the task's other things, or another attempt
            directory.parent.rmdir()
        await self._cgroups.remove_parent(lambda: self._creating > 0)

    async def _end(self, cid: str, directory: Path) -> None:
        status = self._status(cid)
        monitor = conmon.find(cid, directory)
        if status is None and not (self._layout.exits / cid).exists():
            # Interrupted in `crun create`: conmon, or a crun that outlives it and is in no cgroup yet.
            while pids := conmon.search(directory):  # again: one may have forked another meanwhile
                for pid in pids:
                    await conmon.end(pid, cid, patience=0.0)
        await self._cgroups.empty(cid)
        if status is not None and (fd := pidfd.open_process(*status)) is not None:
            try:
                pidfd.kill(fd)  # also when something took it out of its cgroup
                await pidfd.readable(fd, timeout=_EXIT_FILE_PATIENCE)
                pidfd.reap(fd)
            finally:
                os.close(fd)
        if monitor is not None:
            await conmon.end(monitor, cid, patience=_EXIT_FILE_PATIENCE)

    async def list(self) -> Sequence[Found]:
        names = set(self._cgroups.names())
        for directory in (self._layout.crun_root, self._layout.exits):
            with suppress(FileNotFoundError):
                names.update(entry.name for entry in os.scandir(directory))
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._layout.run_tasks):
                names.update(f"{entry.name}.{inner.name}" for inner in os.scandir(entry.path) if inner.name.isdigit())
        return [self._found(name) for name in sorted(names) if name.rpartition(".")[2].isdigit()]

    def _found(self, cid: str) -> Found:
        task, _, number = cid.rpartition(".")
        status = self._status(cid)
        fresh = (self._layout.crun_root / cid / "exec.fifo").exists()  # created, never started: of no use
        monitor = conmon.find(cid, self._bundle(task, int(number)))  # first: it ends after the container
        if status is not None and not fresh and _alive(status):
            return Found(task, int(number), Process(*status, monitor), None)
        try:
            path = self._layout.exits / cid
            record = int(path.read_text()), path.stat().st_mtime
        except (FileNotFoundError, ValueError):
            return Found(task, int(number), None, None)
        return Found(task, int(number), None, None if fresh else self._as_exit(cid, record))

    async def update(
        self, task: str, attempt: int, resources: Resources | None = None, *, frozen: bool | None = None
    ) -> None:
        """Temporary limit-refused: the kernel does not take it (v1: more memory in use than the new limit); not-frozen:
        a process hangs in the kernel."""
        try:
            if resources is not None:
                self._cgroups.update(_cid(task, attempt), resources)
            if frozen is not None:
                await self._cgroups.freeze(_cid(task, attempt), frozen)
        except FileNotFoundError:
            return  # over: the next attempt gets them from its config
        except TimeoutError as error:
            raise Temporary(f"cannot pause {task}: {error.strerror}", code="not-frozen") from error
        except OSError as error:
            raise Temporary(
                f"cannot change the limits of {task}: {error.strerror}",
                code="limit-refused",
                hint="the next attempt will have them",
                path=str(error.filename),
            ) from error

    def close(self) -> None:
        if self._exits is not None:
            self._exits.close()
            self._exits = None
        if self._monitor is not None:
            self._monitor.crun.close()

    # Places ----------------------------------------------------------------------------------------------------------

    @property
    def _attach(self) -> Path:
        return self._layout.run / "at"

    def _bundle(self, task: str, attempt: int) -> Path:
        return self._layout.run_tasks / task / str(attempt)

    def _status(self, cid: str) -> tuple[int, int] | None:
        """(pid, start ticks) as crun recorded them; None: it did not get that far, or the file is torn."""
        try:
            status = json.loads((self._layout.crun_root / cid / "status").read_text())
            return int(status["pid"]), int(status["process-start-time"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def _ready(self) -> conmon.Monitor:
        """Directories made and programs found; done once. Permanent no-program."""
        if self._monitor is None:
            programs = {name: shutil.which(name, path=PATH) for name in ("conmon", "crun")}
            for name, path in programs.items():
                if path is None:
                    raise Permanent(
                        f"cannot run containers: {name} is not installed", code="no-program", hint="gorae doctor"
                    )
            # Orphans of containers come to us and are reaped, whatever pid 1 of this host does or leaves undone.
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            for directory, mode in (
                (self._layout.run_tasks, 0o711),
                (self._layout.exits, 0o700),
                (self._layout.crun_root, 0o700),
                (self._attach, 0o700),
            ):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(mode)
            self._monitor = conmon.Monitor(
                str(programs["conmon"]),
                Sealed(str(programs["crun"])),
                (f"--root={self._layout.crun_root}", "--cgroup-manager=cgroupfs"),
                self._layout.exits,
                self._attach,
                self._cgroups.monitors(),
            )
        return self._monitor


def _cid(task: str, attempt: int) -> str:
    return f"{task}.{attempt}"


def _alive(status: tuple[int, int]) -> bool:
    fd = pidfd.open_process(*status)
    if fd is None:
        return False
    try:
        return not pidfd.has_ended(fd)
    finally:
        os.close(fd)


def _write_bundle(directory: Path, bundle: Bundle, config: dict[str, Any]) -> None:
    directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700)
    if bundle.log is not None:
        bundle.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / "config.tmp"
    temporary.write_text(json.dumps(config, separators=(",", ":")))
    temporary.replace(directory / "config.json")
