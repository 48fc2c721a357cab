"""Reads or writes files of one container as a tar, as a process of its own inside the container's user and mount
namespaces. copying.py runs it, nothing imports it.

    python -m agent.streams.copy_child PIDFD SPEC-JSON < tar or > tar        (both are one socket)

SPEC: {"way": "out", "path", "follow"} or {"way": "in", "path", "source", "name", "archive"}.

It has the rights of the container's root and no others, and the container's root is its own: whatever a process in the
container does to symlinks meanwhile, a path leads to what the container itself can reach. It joins no pid namespace, so
nobody in there can see, signal or trace it. Standard error: one document, {"result": …} or {"error": …}.

After enter() nothing may be imported: the module search path would lead into the container. No name of a user is ever
looked up: that would load the container's libraries.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import stat
import struct
import sys
import tarfile
from typing import Any

from agent.kit import syscalls
from agent.kit.copying import name_of, wants_content
from agent.kit.errors import GoraeError, Permanent, UserError
from agent.kit.treepack import OPEN, TreePacker
from agent.kit.treeunpack import Owner, TreeUnpacker, place

MEMORY = 256 << 20  # bytes this process may take: a header can claim any length
BUFFER = 256 * 1024
_KEEP = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4}  # linux/capability.h
# File systems that hold no files (linux/magic.h): proc, sysfs, cgroup, cgroup2, devpts, mqueue.
_UNREAL = (0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202)


def enter(pidfd: int) -> None:
    """Become the container's root, in its root. OSError ESRCH: it has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    syscalls.setns(pidfd, syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)  # root and cwd become the namespace's
    os.close(pidfd)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)  # forgotten when ids change
    keep = sum(1 << number for number in _KEEP.values())
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    if libc.capset(header, struct.pack("6I", keep, keep, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    sys.path.clear()
    sys.path_importer_cache.clear()
    os.umask(0)


def out(spec: dict[str, Any]) -> dict[str, Any]:
    path = _absolute(spec["path"])
    follow = bool(spec["follow"]) or path.endswith("/") or wants_content(path)
    prefix = "." if wants_content(path) else name_of(path) or "."
    with open(1, "wb", buffering=0, closefd=False) as sink, _writing(sink) as tar:
        packer = TreePacker(tar, lambda: None, _Real(), xattrs=False)
        real = os.path.realpath(path) if follow else path.rstrip("/") or "/"
        parent, _, name = real.rpartition("/")
        if not name:
            fd = os.open("/", OPEN)
            packer.top(fd, prefix)
        else:
            directory = os.open(parent or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if path.endswith("/") and not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            packer.entry(name, directory, prefix)
            if packer.counts.entries == 0:
                raise UserError(
                    f"cannot copy {path}: it is a device or a socket, or made up by the kernel",
                    code="no-file",
                    hint="gorae exec SERVICE cat reads it",
                )
    counts = packer.counts
    return {"entries": counts.entries, "bytes": counts.bytes, "changed": counts.changed, "skipped": counts.skipped}


class _Real:
    """Which file systems have files that can be copied: looked at once each."""

    def __init__(self) -> None:
        self._devices: dict[int, bool] = {}

    def __call__(self, fd: int, found: os.stat_result) -> bool:
        if found.st_dev not in self._devices:
            self._devices[found.st_dev] = syscalls.filesystem_type(fd) not in _UNREAL
        return self._devices[found.st_dev]


def into(spec: dict[str, Any]) -> dict[str, Any]:
    base, called = place(_absolute(spec["path"]), spec["source"], spec["name"])
    owner: Owner = "archive" if spec["archive"] else (0, 0)
    strip = 1 if spec["source"] in ("file", "directory") and spec["name"] else 0
    unpacker = TreeUnpacker(base, called, strip=strip, owner=owner, follow=True)
    with open(0, "rb", buffering=0, closefd=False) as source:
        with tarfile.open(mode="r|", fileobj=source, bufsize=BUFFER) as tar:
            unpacker.all(tar)
        while source.read(BUFFER):
            pass  # whatever stands behind the tar's end
    counts = unpacker.counts
    return {"entries": counts.entries, "bytes": counts.bytes, "changed": 0, "skipped": counts.skipped}


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _writing(sink: Any) -> tarfile.TarFile:
    return tarfile.open(mode="w|", fileobj=sink, format=tarfile.PAX_FORMAT, bufsize=BUFFER)


def say(document: dict[str, Any]) -> None:
    os.write(2, json.dumps(document).encode())


class _Unwanted(BaseException):
    """Nobody waits any more. What was begun under another name is taken away on its way up."""


def _stop(*_: object) -> None:
    raise _Unwanted


def main(pidfd: str, text: str) -> int:
    signal.signal(signal.SIGTERM, _stop)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    spec = json.loads(text)
    path = str(spec["path"])
    try:
        enter(int(pidfd))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        say({"result": out(spec) if spec["way"] == "out" else into(spec)})
        return 0
    except GoraeError as error:
        say({"error": error.document()})
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        say({"error": UserError(f"cannot copy {path}: it is no whole tar ({error})", code="bad-archive").document()})
    except MemoryError:
        bad = UserError(f"cannot copy {path}: the tar has a header that is too long", code="bad-archive")
        say({"error": bad.document()})
    except OSError as error:
        say({"error": _refused(path, error).document()})
    except _Unwanted:
        pass
    except Exception as error:  # Python's own words for it would be looked up in the container
        bug = Permanent(f"cannot copy {path}: a bug: {type(error).__name__}: {error}", code="bug")
        say({"error": bug.document()})
    return 1


def _refused(path: str, error: OSError) -> GoraeError:
    where = f" ({error.filename})" if error.filename and str(error.filename) != path else ""
    match error.errno:
        case errno.ENOENT:
            return UserError(f"cannot copy {path}: there is no such file in the container{where}", code="no-file")
        case errno.ENOSPC | errno.EDQUOT:
            return UserError(f"cannot copy {path}: no room is free there{where}", code="no-space", hint="gorae df")
        case errno.EROFS:
            return UserError(f"cannot copy to {path}: it is read-only there{where}", code="read-only")
        case errno.ESRCH:
            return UserError(f"cannot copy {path}: the container has ended", code="nothing-runs", hint="gorae status")
    return Permanent(f"cannot copy {path}: {os.strerror(error.errno or 0)}{where}", code="not-copied")


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:3]))  # no clean-up of Python's: it would look for modules in the container
