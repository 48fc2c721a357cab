"""What overlayfs makes of a stack of layers that their image does not mean, put right by one layer on top.

* A layer may hold tmp/x without listing tmp/ (bazel's, ko's and hand-made ones do). Applied to a tree, as Docker and
  umoci do, that leaves /tmp as it was; in a stack the directory that had to be made for x hides the owner and mode of
  those below it.
* overlayfs takes no notice of an opaque root (OCI layer.md, "Opaque Whiteout"): the layers below are left out instead.

LayerWriter marks the directories it had to make. Blocking; runs as root over hostile trees: names are taken relative to
a layer's root, and nothing is followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.images.layer_writer import IMPLIED, IMPLIES, OPAQUE, LayerTooBig
from agent.kit import syscalls

_NAMES = 16 << 20  # characters of paths: through a symlink, a short entry makes a directory of a long path
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAY = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


@dataclass(frozen=True, slots=True)
class Attributes:
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...]  # but overlayfs' and ours

    def same(self, other: Attributes) -> bool:
        """But for the time: a directory of another time harms nobody, and a layer for it would cost each image one."""
        return (self.mode, self.uid, self.gid, self.xattrs) == (other.mode, other.uid, other.gid, other.xattrs)


@dataclass(frozen=True, slots=True)
class _Directory:
    attributes: Attributes
    implied: bool
    opaque: bool


class Stack:
    """Unpacked layers, topmost first, as one tree. Directories are named by their path, the root "."."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots  # open directories
        self._parts: dict[str, tuple[tuple[int, _Directory], ...]] = {}

    def mended(self) -> tuple[int, dict[str, Attributes]]:
        """(how many of the layers count, directories that the stack shows with attributes that nobody gave them).
        LayerTooBig when memory would not hold their names."""
        roots = [_look(root, ".") for root in self._roots]
        count = next((n for n, root in enumerate(roots, 1) if root and root.opaque), len(roots))
        self._parts["."] = tuple((n, root) for n, root in enumerate(roots) if root)
        wrong: dict[str, Attributes] = {}
        implied: set[str] = set()
        held = 0
        for path in (path for root in self._roots[: count - 1] for path in _implied(root)):
            held += 0 if path in implied else len(path)
            implied.add(path)
            _bound(held)
        for path in sorted(implied | {"."}):
            parts = self._directory(path, count)
            meant = next((directory.attributes for _, directory in parts if not directory.implied), None)
            if parts and meant and not meant.same(parts[0][1].attributes):
                wrong[path] = meant
        for path in list(wrong):
            for parent in _parents(path):
                wrong.setdefault(parent, self._directory(parent, count)[0][1].attributes)
        return count, wrong

    def _directory(self, path: str, count: int) -> tuple[tuple[int, _Directory], ...]:
        """The layers that have a part in it, topmost first; () where the stack shows none."""
        for at in (*_parents(path), path):
            if at in self._parts:
                continue
            found = []
            for number, _ in self._parts[at.rpartition("/")[0] or "."]:
                try:
                    directory = _look(self._roots[number], at) if number < count else None
                except NotADirectoryError:
                    break
                if directory:
                    found.append((number, directory))
                    if directory.opaque:
                        break
            self._parts[at] = tuple(found)
        return self._parts[path]


def _parents(path: str) -> tuple[str, ...]:
    """Outermost first, the root among them; none of the root."""
    if path == ".":
        return ()
    parts = path.split("/")
    return (".", *("/".join(parts[:length]) for length in range(1, len(parts))))


def _look(root: int, path: str) -> _Directory | None:
    """None where there is nothing; NotADirectoryError for anything else than a directory."""
    try:
        fd = syscalls.openat2(root, path, _OPEN, resolve=_STAY)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise NotADirectoryError(path) from error
    try:
        state = os.fstat(fd)
        names = sorted(os.listxattr(fd))
        xattrs = tuple((name, os.getxattr(fd, name)) for name in names if not name.startswith("trusted."))
        attributes = Attributes(stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid, state.st_mtime_ns, xattrs)
        return _Directory(attributes, IMPLIED in names, OPAQUE in names)
    finally:
        os.close(fd)


def _implied(root: int) -> Iterator[str]:
    """Paths of the directories below `root` that its layer does not list. What is too deep for a path has none."""
    if IMPLIES not in os.listxattr(root):
        return
    ahead, held = ["."], 0
    while ahead:
        path = ahead.pop()
        held -= len(path)
        try:
            fd = syscalls.openat2(root, path, _OPEN, resolve=_STAY)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                continue
            raise
        try:
            if path != "." and IMPLIED in os.listxattr(fd):
                yield path
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(entry.name if path == "." else f"{path}/{entry.name}")
                        held += len(ahead[-1])
                        _bound(held)
        finally:
            os.close(fd)


def _bound(held: int) -> None:
    if held > _NAMES:
        raise LayerTooBig(f"the names of directories that it does not list take more than {_NAMES >> 20} MiB")


def mend(layers: Sequence[Path], work: Path) -> tuple[int, Path | None, str]:
    """For `layers`, topmost first: (how many of them count, a new layer for the top in `work` or None, its digest)."""
    with contextlib.ExitStack() as opened:
        roots = []
        for layer in layers:
            roots.append(os.open(layer, _OPEN))
            opened.callback(os.close, roots[-1])
        count, wrong = Stack(roots).mended()
    if not wrong:
        return count, None, ""
    digest = "sha256:" + hashlib.sha256(repr(sorted(wrong.items())).encode(errors="surrogateescape")).hexdigest()
    target = work / "mended"
    _write(target, wrong)
    return count, target, digest


def _write(target: Path, directories: Mapping[str, Attributes]) -> None:
    target.mkdir(mode=0o700)
    root = os.open(target, _OPEN)
    try:
        for path in sorted(directories):
            if path != ".":
                os.mkdir(path, 0o700, dir_fd=root)
        for path in sorted(directories, reverse=True):  # a time is changed by what is made inside
            wanted = directories[path]
            fd = os.open(path, _OPEN, dir_fd=root)
            try:
                os.fchown(fd, wanted.uid, wanted.gid)
                os.fchmod(fd, wanted.mode)
                for name, value in wanted.xattrs:
                    os.setxattr(fd, name, value)
                os.utime(fd, ns=(wanted.mtime_ns, wanted.mtime_ns))
            finally:
                os.close(fd)
        if ctypes.CDLL(None, use_errno=True).syncfs(root) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(target))
    finally:
        os.close(root)
