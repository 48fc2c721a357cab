"""One execution of a healthcheck. Never raises for a failed check; never lets one outlive its time or hold the agent.

A check runs with the container's own user, environment, capabilities and seccomp filter, through `crun exec --process`
with numeric ids (never by name: names would be looked up in the container's files). Its output goes to a `tail` of its
own: a pipe's reader can hang with a writer that hangs in the kernel, so the agent is not that reader.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.kit.layout import Layout
from agent.ports import ProbeResult, Process
from agent.probes import http
from agent.runtime import pidfd
from agent.runtime.spawn import PATH, Child, spawn
from agent.wire.messages import Healthcheck

OUTPUT = 4096  # bytes of the tail
_DRAIN = 0.5  # seconds for the last output, which a process left behind may hold open
_DEATH = 2.0  # seconds between SIGKILL and giving up on crun


class HostProber:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._crun = shutil.which("crun", path=PATH) or "/usr/bin/crun"
        self._tail = shutil.which("tail", path=PATH) or "/usr/bin/tail"
        self._count = itertools.count()

    async def probe(
        self, task: str, attempt: int, process: Process, check: Healthcheck, address: str, timeout: float
    ) -> ProbeResult:
        match check.kind:
            case "none":
                return ProbeResult(True, "")
            case "http" if check.port is not None:
                return await http.get(address, check.port, check.path, timeout)
            case "tcp" if check.port is not None:
                return await http.connect(address, check.port, timeout)
            case "exec" if args := arguments(check.test):
                return await self._exec(task, attempt, process, args, timeout)
        return ProbeResult(False, f"cannot check: a healthcheck of kind {check.kind} needs a port or a command")

    async def _exec(self, task: str, attempt: int, process: Process, args: list[str], timeout: float) -> ProbeResult:
        bundle = self._layout.run_tasks / task / str(attempt)
        if pidfd.start_ticks(process.pid) != process.start_ticks:
            return ProbeResult(False, "cannot check: the container is not running")
        stem = bundle / f"probe-{next(self._count)}"
        spec, pid_file = stem.with_suffix(".json"), stem.with_suffix(".pid")
        output = os.memfd_create("probe", os.MFD_CLOEXEC)
        try:
            spec.write_text(json.dumps(process_spec(json.loads((bundle / "config.json").read_text()), args)))
            argv = [self._crun, f"--root={self._layout.crun_root}", "--cgroup-manager=cgroupfs", "exec"]
            argv += ["--process", str(spec), "--pid-file", str(pid_file), f"{task}.{attempt}"]
            return await self._run(argv, pid_file, output, process.pid, timeout)
        except OSError as error:  # removed under our hands, or no memory for a process: the check has failed, no more
            return ProbeResult(False, f"cannot check: {error}")
        finally:
            os.close(output)
            spec.unlink(missing_ok=True)
            pid_file.unlink(missing_ok=True)

    async def _run(self, argv: list[str], pid_file: Path, output: int, container: int, timeout: float) -> ProbeResult:
        source, sink = os.pipe2(os.O_CLOEXEC)
        os.fchmod(sink, 0o666)  # /dev/stdout opened anew, by another user than root, is this pipe
        try:
            tail = spawn([self._tail, "-c", str(OUTPUT)], stdin=source, stdout=output)
        finally:
            os.close(source)
        child: Child | None = None
        try:
            try:
                child = spawn(argv, stdout=sink, stderr=sink)
            finally:
                os.close(sink)
            code = await child.wait(timeout)
            late = code is None
            if late:
                _kill_tree(child.pid, pid_file, container)
                await child.wait(_DEATH)
            if code != 0:
                pidfd.reap_orphans()  # a check that could not be started leaves crun's child behind
            await tail.wait(_DRAIN)
            text = os.pread(output, OUTPUT, 0).decode(errors="replace")
            if late:
                text = f"{text}\nended after {timeout:g} s".strip()
            return ProbeResult(code == 0, text, code, timed_out=late)
        finally:
            if child is not None and child.fd >= 0:  # cancelled, or crun hangs
                _kill_tree(child.pid, pid_file, container)
                child.kill()
            tail.kill()


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


def _kill_tree(crun: int, pid_file: Path, container: int) -> None:
    """The check inside the container, what it started, and what it put in the background and disowned: that is a child
    of the container's pid 1 now, but still in the process group that crun made for the check.

    Not crun: it has to reap the check, or the zombie, an orphan on the host's side, would keep pid 1 from ending.
    """
    mine = list(_descendants(crun))
    with suppress(FileNotFoundError, ValueError):
        mine.append(int(pid_file.read_text()))
    groups = {_group(pid) for pid in mine} - {_group(container), None}
    mine += [pid for pid in _descendants(container) if _group(pid) in groups]
    for pid in dict.fromkeys(mine):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _descendants(pid: int) -> Iterable[int]:
    """/proc/PID/task/TID/children (proc(5)): while crun lives, and it waits for the check, these are its own."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from _descendants(child)
