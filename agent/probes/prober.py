"""One execution of a healthcheck. Never raises for a failed check; never lets one outlive its time or hold the agent.

A check runs with the container's own user, environment, capabilities and seccomp filter, through `crun exec --process`
with numeric ids (never by name: names would be looked up in the container's files). Its output goes to a pipe that the
agent never reads: a reader can hang with a writer that hangs in the kernel. A `tail` reads it, which most checks do not
need: those that end soon, and well. It has a cgroup of its own below the container's, so that nothing it starts
outlives it, however it is disowned.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.decide import hooks
from agent.kit.errors import GoraeError, Temporary
from agent.kit.layout import Layout
from agent.ports import ProbeResult, Process, UserIds
from agent.probes import http
from agent.runtime import pidfd
from agent.runtime.cgroups import CHECKS, HOOKS, Cgroups
from agent.runtime.sealed import Sealed
from agent.runtime.spawn import PATH, Child, spawn
from agent.wire.messages import Healthcheck, Hook

OUTPUT = 4096  # bytes of the tail
_SOON = 0.2  # seconds that the pipe alone (64 KiB) must do for the output
_DRAIN = 0.5  # seconds for the last output, which a process left behind may hold open
_DEATH = 2.0  # seconds between SIGKILL and giving up on crun


class HostProber:
    def __init__(self, layout: Layout, instance: str) -> None:
        self._layout = layout
        self._cgroups = Cgroups(instance)
        self._crun = Sealed(shutil.which("crun", path=PATH) or "/usr/bin/crun")
        self._tail = shutil.which("tail", path=PATH) or "/usr/bin/tail"

    async def probe(
        self, task: str, attempt: int, process: Process, check: Healthcheck, address: str, timeout: float
    ) -> ProbeResult:
        match check.kind:
            case "http" | "tcp" if not address:
                return ProbeResult(False, "cannot check: it has no network that leads there; check with a command")
            case "none":
                return ProbeResult(True, "")
            case "http" if check.port is not None:
                return await http.get(address, check.port, check.path, timeout)
            case "tcp" if check.port is not None:
                return await http.connect(address, check.port, timeout)
            case "exec" if args := arguments(check.test):
                return await self._exec(
                    task, attempt, process, args, lambda config: process_spec(config, args), CHECKS, timeout
                )
        return ProbeResult(False, f"cannot check: a healthcheck of kind {check.kind} needs a port or a command")

    async def run(
        self, task: str, attempt: int, process: Process, hook: Hook, ids: UserIds | None, timeout: float | None
    ) -> ProbeResult:
        return await self._exec(
            task, attempt, process, (hook, ids), lambda config: hooks.process_spec(config, hook, ids), HOOKS, timeout
        )

    async def _exec(
        self,
        task: str,
        attempt: int,
        process: Process,
        key: object,
        spec_of: Callable[[dict[str, Any]], dict[str, Any]],
        part: str,
        timeout: float | None,
    ) -> ProbeResult:
        bundle = self._layout.run_tasks / task / str(attempt)
        if pidfd.start_ticks(process.pid) != process.start_ticks:
            return ProbeResult(False, "cannot run it: the container is not running")
        try:
            spec = _spec(bundle, key, spec_of)
            group = self._cgroups.part(f"{task}.{attempt}", part)
            if part == CHECKS:
                await self._clear(group)  # of an agent that was killed in the middle of one
            argv = [self._crun.path(), f"--root={self._layout.crun_root}", "--cgroup-manager=cgroupfs", "exec"]
            argv += ["--process", str(spec), f"--cgroup={part}", f"{task}.{attempt}"]
            return await self._run(argv, group, timeout, keep=part == HOOKS)
        except OSError as error:  # removed under our hands, or no memory for a process: the check has failed, no more
            return ProbeResult(False, f"cannot run it: {error}")
        except GoraeError as error:
            return ProbeResult(False, error.message)

    async def _run(self, argv: list[str], group: str, timeout: float | None, *, keep: bool) -> ProbeResult:
        """`keep`: what it leaves in the background lives on, if it ended in time."""
        said = _Output(self._tail)
        child: Child | None = None
        try:
            try:
                child = spawn(argv, stdout=said.sink, stderr=said.sink)
            finally:
                said.close_sink()
            soon = _SOON if timeout is None else min(_SOON, timeout)
            code = await child.wait(soon)
            if code is None:
                said.read()
                code = await child.wait(None if timeout is None else timeout - soon)
            late = code is None
            if late or not keep:
                await self._clear(group)
            if late:
                # Not crun: it has to reap the check, or the zombie, an orphan on the host's side, would keep pid 1 of
                # the container from ending.
                await child.wait(_DEATH)
            if code != 0:
                pidfd.reap_orphans()  # a check that could not be started leaves crun's child behind
                said.read()
            text = await said.text()
            if late:
                text = f"{text}\nended after {timeout or 0:g} s".strip()
            return ProbeResult(code == 0, text, code, timed_out=late)
        finally:
            if child is not None and child.fd >= 0:  # cancelled, or crun hangs
                for pid in _descendants(child.pid):  # unreaped as long as crun lives: these pids are nobody else's
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                child.kill()
                for fd in self._cgroups.signal_all(group):
                    os.close(fd)
            said.close()

    async def _clear(self, group: str) -> None:
        """End whatever of a check is left: children in the background, or disowned ones of a session of their own."""
        if self._cgroups.occupied(group):
            with suppress(Temporary):  # one hangs in the kernel: the next look finds it again
                await self._cgroups.empty(group, _DEATH)


class _Output:
    """A pipe for what is written, and, once `read` was called, the end of it. Nobody hears of what is not read."""

    def __init__(self, tail: str) -> None:
        self._program = tail
        self._source, self.sink = os.pipe2(os.O_CLOEXEC)
        os.fchmod(self.sink, 0o666)  # /dev/stdout opened anew, by another user than root, is this pipe
        self._tail: Child | None = None
        self._kept = -1

    def close_sink(self) -> None:
        os.close(self.sink)

    def read(self) -> None:
        if self._tail is None:
            self._kept = os.memfd_create("probe", os.MFD_CLOEXEC)
            self._tail = spawn([self._program, "-c", str(OUTPUT)], stdin=self._source, stdout=self._kept)

    async def text(self) -> str:
        if self._tail is None:
            return ""
        await self._tail.wait(_DRAIN)
        return os.pread(self._kept, OUTPUT, 0).decode(errors="replace")

    def close(self) -> None:
        os.close(self._source)
        if self._tail is not None:
            self._tail.kill()
            os.close(self._kept)


def _spec(bundle: Path, key: object, spec_of: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The file for crun, made once for each attempt and `key`, of which it must be a function."""
    path = bundle / f"exec-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json"
    if not path.exists():
        made = path.with_suffix(".new")
        made.write_text(json.dumps(spec_of(json.loads((bundle / "config.json").read_text()))))
        made.rename(path)
    return path


def arguments(test: tuple[str, ...]) -> list[str]:
    """Compose's forms: ("CMD", program, …), ("CMD-SHELL", line). Empty: there is nothing to run."""
    match test:
        case ("CMD", *args):
            return list(args)
        case ("CMD-SHELL", line):
            return ["/bin/sh", "-c", line]
    return []


def process_spec(config: dict[str, Any], args: list[str]) -> dict[str, Any]:
    """The container's own process with other arguments. Its cwd was checked when the container was made, and crun exec
    gets no descriptor of ours that a path below /proc could lead to."""
    return {**config["process"], "args": args, "terminal": False}


def _descendants(pid: int) -> Iterable[int]:
    """/proc/PID/task/TID/children (proc(5)): while crun lives, and it waits for the check, these are its own."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from _descendants(child)
