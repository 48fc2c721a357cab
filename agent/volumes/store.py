"""Volumes: NAME/_data below the volumes directory, filled once from an image, deleted on request only.

Only files below _data are ever a container's; NAME and all above belong to root and are not reachable from containers,
so these paths cannot be swapped under us.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from agent.kit import disk, mounts, syscalls, trees
from agent.kit.errors import GoraeError, UserError
from agent.ports import VolumeInfo
from agent.volumes import errors, manifest, options
from agent.volumes.fill import Filler
from agent.volumes.options import checked_name

_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_RESTORING = ".restoring-"
_GONE = ".gone-"  # renamed so before the slow deletion: a volume is there whole, or not at all


class NamedVolumes:
    """Blocking; called from threads. Two tasks may want the same volume at once: one lock each, for creating it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks: dict[str, threading.Lock] = {}
        for leftover in directory.glob(f"{_RESTORING}*"):  # of an agent that died
            leftover.rename(directory / f"{_GONE}{os.urandom(8).hex()}")
        self._memory = {data.parent.name for data in mounts.points(directory)}  # volumes that are a tmpfs just now

    def data(self, name: str) -> Path:
        return self._directory / checked_name(name) / "_data"

    def info(self, name: str) -> VolumeInfo | None:
        return manifest.read(self.data(name).parent) if self.data(name).exists() else None

    def must(self, name: str) -> VolumeInfo:
        """UserError volume-unknown."""
        found = self.info(name)
        if found is None:
            raise errors.unknown(name)
        return found

    def make(self, info: VolumeInfo) -> VolumeInfo:
        """The volume, made if missing. UserError volume-exists: with other options or labels."""
        options.local(info)
        found = self.info(info.name)
        if found is None:
            self._create(info, None)
        elif (found.options, found.labels) != (info.options, info.labels):
            raise errors.taken(info.name)
        return found or info

    def size(self, name: str, stop: threading.Event) -> int:
        """Bytes on the disk, of what is in our directory."""
        return disk.blocks(self.data(name), stop)

    def aside(self, name: str) -> Path:
        """A fresh directory for what is to be the volume's content."""
        trees.make_dir(self._directory, 0o700)
        made = self._directory / f"{_RESTORING}{checked_name(name)[:200]}-{os.urandom(4).hex()}"
        made.mkdir(mode=0o755)
        return made

    def take(self, info: VolumeInfo, content: Path) -> None:
        """`content`, of aside(), is the volume's from here on: as a new one, or in place of what was in it."""
        data = self.data(info.name)
        with self._locks.setdefault(info.name, threading.Lock()):
            if data.exists():
                _settle(data)
                content.rename(data.parent / "replacing")
                _settle(data)
            else:
                trees.make_dir(data.parent, 0o700)
                manifest.write(data.parent, info)
                content.rename(data)

    def open(self, info: VolumeInfo, image: tuple[Path, str, int] | None) -> int:
        """The directory of the volume's content as a descriptor (O_PATH); the volume is made if missing. image: (root
        file system, path in it, uid base) whose content an empty one takes over, if the content is in our directory.
        UserError bad-volume-options, missing-bind-source."""
        local = options.local(info)
        data = self._create(info, image if local.kind == "plain" else None)
        if local.kind == "bind":
            return _device(info.name, local.device)
        if local.kind == "tmpfs" and not data.is_mount():
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | (syscalls.MS_NOEXEC if local.no_exec else 0)
            with self._locks[info.name]:
                syscalls.mount("tmpfs", data, "tmpfs", flags, local.data or None)
                self._memory.add(info.name)
        return os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def let_go(self, users: Iterable[Path]) -> None:
        """Memory that none of `users` (mounts of tasks) is of any more is given back, with what was in it."""
        for name in tuple(self._memory):
            with self._locks.setdefault(name, threading.Lock()):
                device = _device_of(self.data(name))
                if all(_device_of(user) != device for user in users):
                    mounts.detach(self.data(name))
                    self._memory.discard(name)

    def _create(self, info: VolumeInfo, image: tuple[Path, str, int] | None) -> Path:
        data = self.data(info.name)
        with self._locks.setdefault(info.name, threading.Lock()):
            if not data.exists():
                trees.make_dir(self._directory, 0o700)
                trees.make_dir(data.parent, 0o700)
                manifest.write(data.parent, info)
                data.mkdir(mode=0o755)
                data.chmod(0o755)
            if not _settle(data) and image is not None and not any(data.iterdir()):
                self._fill(data, data.parent / "filled", *image)
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
        except BaseException:
            trees.delete(aside)
            raise
        finally:
            os.close(source)
        aside.rename(filled)
        _move_in(filled, data)

    def remove(self, names: Sequence[str]) -> None:
        """Permanent undeletable if something immutable is left; absent is success. What earlier calls have left is
        tried again, and is no failure of this one."""
        gone = []
        for name in map(checked_name, names):
            with self._locks.setdefault(name, threading.Lock()):
                mounts.detach(self.data(name))
                with suppress(FileNotFoundError):
                    hidden = self._directory / f"{_GONE}{name[:200]}-{os.urandom(4).hex()}"
                    gone.append((self._directory / name).rename(hidden))
        for leftover in set(self._directory.glob(f"{_GONE}*")) - set(gone):
            with suppress(GoraeError):
                trees.delete(leftover)
        for doomed in gone:
            trees.delete(doomed)

    def list(self) -> list[VolumeInfo]:
        found = []
        for name in sorted(trees.names(self._directory, "_data")):
            with suppress(FileNotFoundError):  # removed meanwhile
                found += [] if name.startswith(".") else [manifest.read(self._directory / name)]
        return found


def _settle(data: Path) -> bool:
    """Finish what an agent began that died: `replacing` takes the place of all that is there, `filled` is moved in."""
    replacing, filled = data.parent / "replacing", data.parent / "filled"
    if replacing.exists():
        for old in data.iterdir():
            trees.delete(old)
        replacing.rename(filled)
    if not filled.exists():
        return False
    _move_in(filled, data)
    return True


def _device(name: str, path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"cannot mount volume {name}: its device {path}: {error.strerror}",
            code="missing-bind-source",
            hint=f"mkdir -p {path}",
            path=path,
        ) from error


def _device_of(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return path.stat().st_dev
    return None


def _move_in(filled: Path, data: Path) -> None:
    """The attributes first: they are there before the first file is, and a repetition changes nothing."""
    source = os.open(filled, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    target = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        Filler(0).attributes(source, target)
        times = os.fstat(source)
        for name in os.listdir(filled):  # noqa: PTH208
            try:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                    raise
                # A task has made something of that name meanwhile: its own wins.
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        os.close(source)
        os.close(target)
    trees.delete(filled)
