"""The store's files: content-addressed blobs, unpacked layers, a place for unfinished work. Blocking: call in a thread.

    blobs/sha256/HEX   exactly the bytes of that digest        layers/HEX   the layer with that diff id, unpacked
    tmp/…              whatever is here at start is left from a crash
Everything gets its final name by rename(2), whole and on disk. The directory is root's alone: old setuid programs in
layers are not for the host's users.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from agent.images.index import sync_directories
from agent.images.manifest import Blob
from agent.kit import trees
from agent.kit.threads import finish

_CHUNK = 1 << 20
# Not those of the loop: they are few, containers are started with them, and what is done here may take minutes.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="images")

T = TypeVar("T")


async def aside(call: Callable[..., T], *args: object) -> T:
    """call(*args) in a thread; a cancelled call waits for it, so that nothing it does outlives its caller."""
    return await finish(asyncio.get_running_loop().run_in_executor(_THREADS, call, *args))


class WrongBlob(Exception):
    """The bytes are not those of the digest; the text says which."""


class Files:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = root / "index.json"
        self.layers = root / "layers"
        self.tmp = root / "tmp"
        self._blobs = root / "blobs" / "sha256"

    def prepare(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for directory in (self._blobs, self.layers, self.tmp):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def layer(self, diff_id: str) -> Path:
        return self.layers / diff_id.removeprefix("sha256:")

    def work(self, prefix: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=prefix + "-", dir=self.tmp))

    def free(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def has(self, blob: Blob) -> bool:
        try:
            return self.blob(blob.digest).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def take(self, source: Path, expected: Blob) -> None:
        """Move a file of the same file system in as a blob, after checking it. Already there is success."""
        if self.has(expected):
            return
        with source.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise WrongBlob(f"{expected.digest[:19]} is not a file")
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            os.fsync(file.fileno())
        if found != expected.digest or size != expected.size:
            raise WrongBlob(f"{expected.digest[:19]} of {expected.size} bytes came as {found[:19]} of {size} bytes")
        self.accept(source, expected)

    def accept(self, source: Path, blob: Blob) -> None:
        """Move in a file of the same file system that was checked and is on disk."""
        source.chmod(0o600)
        source.replace(self.blob(blob.digest))

    def put(self, raw: bytes) -> Blob:
        """A small blob from memory."""
        blob = Blob("sha256:" + hashlib.sha256(raw).hexdigest(), len(raw))
        if not self.has(blob):
            with tempfile.NamedTemporaryFile(dir=self.tmp, prefix="put-", delete=False) as file:  # two may put the same
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            self.accept(Path(file.name), blob)
        return blob

    def copy(self, source: Path, work: Path) -> tuple[Path, Blob]:
        """A foreign file, copied into `work` and hashed on the way: to be moved to blob() by the caller."""
        digest = hashlib.sha256()
        unfinished = work / "blob"
        with source.open("rb") as file, unfinished.open("wb") as out:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise WrongBlob("it is not a regular file")
            while piece := file.read(_CHUNK):
                digest.update(piece)
                out.write(piece)
            size = out.tell()
            out.flush()
            os.fsync(out.fileno())
        return unfinished, Blob("sha256:" + digest.hexdigest(), size)

    def settle(self) -> None:
        """Make the renames so far durable, before the index names what they brought."""
        sync_directories([self._blobs, self.layers])

    def everything(self) -> set[Path]:
        """Every blob and layer that is here."""
        return {*self._blobs.iterdir(), *self.layers.iterdir()}

    def delete(self, doomed: Iterable[Path]) -> int:
        """Blobs and layers, gone is success; the bytes of the blobs."""
        freed = 0
        for path in doomed:
            try:
                size = path.stat().st_size
                if path.parent == self._blobs:
                    path.unlink()
                    freed += size
                else:
                    hidden = self.work("doomed")  # out of sight at once: what is half-deleted has no name
                    path.replace(hidden / "layer")
                    trees.delete(hidden)
            except FileNotFoundError:
                continue
        return freed

    def exchange(self, fresh: Path, place: Path) -> None:
        """Put `fresh` in the place of a layer, whole at every moment but one."""
        hidden = self.work("doomed")
        if place.exists():
            place.rename(hidden / "layer")
        fresh.rename(place)
        self.settle()
        trees.delete(hidden)

    def erase(self, directory: Path) -> None:
        trees.delete(directory)

    def size(self, digest: str) -> int:
        """Bytes of a blob; 0 when it is missing."""
        try:
            return self.blob(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def weigh(self) -> int:
        """Bytes of all blobs."""
        return sum(entry.stat().st_size for entry in os.scandir(self._blobs))

    def clear_tmp(self) -> None:
        for path in self.tmp.iterdir():
            trees.delete(path)


def compression(file: Path) -> Literal["plain", "gzip", "zstd"]:
    """By its first bytes (RFC 1952, RFC 8878): skopeo calls the plain layers of a docker-archive gzip."""
    with file.open("rb") as start:
        magic = start.read(4)
    return "gzip" if magic[:2] == b"\x1f\x8b" else "zstd" if magic == b"\x28\xb5\x2f\xfd" else "plain"
