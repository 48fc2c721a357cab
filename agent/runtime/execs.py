"""Programs that people run in a container besides its own: `crun exec`, with a terminal or with three streams.

The agent reads no pipe of a container's: a writer that hangs in the kernel would hold the reader too. Between a
program's pipes and us is one `cat` each, with a socket on our side; a terminal's two sides do not hold each other.
What is begun here ends with whoever asked for it: the whole session gets SIGHUP, a moment later SIGKILL. Those of an
agent that was killed are ended by the next one (`sweep`). Only what runs on its own (`detach`) stays.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import termios
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.kit.errors import Permanent, Temporary, UserError
from agent.kit.layout import Layout
from agent.kit.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from agent.ports import Process
from agent.runtime import checks, conmon, failures, pidfd
from agent.runtime.cgroups import EXECS, Cgroups
from agent.runtime.sealed import Sealed
from agent.runtime.spawn import PATH, Child, spawn

_SPEC = "exec-"  # files of that name in a bundle: one for each program that somebody waits for
_HANGUP = 1.0  # seconds between SIGHUP and SIGKILL
_DEATH = 2.0  # seconds between SIGKILL and giving up
_START = 20.0  # seconds for crun to hand the terminal over
_CHUNK = 65536
_GROUP, _SESSION = 5, 6  # fields of /proc/PID/stat
_TIOCGPTPEER = 0x5441  # ioctl_tty(2): the other side of a pseudoterminal, by no path


class Stream:
    """One end of what a program reads or writes; bytes, without blocking anything."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.count = 0  # bytes read
        self.waiting = False  # there is nothing to read
        os.set_blocking(fd, False)

    async def read(self) -> bytes:
        """b"" at the end."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                self.waiting = True
                await pidfd.readable(self._fd)
                self.waiting = False
            except OSError:  # EIO: nobody has the terminal open any more
                break
            else:
                self.count += len(data)
                return data
        return b""

    async def write(self, data: bytes) -> None:
        """BrokenPipeError: nobody reads it any more."""
        rest = memoryview(data)
        while rest:
            if self._fd < 0:
                raise BrokenPipeError
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await writable(self._fd)
            except OSError as error:
                raise BrokenPipeError from error

    def resize(self, rows: int, columns: int) -> None:
        """Of a terminal; its foreground processes get SIGWINCH (ioctl_tty(2))."""
        if self._fd >= 0:
            with suppress(OSError):
                fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


async def writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    loop.add_writer(fd, wake)
    try:
        await woken
    finally:
        loop.remove_writer(fd)


@dataclass(slots=True)
class Execution:
    """A program that runs. With a terminal `stdout` is all it writes, and `stdin` the same terminal."""

    child: Child
    group: str
    cgroups: Cgroups
    log: int
    name: str
    args: list[str]
    stdin: Stream | None = None
    stdout: Stream | None = None
    stderr: Stream | None = None
    helpers: list[Child] = field(default_factory=list)

    async def wait(self) -> int:
        """The exit status, as a shell says it. Permanent command-not-found, not-executable, bad-workdir …"""
        code = await self.child.wait()
        said = os.pread(self.log, 4096, 0).decode(errors="replace").strip()
        if said and code:
            pidfd.reap_orphans()  # crun leaves the child behind that could not be started
            raise failures.of_command(said, self.name, self.args)
        assert code is not None
        return code

    def signal(self, number: int) -> None:
        """To its process group."""
        for pid in self.programs():
            _signal(pid, number)

    def begun(self) -> bool:
        """Whether its program runs, and not crun's child before it."""
        with suppress(OSError):
            crun = Path(f"/proc/{self.child.pid}/exe").stat()
            return any(not os.path.samestat(crun, Path(f"/proc/{pid}/exe").stat()) for pid in self.programs())
        return False

    async def end(self) -> None:
        """Nothing is left of it, nor of what it started in its session."""
        if self.child.fd >= 0:
            sessions = self._sessions()
            if self.stdin is not None:
                self.stdin.close()
            self.signal(signal.SIGHUP)
            if await self.child.wait(_HANGUP) is None:
                sessions |= self._sessions()  # crun may have begun it only meanwhile
                self._kill(sessions)
                await self.child.wait(_DEATH)  # crun reaps it; a zombie would keep the container from ending
            self._kill(sessions)
            pidfd.reap_orphans()
        self.child.kill()
        for helper in self.helpers:
            helper.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def programs(self) -> list[int]:
        """crun's own child: nobody else's number as long as crun has not reaped it. None: it has not begun, or is
        over."""
        return _programs(self.child.pid) if self.child.fd >= 0 else []

    def _sessions(self) -> set[int | None]:
        return {_stat(pid, _SESSION) for pid in self.programs()} - {None}

    def _kill(self, sessions: set[int | None]) -> None:
        _kill(self.cgroups.pids(self.group), sessions)


class Execs:
    def __init__(self, layout: Layout, instance: str) -> None:
        self._layout = layout
        self._cgroups = Cgroups(instance)
        self._crun = Sealed(shutil.which("crun", path=PATH) or "/usr/bin/crun")
        self._cat = shutil.which("cat", path=PATH) or "/usr/bin/cat"

    def config(self, task: str, attempt: int) -> dict[str, Any]:
        """What the attempt runs with. Temporary not-running."""
        try:
            found = json.loads((self._bundle(task, attempt) / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise _gone(task) from error
        assert isinstance(found, dict)
        return found

    @asynccontextmanager
    async def running(
        self, task: str, attempt: int, process: Process, spec: dict[str, Any], name: str, *, stdin: bool
    ) -> AsyncIterator[Execution]:
        """It runs inside the block. `spec`: the OCI process, terminal or not. `name`: of the service, for people.
        Permanent bad-workdir; Temporary."""
        self._check(process, task, spec["cwd"])
        file = self._bundle(task, attempt) / f"{_SPEC}{secrets.token_hex(4)}.json"
        with ExitStack() as stack:
            stack.callback(file.unlink, missing_ok=True)
            group = self._write(task, attempt, file, spec)
            log = os.memfd_create("exec", os.MFD_CLOEXEC)
            stack.callback(os.close, log)
            argv, keep = self._argv(task, attempt, file, log)
            execution = Execution(Child(0, -1), group, self._cgroups, log, name, spec["args"])
            if spec["terminal"]:
                await self._on_terminal(argv, keep, execution, process, spec)
            else:
                self._on_pipes(argv, keep, execution, stdin)
            try:
                self._confine(execution)
                yield execution
            finally:
                await _undisturbed(execution.end())

    async def detach(self, task: str, attempt: int, process: Process, spec: dict[str, Any], name: str) -> None:
        """Begin it; it runs on its own, as long as the container does."""
        self._check(process, task, spec["cwd"])
        file = self._bundle(task, attempt) / f"detached-{secrets.token_hex(4)}.json"
        log = os.memfd_create("exec", os.MFD_CLOEXEC)
        try:
            self._write(task, attempt, file, spec)
            argv, keep = self._argv(task, attempt, file, log, "--detach")
            child = spawn(argv, keep=keep)
            try:
                code = await child.wait(_START)
            finally:
                child.kill()
            if code != 0:
                pidfd.reap_orphans()
                said = os.pread(log, 4096, 0).decode(errors="replace").strip()
                raise failures.of_command(said, name, spec["args"])
        finally:
            os.close(log)
            file.unlink(missing_ok=True)

    async def sweep(self) -> None:
        """End what people ran through an agent that was killed."""
        left = list(self._layout.run_tasks.glob(f"*/*/{_SPEC}*.json"))
        for socket_file in (self._layout.run / "at").glob(f"{_SPEC}*"):  # nobody waits there any more
            socket_file.unlink(missing_ok=True)
        programs = [pid for crun in conmon.working_on(str(file).encode() for file in left) for pid in _programs(crun)]
        sessions = {_stat(pid, _SESSION) for pid in programs} - {None}
        for pid in programs:
            _signal(pid, signal.SIGHUP)
        if programs:
            await asyncio.sleep(_HANGUP)
        for file in left:
            _kill(self._cgroups.pids(f"{file.parent.parent.name}.{file.parent.name}/{EXECS}"), sessions)
            file.unlink(missing_ok=True)

    # How it is started -----------------------------------------------------------------------------------------------

    def _check(self, process: Process, task: str, cwd: str) -> None:
        """Its directory, found as the kernel would, without leaving the container. /proc/self/fd/N is the way out
        (CVE-2024-21626), also behind a symlink: so no link of that kind is followed."""
        if pidfd.start_ticks(process.pid) != process.start_ticks:
            raise _gone(task)
        root = os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_CLOEXEC)
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            os.close(openat2(root, cwd, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS))
        except OSError as error:
            raise Permanent(
                f"cannot run it in {cwd}: {(error.strerror or str(error)).lower()}",
                code="bad-workdir",
                hint="name a directory inside the container with -w",
            ) from error
        finally:
            os.close(root)

    def _write(self, task: str, attempt: int, file: Path, spec: dict[str, Any]) -> str:
        try:
            group = self._cgroups.part(f"{task}.{attempt}", EXECS)
            file.write_text(json.dumps(spec))
        except FileNotFoundError as error:
            raise _gone(task) from error
        return group

    def _argv(self, task: str, attempt: int, file: Path, log: int, *more: str) -> tuple[list[str], list[int]]:
        """And the descriptors that belong to it."""
        lent, crun = self._crun.lend()
        argv = [crun, f"--root={self._layout.crun_root}", "--cgroup-manager=cgroupfs"]
        argv += [f"--log=file:/proc/self/fd/{log}", "exec", "--process", str(file), f"--cgroup={EXECS}"]
        return [*argv, *more, f"{task}.{attempt}"], [log, *lent]

    def _on_pipes(self, argv: list[str], keep: list[int], execution: Execution, stdin: bool) -> None:
        theirs: list[int] = []  # what only children keep open
        ours: list[socket.socket] = []

        def through(*, inwards: bool) -> int:
            """A cat between a pipe, whose other end is returned, and a socket of ours."""
            source, sink = os.pipe2(os.O_CLOEXEC)
            theirs.extend((source, sink))
            os.fchmod(sink, 0o666)  # /dev/stdout opened anew, by another user than root, is this pipe
            near, far = socket.socketpair()
            ours.append(near)
            with far:
                helper = (
                    spawn([self._cat], stdin=far.fileno(), stdout=sink)
                    if inwards
                    else spawn([self._cat], stdin=source, stdout=far.fileno())
                )
            execution.helpers.append(helper)
            return source if inwards else sink

        try:
            read = through(inwards=True) if stdin else None
            write, errors = through(inwards=False), through(inwards=False)
            execution.child = spawn(argv, stdin=read, stdout=write, stderr=errors, keep=keep)
        except BaseException:
            for near in ours:
                near.close()
            for helper in execution.helpers:
                helper.kill()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        streams = [Stream(near.detach()) for near in ours]
        execution.stdin = streams.pop(0) if stdin else None
        execution.stdout, execution.stderr = streams

    async def _on_terminal(
        self, argv: list[str], keep: list[int], execution: Execution, process: Process, spec: dict[str, Any]
    ) -> None:
        path = self._layout.run / "at" / f"{_SPEC}{secrets.token_hex(4)}"  # short: 107 bytes at most
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            try:
                path.chmod(0o600)
                listener.listen(1)
                listener.setblocking(False)
                at = argv.index("exec") + 1
                argv = [*argv[:at], "--console-socket", str(path), *argv[at:]]
                execution.child = spawn(argv, keep=keep)
                await pidfd.readable(listener.fileno(), execution.child.fd, timeout=_START)
                master = _receive(listener)
                if master is not None:
                    execution.stdin = execution.stdout = Stream(master)
                    _give(master, process.pid, spec["user"]["uid"])
                elif not pidfd.has_ended(execution.child.fd):
                    raise Temporary("cannot run it: crun handed no terminal over", code="exec-failed")
            except BaseException:
                await _undisturbed(execution.end())
                raise
            finally:
                path.unlink(missing_ok=True)

    def _confine(self, execution: Execution) -> None:
        """Somebody inside may have put a link in the directory's place meanwhile."""
        for pid in execution.programs():
            with suppress(OSError):
                if not checks.directory_inside(pid):
                    os.kill(pid, signal.SIGKILL)
                    raise Permanent("cannot run it: its directory leads out of the container", code="bad-workdir")

    def _bundle(self, task: str, attempt: int) -> Path:
        return self._layout.run_tasks / task / str(attempt)


async def _undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """To its end, also when the caller is cancelled again: as the agent ends, it is by all who wait for it."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _receive(listener: socket.socket) -> int | None:
    """The descriptor that crun sends (unix(7), SCM_RIGHTS); None: it has sent none."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return None
    with connection:
        connection.settimeout(_DEATH)
        _, messages, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) >= 4:
            found = array.array("i", data[:4])
            return found[0]
    return None


def _give(master: int, pid: int, uid: int) -> None:
    """The terminal belongs to the user on it, as it would after a login: crun leaves it to root. The
    program may have begun by then, with the terminal already open. `pid`: of the
    container, whose user namespace says what `uid` is out here (user_namespaces(7))."""
    for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= uid < inside + count:
            slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                os.fchown(slave, outside + uid - inside, -1)
            finally:
                os.close(slave)


def _programs(crun: int) -> list[int]:
    """Children of a crun (proc(5), /proc/PID/task/TID/children) that have left its session: what it runs."""
    try:
        children = Path(f"/proc/{crun}/task/{crun}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid for pid in map(int, children) if _stat(pid, _SESSION) not in (None, crun)]


def _kill(members: Iterable[int], sessions: Collection[int | None]) -> None:
    for pid in members:
        if _stat(pid, _SESSION) in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    """To the whole process group of `pid`."""
    group = _stat(pid, _GROUP)
    if group is not None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)


def _stat(pid: int, field: int) -> int | None:
    """A field of /proc/PID/stat (proc(5)), above 1; None: there is no such process, or it is just being reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    number = int(stat[stat.rindex(b")") + 2 :].split()[field - 3])
    return number if number > 1 else None  # to signal group 0, 1 or -1 is to signal others


def _gone(task: str) -> UserError:
    return UserError(f"cannot run a command in {task}: it has just ended", code="nothing-runs", hint="gorae status")
