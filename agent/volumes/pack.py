"""A volume as one file: a tar, zstd-compressed, of its manifest, its content below data/, and an end that counts it.

The content is read by descriptor and no symlink is followed: containers may be at work in it. What changes meanwhile is
counted, not hidden. Sockets, device nodes and mounts are left out. Numbers of owners are those inside the container.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from threading import Event
from typing import IO, Any

from agent.kit import zstd
from agent.kit.errors import Permanent, Temporary
from agent.ports import BackedUp, VolumeInfo
from agent.volumes import manifest

MANIFEST, DATA, END = "gorae-volume.json", "data", "gorae-volume.end"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEPTH = 256  # of directories, as for filling


def pack(content: int, info: VolumeInfo, target: int, stop: Event) -> BackedUp:
    """The directory `content` (a readable descriptor) into the file `target`. Temporary disk-full, cancelled."""
    with subprocess.Popen(zstd.COMMAND, stdin=subprocess.PIPE, stdout=target, stderr=subprocess.PIPE) as packing:
        assert packing.stdin is not None and packing.stderr is not None
        try:
            packer = Packer(packing.stdin, stop)
            packer.all(content, info)
            packing.stdin.close()
            complaint = packing.stderr.read().decode(errors="replace")
        except BrokenPipeError:
            complaint = packing.stderr.read().decode(errors="replace")
        except BaseException:
            packing.kill()
            raise
    if packing.returncode == 0:
        return packer.counts
    if "No space left" in complaint:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise Temporary(
        f"cannot back up volume {info.name}: {complaint.strip() or 'zstd ended'}",
        code="backup-failed",
        hint="gorae doctor",
    )


class Packer:
    def __init__(self, sink: IO[bytes], stop: Event) -> None:
        self.counts = BackedUp()
        self._sink, self._stop = sink, stop
        self._links: dict[tuple[int, int], str] = {}  # (device, inode) → its first name
        self._device = 0

    def all(self, content: int, info: VolumeInfo) -> None:
        with tarfile.open(mode="w|", fileobj=self._sink, format=tarfile.PAX_FORMAT, bufsize=1 << 20) as self._tar:
            self._device = os.fstat(content).st_dev
            self._text(MANIFEST, manifest.dump(info))
            self._add(self._described(content, DATA))
            self._level(content, DATA, 0)
            end = {"entries": self.counts.entries, "bytes": self.counts.bytes}
            self._text(END, json.dumps(end).encode())

    def _text(self, name: str, text: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(text), 0o600
        self._tar.addfile(entry, io.BytesIO(text))

    def _level(self, directory: int, path: str, depth: int) -> None:
        if depth > _DEPTH:
            raise Permanent(f"cannot back it up: {path[:60]}… is more than {_DEPTH} levels deep", code="too-deep")
        for name in sorted(os.listdir(directory)):
            self._go_on()
            try:
                self._entry(name, directory, f"{path}/{name}", depth)
            except FileNotFoundError:
                self.counts.changed += 1

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Temporary("cannot finish the backup: nobody waits for it any more", code="cancelled")

    def _entry(self, name: str, directory: int, path: str, depth: int) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            self._openable(name, directory, path, depth)
        elif kind == stat.S_IFLNK:
            entry = _entry(path, found)
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
            self._add(entry)
        elif kind == stat.S_IFIFO:
            entry = _entry(path, found)
            entry.type = tarfile.FIFOTYPE
            self._add(entry)
        else:
            self.counts.skipped += 1

    def _openable(self, name: str, directory: int, path: str, depth: int) -> None:
        fd = os.open(name, _OPEN, dir_fd=directory)
        try:
            entry, found = self._described(fd, path), os.fstat(fd)
            if found.st_dev != self._device:
                self.counts.skipped += 1
            elif stat.S_ISDIR(found.st_mode):
                self._add(entry)
                self._level(fd, path, depth + 1)
            elif found.st_nlink > 1 and (first := self._links.setdefault((found.st_dev, found.st_ino), path)) != path:
                entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, first, 0
                self._add(entry)
            else:
                self._file(fd, entry)
        finally:
            os.close(fd)

    def _file(self, fd: int, entry: tarfile.TarInfo) -> None:
        with open(fd, "rb", buffering=0, closefd=False) as file:
            exact = _Exact(file, entry.size, self._go_on)
            self._add(entry, exact)
            self.counts.changed += exact.changed()
            self.counts.bytes += entry.size

    def _described(self, fd: int, path: str) -> tarfile.TarInfo:
        found = os.fstat(fd)
        entry = _entry(path, found)
        if stat.S_ISDIR(found.st_mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISREG(found.st_mode):
            entry.size = found.st_size
        headers = dict(entry.pax_headers)
        for name in os.listxattr(fd):
            if name.startswith(("user.", "system.posix_acl_")) or name == "security.capability":
                headers[f"SCHILY.xattr.{name}"] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
        entry.pax_headers = headers
        return entry

    def _add(self, entry: tarfile.TarInfo, content: Any = None) -> None:
        self.counts.entries += 1
        self._tar.addfile(entry, content)


def _entry(path: str, found: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    entry.pax_headers = {"mtime": f"{found.st_mtime_ns // 10**9}.{found.st_mtime_ns % 10**9:09}"}
    return entry


class _Exact(io.RawIOBase):
    """Exactly `size` bytes, as the header has promised: what a file lost meanwhile reads as zeros. `go_on` is called
    before each piece, and raises when nobody waits: a container can make a hole of exabytes."""

    def __init__(self, file: IO[bytes], size: int, go_on: Callable[[], None]) -> None:
        self._file, self._size, self._left, self._short, self._go_on = file, size, size, False, go_on

    def read(self, size: int = -1) -> bytes:
        self._go_on()
        size = min(size, self._left) if size >= 0 else self._left
        pieces, missing = [], size
        while missing and (piece := self._file.read(missing)):  # tarfile takes a short read for the end
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            self._short = True
            pieces.append(bytes(missing))
        self._left -= size
        return b"".join(pieces)

    def changed(self) -> bool:
        return self._short or os.fstat(self._file.fileno()).st_size != self._size
