"""Backup of a volume into one file, and restore from it: blocking, called from threads, ended by `stop`.

A restored volume appears whole or not at all. Restoring over one that exists replaces its content in place, because
stopped containers have that directory mounted; a crash in the middle is finished when the volume is opened next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from agent.images.layer_writer import Limits
from agent.images.tarfields import BadTar
from agent.images.tarstream import TarStream
from agent.kit import trees, zstd
from agent.kit.errors import Temporary, UserError
from agent.ports import BackedUp, VolumeInfo
from agent.volumes import errors, manifest, options
from agent.volumes.pack import MANIFEST, pack
from agent.volumes.store import NamedVolumes

_SOURCES = Path(__file__).resolve().parents[2]
_LIMITS = Limits(unpacked=1 << 60, entries=1 << 40)  # a volume is as large as it is; the disk's reserve holds
_SMALL = 1 << 20


def backup(named: NamedVolumes, name: str, path: Path, owner: tuple[int, int], stop: Event) -> BackedUp:
    """Into a new file at `path`, for `owner` alone to read. UserError volume-unknown, not-kept-here, file-exists,
    file-unwritable; Temporary disk-full."""
    info = named.must(name)
    _kept(info, "back up", named)
    part = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}.part")
    if path.exists():
        raise errors.file_exists(name, path)
    try:
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}", code="file-unwritable", hint="choose another folder"
        ) from error
    try:
        content = os.open(named.data(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            counts = pack(content, info, target, stop)
        finally:
            os.close(content)
        os.fchown(target, *owner)
        os.fsync(target)
        part.rename(path)
    finally:
        os.close(target)
        part.unlink(missing_ok=True)
    return counts


def look(path: Path) -> VolumeInfo:
    """What a backup is of. UserError bad-backup, file-unreadable."""
    with _opened(path) as file:
        return _manifest(file, path)


def restore(named: NamedVolumes, path: Path, name: str | None, force: bool, stop: Event) -> tuple[VolumeInfo, int]:
    """The volume, and the bytes of its content. `name`: another than the backup's. `force`: over one that exists.
    UserError bad-backup, volume-exists, not-kept-here, no-space."""
    with _opened(path) as file:
        info = options.renamed(_manifest(file, path), name)
        _kept(info, "restore", named)
        found = named.info(info.name)
        if found is not None and not force:
            raise errors.there_already(info.name)
        if found is not None:
            _kept(found, "restore", named)
        aside = named.aside(info.name)
        try:
            written = _unpack(file, path, aside, stop)
            named.take(found or info, aside)
        finally:
            trees.delete(aside)
    return found or info, written


def _kept(info: VolumeInfo, verb: str, named: NamedVolumes) -> None:
    local = options.local(info)
    if local.kind != "plain":
        where = f"in the folder {local.device} of the host" if local.kind == "bind" else "in memory"
        raise UserError(
            f"cannot {verb} volume {info.name}: its data is {where}, not with gorae",
            code="not-kept-here",
            hint="copy that folder" if local.kind == "bind" else "",
        )


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}", code="file-unreadable", hint="check the path"
        ) from error
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _unzstd(file: int) -> Iterator[int]:
    """A pipe with the decompressed file. A broken frame ends it early, which the tar's end tells."""
    os.lseek(file, 0, os.SEEK_SET)
    command = (*zstd.COMMAND, "-d")
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.fileno()
        finally:
            process.kill()


def _manifest(file: int, path: Path) -> VolumeInfo:
    with _unzstd(file) as pipe:
        tar = TarStream(lambda size: os.read(pipe, size))
        try:
            first = next(iter(tar), None)
            if first is not None and first.name == MANIFEST.encode() and first.size < _SMALL:
                return manifest.parse(b"".join(bytes(piece) for piece in tar.data()))
        except (BadTar, ValueError) as error:
            raise errors.bad_backup(path, f"it is no backup of a volume ({str(error).splitlines()[0]})") from error
    raise errors.bad_backup(path, "it is no backup of a volume")


def _unpack(file: int, path: Path, target: Path, stop: Event) -> int:
    limits = json.dumps(asdict(_LIMITS))
    command = (sys.executable, "-S", "-P", "-m", "agent.volumes.restore_child", str(target), "plain", limits)
    environment = {"PYTHONPATH": str(_SOURCES), "PATH": os.environ.get("PATH", os.defpath)}
    with (
        _unzstd(file) as pipe,
        subprocess.Popen(command, stdin=pipe, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child,
    ):
        out, complaint = _ended(child, stop)
    if stop.is_set():
        raise Temporary("cannot finish the restore: nobody waits for it any more", code="cancelled")
    said: dict[str, Any] = {}
    with suppress(ValueError):
        said = json.loads(out.splitlines()[-1] if out else b"{}")
    if "entries" in said:
        return int(said["bytes"])
    if said.get("error") == "no-space":
        raise UserError(
            f"cannot restore {path}: the disk is full", code="no-space", hint="free some space (gorae volume prune, df)"
        )
    raise errors.bad_backup(
        path, said.get("why") or (complaint.decode(errors="replace").strip().splitlines() or ["nobody knows"])[-1]
    )


def _ended(child: subprocess.Popen[bytes], stop: Event) -> tuple[bytes, bytes]:
    while True:
        try:
            return child.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                child.kill()
        except BaseException:
            child.kill()
            raise
