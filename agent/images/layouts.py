"""Blobs out of an OCI layout, a directory or a tar of one (image-layout.md), without skopeo: that chooses by name only
among OCI's own manifests, and Docker's are in such archives, too. Blocking: in a thread.

An archive is hostile: members are read in place, none is extracted by its name; only plain files count.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.images.archives import members
from agent.images.blobs import WrongBlob
from agent.images.manifest import LIMIT, Blob

_CHUNK = 1 << 20


class OciLayout:
    """`file`: the plain form of an archive, or the directory. OSError, tarfile.TarError when it is unreadable."""

    def __init__(self, file: Path) -> None:
        self._directory = file if file.is_dir() else None
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}  # digest → offset and size in the tar
        if self._directory is None:
            for _, member in members(file):
                name = member.name.removeprefix("./")
                if name.startswith("blobs/sha256/") and member.isreg() and not member.issparse():
                    self._places["sha256:" + name[13:]] = (member.offset_data, member.size)

    def read(self, digest: str) -> bytes:
        """A small blob: manifest or index. WrongBlob when it is not there, or large."""
        source, offset, size = self._open(digest)
        try:
            if size > LIMIT:
                raise WrongBlob(f"{digest[:19]} has {size} bytes")
            return os.pread(source, size, offset)
        finally:
            os.close(source)

    def copy(self, blob: Blob, target: Path) -> None:
        """The bytes under this digest, not yet checked. WrongBlob when there are none, or not as many as it says."""
        source, offset, size = self._open(blob.digest)
        try:
            if size != blob.size:
                raise WrongBlob(f"{blob.digest[:19]} of {blob.size} bytes has {size} in the archive")
            with target.open("wb") as out:
                while size > 0 and (piece := os.pread(source, min(_CHUNK, size), offset)):
                    out.write(piece)
                    offset, size = offset + len(piece), size - len(piece)
        finally:
            os.close(source)

    def _open(self, digest: str) -> tuple[int, int, int]:
        """(descriptor, offset, size)."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if self._directory is None:
            if digest not in self._places:
                raise WrongBlob(f"{digest[:19]} is not in the archive")
            return (os.open(self._file, os.O_RDONLY | os.O_CLOEXEC), *self._places[digest])
        try:
            found = os.open(self._directory / "blobs/sha256" / digest[7:], flags)
        except OSError as error:
            raise WrongBlob(f"{digest[:19]} is not in the layout: {error.strerror}") from error
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            os.close(found)
            raise WrongBlob(f"{digest[:19]} is no file")
        return found, 0, status.st_size
