"""The sandbox helper: a small process without threads that makes namespaces for the agent, and enters those of its
containers.

Why a process: a user namespace cannot be made by a process with threads (unshare(2): EINVAL), and forking the agent
itself, with its event loop, threads and locks, would be a gamble. It speaks JSON on one socket, a message for each
question and answer, and lives as long as the agent:

    {"id": n, "dir": "RUN/tasks/TASK", "base": uid, "size": ids, "kinds": ["user", "net"]}      a sandbox
        →  {"id": n} | {"id": n, "error": text, "errno": n}
    {"id": n, "entry": a file of decide/entry.py}      a program; with two descriptors: a pidfd of the container, output
        →  {"id": n, "status": as a shell has it}, once it has ended | {"id": n, "error": …}
    {"kill": n}      the program of that question, at once; it is answered as ended

It imports little (memory, start-up), keeps no state, and must not touch anything outside the directory it is given.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import struct
from collections import deque
from typing import Any

from agent.kit import syscalls
from agent.sandbox import entering, pins

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
MESSAGE = 65536  # bytes; both sides

_SPACES = {
    "mnt": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "net": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "pid": syscalls.CLONE_NEWPID,
}
_TRACED = 1.0  # seconds between two looks at the dead that are held

# As Docker sets them: inside its own network namespace a task may open any port, and ping without a raw socket.
_SYSCTLS = {"ip_unprivileged_port_start": "0", "ping_group_range": "0 {last}"}


class Job:
    """One sandbox being made. The child and we take turns, one byte each, so neither is ahead of the other:
    child: own user namespace → we: maps → child: own network namespace, if any → we: pins → child: ends."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.id = request["id"]
        self.dir: str = request["dir"]
        self.base: int = request["base"]
        self.size: int = request["size"]
        self.kinds: list[str] = request["kinds"]
        self.pid = 0
        self.mapped = False
        self.ours: socket.socket

    def begin(self) -> bool:
        """Fork the child; False when the sandbox is there already."""
        ns_dir = f"{self.dir}/ns"
        pins.make_room(self.dir, self.base)
        if pins.held(ns_dir, self.base, self.kinds):
            return False
        pins.discard(ns_dir)
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            _child(theirs, self.size, "net" in self.kinds)
        theirs.close()
        return True

    def advance(self) -> bool:
        """The child has spoken; True when the sandbox is complete."""
        word = self.ours.recv(256)
        if word != b"+":
            code = int(word) if word.isdigit() else 0
            raise OSError(code, os.strerror(code) if code else "the process ended", f"namespaces of {self.dir}")
        if not self.mapped:
            # Written with the rights of the initial namespace, so setgroups(2) stays allowed inside: no "deny" needed.
            for kind in ("uid", "gid"):
                _write(f"/proc/{self.pid}/{kind}_map", f"0 {self.base} {self.size}")
            self.mapped = True
            self.ours.send(b"+")
            return False
        pins.pin(self.pid, f"{self.dir}/ns", self.base, self.kinds)
        return True


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # in one write(2), as maps require
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _child(theirs: socket.socket, size: int, network: bool) -> None:
    """Never returns: whichever way it leaves, the process ends."""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        theirs.send(b"+")
        if not theirs.recv(1):
            return  # the helper is gone
        if network:
            # After the maps: files of the new network namespace then belong to the container's root.
            syscalls.unshare(syscalls.CLONE_NEWNET)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
            for name, value in _SYSCTLS.items():
                _write(f"/proc/sys/net/ipv4/{name}", value.format(last=size - 1))
        theirs.send(b"+")
        theirs.recv(1)
    except OSError as error:
        theirs.send(str(error.errno).encode())
    finally:
        os._exit(0)


class Helper:
    def __init__(self, agent: socket.socket, parallel: int) -> None:
        self._agent = agent
        self._parallel = parallel
        self._proc, self._root = (os.open(path, os.O_PATH | os.O_CLOEXEC) for path in ("/proc", "/"))
        self._self = os.pidfd_open(os.getpid())
        self._home = {
            os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC): flag for kind, flag in _SPACES.items()
        }
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        # pidfd → the question it answers, or -1; pid; the directory of its attempt, or ""
        self._children: dict[int, tuple[int, int, str]] = {}
        self._traced = set[int]()  # those of them that are dead, and held by one in their container
        self._poll = select.poll()
        self._poll.register(agent, select.POLLIN)

    def serve(self) -> None:
        """Until the agent is gone."""
        while True:
            for fd in tuple(self._traced):
                self._reap(fd)
            for fd, _ in self._poll.poll(_TRACED * 1000 if self._traced else None):
                if fd in self._running:
                    self._advance(fd)
                elif fd in self._children:
                    self._reap(fd)
                elif not self._receive():
                    return
            while self._waiting and len(self._running) < self._parallel:
                self._begin(self._waiting.popleft())

    def _receive(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._agent, MESSAGE, 2, socket.MSG_CMSG_CLOEXEC)
        if data:
            request = json.loads(data)
            if "kill" in request:
                self._kill(request["kill"])
            elif "entry" not in request:
                self._waiting.append(Job(request))
            elif len(fds) == 2:
                self._enter(request["id"], request["entry"], *fds)
            else:  # the kernel has kept what we have no room for (unix(7), SCM_RIGHTS)
                self._answer(request["id"], OSError(errno.EMFILE, os.strerror(errno.EMFILE), request["entry"]))
        for fd in fds:
            os.close(fd)
        return bool(data)

    # Programs in a container

    def _enter(self, question: int, file: str, container: int, output: int) -> None:
        groups, attempt = list[int](), os.path.dirname(file)  # noqa: PTH120
        try:
            if any(self._children[fd][2] == attempt for fd in self._traced):  # or it would hoard them
                raise OSError(errno.EBUSY, "somebody inside traces one that has ended, and does not let it go", attempt)
            program = entering.Program(file)
            groups += (os.open(f"{group}/cgroup.procs", os.O_WRONLY) for group in program.entry["cgroups"])
            # It must be born there: a member of a pid namespace always is (pid_namespaces(7)), and to those inside, its
            # /proc/PID would else show mounts and network of the host. No path is looked up until we are back.
            syscalls.setns(container, sum(_SPACES.values()))
            try:
                pid = os.fork()
                if pid == 0:
                    self._agent.close()  # whoever is frozen, or hangs, must not keep our end from being noticed
                    entering.enter(program, groups, container, output, helper=self._self, proc=self._proc)
            finally:
                self._return()
        except OSError as error:
            self._answer(question, error)
            return
        finally:
            for group in groups:
                os.close(group)
        self._adopt(pid, question, attempt)  # now: there is room for a descriptor

    def _return(self) -> None:
        try:
            for fd, flag in self._home.items():
                syscalls.setns(fd, flag)
            os.fchdir(self._root)
            os.chroot(".")  # the agent's may not be that of its mount namespace
        except OSError as error:  # whoever is asked for a sandbox here would make it of a container's files
            raise SystemExit(f"cannot leave a container: {error}") from error

    def _kill(self, question: int) -> None:
        for asked, pid, _ in self._children.values():
            if asked == question:
                os.kill(pid, signal.SIGKILL)  # our own child, not yet waited for

    def _adopt(self, pid: int, question: int = -1, attempt: str = "") -> None:
        fd = os.pidfd_open(pid)
        self._children[fd] = question, pid, attempt
        self._poll.register(fd, select.POLLIN)

    def _reap(self, fd: int) -> None:
        """Waits for nobody: a process that another one traces is his, even dead, until he lets go (ptrace(2))."""
        question, pid, _ = self._children[fd]
        ended, status = os.waitpid(pid, os.WNOHANG)
        if fd not in self._traced:
            self._poll.unregister(fd)
        if not ended:
            self._traced.add(fd)
            return
        self._traced.discard(fd)
        del self._children[fd]
        os.close(fd)
        if question >= 0:
            code = os.waitstatus_to_exitcode(status)
            self._send({"id": question, "status": code if code >= 0 else 128 - code})

    # Sandboxes

    def _begin(self, job: Job) -> None:
        try:
            if not job.begin():
                self._answer(job.id)
                return
        except OSError as error:
            self._answer(job.id, error)
            return
        self._running[job.ours.fileno()] = job
        self._poll.register(job.ours, select.POLLIN)

    def _advance(self, fd: int) -> None:
        job = self._running[fd]
        failure: OSError | None = None
        try:
            if not job.advance():
                return
        except OSError as error:
            failure = error
            pins.discard(f"{job.dir}/ns")
        self._poll.unregister(fd)
        del self._running[fd]
        job.ours.close()  # which ends the child
        self._adopt(job.pid)
        self._answer(job.id, failure)

    def _answer(self, question: int, error: OSError | None = None) -> None:
        answer: dict[str, Any] = {"id": question}
        if error is not None:
            answer |= {"error": f"{error.filename or 'namespaces'}: {error.strerror}", "errno": error.errno}
        self._send(answer)

    def _send(self, answer: dict[str, Any]) -> None:
        self._agent.send(json.dumps(answer).encode())


def main(fd: int, agent: int) -> None:
    """fd: our end of the socket. agent: its pid; if it is not our parent any more it died before prctl(2) took hold."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    if os.getppid() != agent:
        return
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # nor are its children, until they execute a program
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and so would what we execute
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    gc.disable()  # no cycles are made here, and a collection would write to every page a child shares with us
    gc.freeze()
    Helper(socket.socket(fileno=fd), os.cpu_count() or 1).serve()
