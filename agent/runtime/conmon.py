"""conmon(8), the parent of one container: how it is started, what it answers, how it is known again.

It survives every gorae process. It answers once, on the pipe named by _OCI_SYNCPIPE: {"pid": N} after `crun create`,
{"pid": -1, "message": …} when that failed, nothing at all when conmon itself would not start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.decide.oci_config import STDIN
from agent.kit.errors import Temporary
from agent.runtime import pidfd
from agent.runtime.sealed import Sealed
from agent.runtime.spawn import spawn

# Rotation (agent/logs) keeps files small without loss; this is the backstop for a time without an agent. conmon throws
# the whole file away when it is reached.
LOG_BACKSTOP = 256 * 1024 * 1024
CREATE_TIMEOUT = 60.0  # seconds; a hung disk, not a slow one


@dataclass(frozen=True, slots=True)
class Monitor:
    """What is the same for every container of the instance. `attach`: short, socket paths end at 107 bytes."""

    conmon: str
    crun: Sealed
    crun_args: tuple[str, ...]  # the global ones
    exits: Path
    attach: Path
    cgroup: Path | None  # where conmon is to sit

    def argv(self, crun: str, cid: str, bundle: Path, log: Path | None, config: Mapping[str, Any]) -> list[str]:
        stdin = ["-i"] if STDIN in config["annotations"] else []
        if stdin and (config["process"]["terminal"] or config["annotations"][STDIN] == "open"):
            stdin.append("--leave-stdin-open")  # when somebody who was attached leaves: it is the service's
        return [
            self.conmon,
            *("-c", cid, "-u", cid, "-n", cid, "-b", str(bundle)),
            *("-r", crun, *(f"--runtime-arg={arg}" for arg in self.crun_args)),
            *("-p", str(bundle / "pidfile"), "-P", str(bundle / "conmon.pid")),
            *("--exit-dir", str(self.exits), "--socket-dir-path", str(self.attach)),
            *("-l", f"k8s-file:{log}" if log else "none", f"--log-size-max={LOG_BACKSTOP}", "--log-level", "error"),
            *(["-t"] if config["process"]["terminal"] else []),
            *stdin,
            "--no-sync-log",  # an fsync here would stand between a crash and its restart
        ]

    async def create(self, cid: str, bundle: Path, log: Path | None, config: Mapping[str, Any]) -> tuple[int, str]:
        """`config`: of OCI. (pid, "") of a container that waits for its start, or (-1, what crun said).

        Cancelled or killed half-way it leaves a conmon that finishes by itself; CrunRuntime.remove finds it.
        """
        answer, sync = os.pipe2(os.O_CLOEXEC)
        go, start = os.pipe2(os.O_CLOEXEC) if self.cgroup is not None else (-1, -1)
        said = os.open(bundle / "conmon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if self.cgroup is not None:  # it went with the last attempt before this one
                self.cgroup.mkdir(parents=True, exist_ok=True)
            inherited, crun = self.crun.lend()
            keep, env = [sync, *inherited], {"_OCI_SYNCPIPE": str(sync)}
            env["TZ"] = "UTC0"  # times in one zone: they sort as text
            env["TMPDIR"] = str(self.attach)  # where it waits for a terminal: what a killed one leaves is ours to see
            if self.cgroup is not None:
                keep.append(go)
                env["_OCI_STARTPIPE"] = str(go)
            # In its bundle: at an OOM it makes an empty file "oom" wherever it is.
            child = spawn(self.argv(crun, cid, bundle, log, config), env=env, stderr=said, keep=keep, cwd=bundle)
            os.close(sync)
            sync = -1
            try:
                if self.cgroup is not None:  # it reads one byte before it forks: nothing of it stays behind
                    (self.cgroup / "cgroup.procs").write_text(str(child.pid))
                    os.write(start, b"\0")
                line = await _line(answer)
                await child.wait(CREATE_TIMEOUT)  # the launcher; the real conmon is its child
            finally:
                child.kill()
        finally:
            for fd in (answer, sync, go, start, said):
                if fd >= 0:
                    os.close(fd)
        if not line:
            return -1, (bundle / "conmon.log").read_text(errors="replace")[-2000:] or "conmon ended without a word"
        message = json.loads(line, strict=False)
        return int(message.get("pid", -1)), str(message.get("message", "")).strip()


async def _line(fd: int) -> bytes:
    """Up to the newline or the end; conmon keeps its side open for life, so the end alone would never come."""
    data = b""
    while not data.endswith(b"\n"):
        if not await pidfd.readable(fd, timeout=CREATE_TIMEOUT):
            raise Temporary(
                f"cannot create the container: crun did not answer within {CREATE_TIMEOUT:g} s",
                code="start-timeout",
                hint="look for a hung disk or network file system",
            )
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        data += chunk
    return data


def find(cid: str, bundle: Path) -> int | None:
    """The conmon of this attempt, by its pid file; None when it is dead. A zombie given to us is reaped on the way."""
    try:
        pid = int((bundle / "conmon.pid").read_text())
        ticks = pidfd.start_ticks(pid)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    if ticks is not None and cid.encode() in words:
        return pid
    if words == [b""]:
        with suppress(ChildProcessError, OSError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    return None


def search(bundle: Path) -> list[int]:
    """Slow, by every process's command line: the conmon and crun processes at work on this bundle. For an attempt whose
    pid file was never written, because its launcher or we were killed first."""
    return working_on({str(bundle).encode()})


def working_on(words: Iterable[bytes]) -> list[int]:
    """The conmon and crun processes that have one of these words in their command line."""
    wanted = set(words)
    found: list[int] = []
    if not wanted:
        return found
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):
            line = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            # crun from memory has a name like /proc/self/fd/9
            known = line[0].rpartition(b"/")[2] in (b"conmon", b"crun") or line[0].startswith(b"/proc/self/fd/")
            if known and not wanted.isdisjoint(line):
                found.append(int(entry.name))
    return found


async def end(pid: int, cid: str, patience: float) -> None:
    """Let it finish (it writes the exit file after the container's death), then SIGKILL, then wait for its end."""
    ticks = pidfd.start_ticks(pid)
    fd = pidfd.open_process(pid, ticks) if ticks is not None else None
    if fd is None:
        return
    try:
        if not await pidfd.readable(fd, timeout=patience):
            pidfd.kill(fd)
            if not await pidfd.readable(fd, timeout=10.0):
                raise Temporary(f"cannot end conmon (pid {pid}) of {cid}: it hangs in the kernel", code="still-alive")
        pidfd.reap(fd)
    finally:
        os.close(fd)
