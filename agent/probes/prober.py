"""One execution of a healthcheck. Never raises for a failed check; never lets one outlive its time or hold the agent.

A check runs with the container's own user, environment, capabilities and seccomp filter, and with numeric ids (never by
name: names would be looked up in the container's files): agent/sandbox/entering.py. Its output goes to a pipe that the
agent never reads: a reader can hang with a writer that hangs in the kernel. A `tail` reads it, which most checks do not
need: those that end soon, and well. It has a cgroup of its own below the container's, so that nothing it starts
outlives it, however it is disowned.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.decide import hooks
from agent.decide.entry import entry
from agent.kit.errors import GoraeError, Temporary
from agent.kit.layout import Layout
from agent.ports import ProbeResult, Process, UserIds
from agent.probes import http
from agent.runtime.cgroups import CHECKS, HOOKS, Cgroups
from agent.runtime.spawn import PATH, Child, spawn
from agent.sandbox import programs
from agent.sandbox.link import Helper
from agent.sandbox.programs import Program
from agent.wire.messages import Healthcheck, Hook

OUTPUT = 4096  # bytes of the tail
_SOON = 0.2  # seconds that the pipe alone (64 KiB) must do for the output
_DRAIN = 0.5  # seconds for the last output, which a process left behind may hold open
_DEATH = 2.0  # seconds between SIGKILL and giving up
_FILTER = "seccomp.bpf"  # crun(1) keeps each container's compiled filter so, for its own exec


class HostProber:
    def __init__(self, layout: Layout, instance: str, helper: Helper) -> None:
        self._layout = layout
        self._cgroups = Cgroups(instance)
        self._helper = helper
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
        try:
            group = self._cgroups.part(f"{task}.{attempt}", part)
            if part == CHECKS:
                await self._clear(group)  # of an agent that was killed in the middle of one
            file = bundle / f"entry-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json"
            if not file.exists():  # it is a function of the attempt and of `key`
                self._write(file, f"{task}.{attempt}", group, spec_of)
            return await self._run(process, file, group, timeout, keep=part == HOOKS)
        except OSError as error:  # removed under our hands, or no memory for a process: the check has failed, no more
            return ProbeResult(False, f"cannot run it: {error}")
        except GoraeError as error:
            return ProbeResult(False, error.message)

    def _write(self, file: Path, name: str, group: str, spec_of: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        config = json.loads((file.parent / "config.json").read_text())
        groups = [str(directory) for directory in self._cgroups.directories(group)]
        seccomp = str(self._layout.crun_root / name / _FILTER) if "seccomp" in config["linux"] else ""
        made = file.with_suffix(".new")
        made.write_text(json.dumps(entry(spec_of(config), groups=groups, seccomp=seccomp)))
        made.rename(file)

    async def _run(self, process: Process, file: Path, group: str, timeout: float | None, *, keep: bool) -> ProbeResult:
        """`keep`: what it leaves in the background lives on, if it ended in time."""
        said = _Output(self._tail)
        program: Program | None = None
        try:
            try:
                program = programs.begin(self._helper, process, file, said.sink)
            finally:
                said.close_sink()
            if program is None:
                return ProbeResult(False, "cannot run it: the container is not running")
            soon = _SOON if timeout is None else min(_SOON, timeout)
            code = await program.wait(soon)
            if code is None:
                said.read()
                code = await program.wait(None if timeout is None else timeout - soon)
            late = code is None
            if late:
                program.kill()
            if late or not keep:
                await self._clear(group)
            if late:
                await program.wait(_DEATH)
            if code != 0:
                said.read()
            text = await said.text()
            if late:
                text = f"{text}\nended after {timeout or 0:g} s".strip()
            return ProbeResult(code == 0, text, code, timed_out=late)
        finally:
            if program is not None and not program.answer.done():  # cancelled, or it hangs
                program.abandon()
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


def arguments(test: tuple[str, ...]) -> list[str]:
    """Compose's forms: ("CMD", program, …), ("CMD-SHELL", line). Empty: there is nothing to run."""
    match test:
        case ("CMD", *args):
            return list(args)
        case ("CMD-SHELL", line):
            return ["/bin/sh", "-c", line]
    return []


def process_spec(config: dict[str, Any], args: list[str]) -> dict[str, Any]:
    """The container's own process with other arguments. Its cwd was checked when the container was made, and no
    descriptor of ours is there that a path below /proc could lead to."""
    return {**config["process"], "args": args, "terminal": False}
