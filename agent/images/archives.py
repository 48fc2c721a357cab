"""What an archive holds, read from its own table of contents; skopeo then copies the images of a docker-archive out,
and layouts.py those of an OCI one. Blocking: in a thread.

docker-archive: manifest.json (a list of {Config, RepoTags, Layers}); what `docker save` writes. OCI archive or layout:
index.json, image-layout.md. An archive with both is read as Docker's, whose names are whole.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import re
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from agent.images.errors import bad_archive, bad_name
from agent.images.names import parse
from agent.kit import zstd
from agent.kit.errors import UserError

_LIMIT = 4 << 20  # bytes of a table of contents
_CHUNK = 4 << 20
_RESERVE = 64 << 20  # bytes of the file system that stay free
_MEMBERS = 200_000  # looked at before giving up
_REF = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_CONTAINERD = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Content:
    """One image: the number in a docker-archive's manifest.json, or the digest in an OCI layout's index.json."""

    number: int
    digest: str
    names: tuple[str, ...]  # as written in the archive; may be empty


def plain(archive: Path, target: Path) -> Path:
    """The archive itself, or what was in it when it is compressed, written to `target`. UserError bad-archive;
    OSError ENOSPC, early enough to leave others some room.

    skopeo 1.9 (Debian 12) cannot read gzip's docker-archives ("unexpected EOF"), tarfile before 3.14 no zstd.
    """
    try:
        if not archive.is_file():
            return archive
        with archive.open("rb") as file:
            opened = _decompressed(file)
            if opened is None:
                return archive
            with opened as source, target.open("wb") as out:
                while piece := source.read(_CHUNK):
                    _leave_room(target)
                    out.write(piece)
        return target
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise bad_archive(archive, "it is compressed, and damaged") from error
    except FileNotFoundError as error:
        raise bad_archive(archive, "no such file") from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _decompressed(file: BinaryIO) -> contextlib.AbstractContextManager[_Readable] | None:
    """The content of a compressed file, by its first bytes; None for any other."""
    magic = os.pread(file.fileno(), 6, 0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    return _unzstd(file) if magic.startswith(b"\x28\xb5\x2f\xfd") else None


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[_Readable]:
    """The content of a file, decompressed if it is compressed. EOFError, OSError, zlib.error when it is damaged."""
    with file.open("rb") as plain:
        opened = _decompressed(plain)
        if opened is None:
            yield plain
        else:
            with opened as source:
                yield source


@contextlib.contextmanager
def _unzstd(file: BinaryIO) -> Iterator[_Readable]:
    command = (*zstd.COMMAND, "-d")
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield process.stdout
        process.stdout.close()
    if process.returncode:
        raise EOFError


def _leave_room(target: Path) -> None:
    found = os.statvfs(target.parent)
    if found.f_bavail * found.f_frsize < _RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def read(archive: Path, file: Path) -> list[Content]:
    """The images in `file`, which is what plain() made of `archive`. UserError bad-archive with the reason."""
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            return _oci(archive, json.loads(_small(archive, file / "index.json")))
        if not stat.S_ISREG(mode):
            raise bad_archive(archive, "it is not a regular file")
        tables = _tables(file)
        if "manifest.json" in tables:
            return _docker(archive, tables["manifest.json"])
        if "index.json" in tables:
            return _oci(archive, tables["index.json"])
    except OSError as error:
        raise bad_archive(archive, error.strerror or str(error)) from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise bad_archive(archive, "it is not a tar archive, or ends too early") from error
    except (ValueError, RecursionError) as error:
        raise bad_archive(archive, f"its table of contents is malformed ({error})") from error
    raise bad_archive(archive, "it holds neither manifest.json nor index.json")


def _small(archive: Path, path: Path) -> bytes:
    found = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(found, "rb") as file:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
            raise bad_archive(archive, f"its {path.name} is not a small file")
        return file.read(_LIMIT)


class _Headers(io.FileIO):
    """For tarfile, which reads as much as a header says that the next is long, and keeps it. `left`: bytes until the
    next member."""

    left = _LIMIT

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= size if size is not None and size >= 0 else _LIMIT + 1
        if self.left < 0:
            raise tarfile.ReadError("its headers are too long")
        return super().read(size) or b""


def members(file: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The first _MEMBERS of a tar, none of which is kept. tarfile.TarError."""
    with _Headers(file) as headers, tarfile.open(fileobj=headers, mode="r:") as tar:
        kept: Any = tar  # typeshed does not know what it keeps
        for _ in range(_MEMBERS):
            try:
                member = tar.next()
            except RecursionError as error:
                raise tarfile.ReadError("its headers never end") from error
            if member is None:
                return
            kept.members.clear()
            kept.pax_headers.clear()
            headers.left = _LIMIT + tarfile.BLOCKSIZE
            yield tar, member


def _tables(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tar, member in members(file):
        name = member.name.removeprefix("./")
        if name in ("manifest.json", "index.json") and member.isfile() and member.size <= _LIMIT:
            content = tar.extractfile(member)
            if content is not None:
                found[name] = json.loads(content.read())
        if "manifest.json" in found:
            break
    return found


def _docker(archive: Path, table: Any) -> list[Content]:
    if not isinstance(table, list) or not table:
        raise bad_archive(archive, "its manifest.json lists no image")
    found = []
    for number, image in enumerate(table):
        tags = image.get("RepoTags") if isinstance(image, dict) else None
        names = tuple(_usable(tag) for tag in tags or [] if isinstance(tag, str))
        found.append(Content(number, "", names))
    return found


def _oci(archive: Path, table: Any) -> list[Content]:
    entries = table.get("manifests") if isinstance(table, dict) else None
    if not isinstance(entries, list) or not entries:
        raise bad_archive(archive, "its index.json lists no image")
    found: dict[str, list[str]] = {}
    for entry in entries:
        digest = entry.get("digest") if isinstance(entry, dict) else None
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise bad_archive(archive, "its index.json lists an image without a sha256 digest")
        notes = entry.get("annotations") or {}
        ref = notes.get(_REF) if isinstance(notes, dict) else None
        name = (notes.get(_CONTAINERD) if isinstance(notes, dict) else None) or ref
        names = [_usable(name)] if isinstance(name, str) and _is_name(name) else []
        found.setdefault(digest, []).extend(names)
    return [Content(number, digest, tuple(names)) for number, (digest, names) in enumerate(found.items())]


def _is_name(text: str) -> bool:
    """OCI's ref.name is often a bare tag ("latest", "1.2"), which names nothing."""
    if not any(mark in text for mark in ":/@"):
        return False
    try:
        parse(text)
    except UserError:
        return False
    return True


def _usable(name: str) -> str:
    """`name`, if it may be one in our store: with a tag."""
    if parse(name).digest:
        raise bad_name(name, "an archive may only give tags")
    return name
