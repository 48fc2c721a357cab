"""Single blobs out of a registry: `skopeo experimental-image-proxy` (since skopeo 1.5), which speaks JSON over a
SOCK_SEQPACKET socket and hands each blob over as a pipe. `skopeo copy` would fetch every blob of an image again,
whatever the store has already.

Protocol: github.com/containers/skopeo, cmd/skopeo/proxy.go. The writing end of a pipe stays open until FinishPipe is
asked for, and that waits for the last byte: so it is asked for before the first one is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from agent.images.blobs import WrongBlob
from agent.images.manifest import Blob
from agent.images.names import Reference
from agent.images.skopeo import Skopeo, SkopeoFailed

T = TypeVar("T")

STALLED = 60.0  # seconds without a byte: a connection that died in silence
_CHUNK = 1 << 20
_MESSAGE = 1 << 16


class Lane:
    """One image opened; its blobs come one after the other. Failures are SkopeoFailed, and end the lane."""

    def __init__(self, process: asyncio.subprocess.Process, own: socket.socket, threads: Executor) -> None:
        self._process = process
        self._socket = own
        self._threads = threads
        self._image = 0
        self._moved = 0  # raised at every piece that comes
        self.works = True

    @classmethod
    async def open(cls, skopeo: Skopeo, reference: Reference, digest: str, auth: Path, threads: Executor) -> Lane:
        """At the image with this manifest."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            lane = cls(await skopeo.proxy(reference, auth, other.fileno()), own, threads)
        try:
            await lane._aside(lane._call, "Initialize")
            lane._image = (await lane._aside(lane._call, "OpenImage", f"docker://{reference.repository}@{digest}"))[0]
        except BaseException:
            await lane.close()
            raise
        return lane

    async def fetch(self, blob: Blob, target: Path, arrived: Callable[[int], None]) -> None:
        """The blob's bytes, checked and on disk, as `target`; `arrived` hears their number so far, in a thread."""
        try:
            await self._aside(self._fetch, blob, target, arrived)
        except BaseException:
            self.works = False
            raise

    async def close(self) -> None:
        self.works = False
        self._kill()
        await self._process.wait()
        self._socket.close()

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _aside(self, call: Callable[..., T], *args: object) -> T:
        """In a thread; a cancelled or stalled call is ended by ending skopeo, which closes what the thread reads."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
        try:
            while True:
                before = self._moved
                done, _ = await asyncio.wait([future], timeout=STALLED)
                if done:
                    return future.result()
                if self._moved == before:
                    raise SkopeoFailed(f"i/o timeout: nothing came for {STALLED:.0f} s")
        finally:
            if not future.done():
                self._kill()
                await asyncio.wait([future])
                future.exception()

    def _fetch(self, blob: Blob, target: Path, arrived: Callable[[int], None]) -> None:
        _, pipe, fd = self._call("GetBlob", self._image, blob.digest, blob.size)
        if fd is None:
            raise SkopeoFailed("skopeo's proxy gave no pipe")
        digest, count = hashlib.sha256(), 0
        with os.fdopen(fd, "rb", buffering=0) as source, target.open("wb") as out:
            self._send("FinishPipe", pipe)
            while piece := source.read(_CHUNK):
                count += len(piece)
                if count > blob.size:
                    raise WrongBlob(f"{blob.digest[:19]} is longer than {blob.size} bytes")
                digest.update(piece)
                out.write(piece)
                self._moved += 1
                arrived(count)
            out.flush()
            os.fsync(out.fileno())
        self._answer()
        if count < blob.size:
            raise SkopeoFailed(f"unexpected EOF after {count} of {blob.size} bytes")
        if "sha256:" + digest.hexdigest() != blob.digest:
            raise WrongBlob(f"{blob.digest[:19]} came as {digest.hexdigest()[:12]}")

    def _call(self, method: str, *arguments: object) -> tuple[Any, int, int | None]:
        self._send(method, *arguments)
        return self._answer()

    def _send(self, method: str, *arguments: object) -> None:
        try:
            self._socket.send(json.dumps({"method": method, "args": arguments}).encode())
        except OSError as error:
            raise SkopeoFailed("skopeo's proxy ended: broken pipe") from error

    def _answer(self) -> tuple[Any, int, int | None]:
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._socket, _MESSAGE, 1)
        except OSError as error:
            raise SkopeoFailed("skopeo's proxy ended: broken pipe") from error
        if not raw:
            raise SkopeoFailed("skopeo's proxy ended: broken pipe")
        try:
            answer = json.loads(raw)
        except ValueError as error:  # cut off: it quoted a long answer of the registry
            raise SkopeoFailed("skopeo's proxy gave no whole answer") from error
        if not answer.get("success"):
            raise SkopeoFailed(str(answer.get("error"))[-600:])
        return answer.get("value"), int(answer.get("pipeid") or 0), descriptors[0] if descriptors else None
