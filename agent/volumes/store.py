"""Volumes: NAME/_data below the volumes directory, filled once from an image, deleted on request only.

Only files below _data are ever a container's; NAME and all above belong to root and are not reachable from containers,
so these paths cannot be swapped under us.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.kit import syscalls, trees
from agent.ports import VolumeInfo
from agent.volumes import manifest
from agent.volumes.fill import Filler
from agent.volumes.options import checked_name

_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_GONE = ".gone-"  # renamed so before the slow deletion: a volume is there whole, or not at all


class NamedVolumes:
    """Blocking; called from threads. Two tasks may want the same volume at once: one lock each, for creating it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks: dict[str, threading.Lock] = {}

    def data(self, name: str) -> Path:
        return self._directory / checked_name(name) / "_data"

    def create(self, info: VolumeInfo, image: tuple[Path, str, int] | None) -> Path:
        """The volume's data directory, made if missing. image: (root file system, path in it, uid base) whose content
        an empty volume takes over; None leaves it empty."""
        data = self.data(info.name)
        with self._locks.setdefault(info.name, threading.Lock()):
            if not data.exists():
                trees.make_dir(self._directory, 0o700)
                trees.make_dir(data.parent, 0o700)
                manifest.write(data.parent, info)
                data.mkdir(mode=0o755)
                data.chmod(0o755)
            filled = data.parent / "filled"
            if filled.exists():  # an agent died while moving
                _move_in(filled, data)
            elif image is not None and not any(data.iterdir()):
                self._fill(data, filled, *image)
        return data

    @staticmethod
    def _fill(data: Path, filled: Path, rootfs: Path, path: str, base: int) -> None:
        """Copied aside, renamed to `filled` when whole, then moved in one by one. `data` itself stays the same
        directory: it may be mounted already in a task whose image has nothing there."""
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            source = syscalls.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, resolve=_INSIDE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                return  # the image has no directory there
            raise
        finally:
            os.close(root)
        aside = data.parent / "filling"
        try:
            trees.delete(aside)
            aside.mkdir(mode=0o700)
            Filler(base).copy(source, aside)
        finally:
            os.close(source)
        aside.rename(filled)
        _move_in(filled, data)

    def remove(self, names: Sequence[str]) -> None:
        """Permanent undeletable if something immutable is left; absent is success."""
        for name in map(checked_name, names):
            with self._locks.setdefault(name, threading.Lock()):
                try:
                    (self._directory / name).rename(self._directory / f"{_GONE}{name}-{os.urandom(4).hex()}")
                except FileNotFoundError:
                    pass
        for leftover in self._directory.glob(f"{_GONE}*"):
            trees.delete(leftover)

    def list(self) -> list[VolumeInfo]:
        found = []
        for name in sorted(trees.names(self._directory, "_data")):
            with suppress(FileNotFoundError):  # removed meanwhile
                found += [] if name.startswith(".") else [manifest.read(self._directory / name)]
        return found


def _move_in(filled: Path, data: Path) -> None:
    """The attributes first: they are there before the first file is, and a repetition changes nothing."""
    source = os.open(filled, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    target = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        Filler(0).attributes(source, target)
        for name in os.listdir(filled):  # noqa: PTH208
            try:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                    raise
                # A task has made something of that name meanwhile: its own wins.
    finally:
        os.close(source)
        os.close(target)
    trees.delete(filled)
