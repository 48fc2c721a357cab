"""Become a process of a container, and then its program: what `crun exec` does for the process of a configuration of
ours, for less. Checks and hooks are begun so, again and again.

In a child that the sandbox helper has forked into the container's namespaces but that of users, of which every
container of ours has its own. What anybody may read of a process in /proc, mounts and network, is the container's from
its birth. Nobody inside may look into it before the program begins, whatever capabilities he has there: it is
undumpable (PR_SET_DUMPABLE in prctl(2)), and its memory belongs to the host's namespace. Nor can anybody write to the
host's interpreter, which `/proc/self/exe` would lead to (CVE-2019-5736): its file has no owner there. What is left of
the host when a path of the container is first looked at is /dev/null and the pipe for its output: no descriptor leads
out (CVE-2024-21626), and it is not the host's root any more.

What can be done before the fork is done there: each page that the child touches costs it a microsecond.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from agent.kit import syscalls

_NO_SUCH, _NOT_EXECUTABLE, _NOT_BEGUN = 127, 126, 125  # as a shell has the first two, and docker(1) the third


class Program:
    """What is to be run: a file of decide/entry.py, read."""

    def __init__(self, file: str) -> None:
        """OSError: it cannot be read."""
        self.entry: dict[str, Any] = json.loads(_read(file))
        self.filter = _filter(_read(self.entry["filter"])) if self.entry["filter"] else None
        self.name: str = self.entry["args"][0]
        self.environment = dict(item.partition("=")[::2] for item in self.entry["env"])
        path = self.environment.get("PATH", "").split(":")
        self.places = [f"{directory}/{self.name}" for directory in path] if "/" not in self.name else [self.name]


_filters: dict[bytes, syscalls.Filter] = {}  # nearly always one


def _filter(text: bytes) -> syscalls.Filter:
    if text not in _filters:
        _filters.clear()
        _filters[text] = syscalls.Filter(text)
    return _filters[text]


def enter(program: Program, groups: Sequence[int], container: int, output: int, *, helper: int, proc: int) -> NoReturn:
    """`groups`: cgroup.procs of its cgroup in each hierarchy. `container`: a pidfd of its first process. `output`:
    where both streams go, and why nothing began. `helper`: a pidfd of it. `proc`: the host's /proc."""
    status, entry = _NOT_BEGUN, program.entry
    try:
        # Nothing is imported here: what looks like the host's modules is the container's.
        sys.path.clear()
        sys.meta_path.clear()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.setsid()
        score = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
        os.write(score, entry["oom_score_adj"].encode())
        for group in groups:
            os.write(group, b"0")
        os.dup2(container, 3)
        os.dup2(helper, 4)
        os.closerange(5, 2**31 - 1)
        syscalls.setns(3, syscalls.CLONE_NEWUSER)
        os.close(3)
        _become(entry)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)  # it ends with the helper; a change of user would undo this
        if select.select([4], [], [], 0)[0]:
            raise ChildProcessError(errno.ECHILD, "the sandbox helper has ended")  # before that, so nothing was sent
        os.close(4)
        if program.filter is not None:
            syscalls.seccomp(program.filter)
        status, error = _execute(program)
        _say(f"cannot run {program.name}: {error.strerror}")
    except BaseException as error:
        _say(f"cannot run {program.name}: {error}")
    finally:
        os._exit(status)


def _become(entry: dict[str, Any]) -> None:
    os.setresgid(0, 0, 0)  # the container's root, before its files are looked at
    os.setresuid(0, 0, 0)
    os.umask(entry["umask"])
    try:
        os.chdir(entry["cwd"])
        entered = True
    except PermissionError:  # its user may be let in where the container's root is not
        entered = False
    os.setgroups(entry["additional_gids"])
    os.setresgid(*[entry["gid"]] * 3)
    syscalls.drop_bounding(entry["bounding"])
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresuid(*[entry["uid"]] * 3)
    syscalls.capset(entry["effective"], entry["permitted"], entry["inheritable"])
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if not entered:
        os.chdir(entry["cwd"])


def _execute(program: Program) -> tuple[int, OSError]:
    """Only a failure returns. As execvp(3): a file that may not be executed counts for more than none."""
    status, worst = _NO_SUCH, OSError(errno.ENOENT, "there is no such command in the image")
    for place in program.places:
        try:
            os.execve(place, program.entry["args"], program.environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            status, worst = _NOT_EXECUTABLE, error
    return status, worst


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode(errors="replace"))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()
