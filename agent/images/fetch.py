"""From a registry or an archive to a directory with a manifest and its blobs, checked, but not yet in the store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.images import manifest as image_manifest
from agent.images.archives import Content
from agent.images.blobs import Files
from agent.images.errors import bad_archive, no_space, pull_failed, wrong_platform
from agent.images.manifest import BadManifest, Manifest
from agent.images.names import Reference
from agent.images.skopeo import Skopeo, SkopeoFailed, explain
from agent.kit.backoff import delay
from agent.kit.clock import Clock
from agent.kit.errors import Temporary

T = TypeVar("T")

TRIES = 4  # of a pull, while the registry is away
WATCH_EVERY = 0.25  # seconds between two looks at how far skopeo has got: it says nothing a program could read
_GROWTH = 2  # a compressed layer unpacked, as a guess for the check beforehand


@dataclass(frozen=True, slots=True)
class Offer:
    """What a registry has under a name."""

    digest: str  # of what it served: what Docker shows as the repo digest
    index: bytes | None  # where that was a list of platforms
    raw: bytes  # this machine's manifest
    manifest: Manifest

    @property
    def manifest_digest(self) -> str:
        return _digest(self.raw)


class Fetcher:
    def __init__(self, files: Files, skopeo: Skopeo, clock: Clock) -> None:
        self._files = files
        self._skopeo = skopeo
        self._clock = clock

    async def look(self, reference: Reference) -> Offer:
        """UserError image-missing, wrong-platform; Temporary registry-away after TRIES."""
        served = await self._patiently(reference, lambda: self._skopeo.manifest(reference))
        digest = _digest(served)
        if reference.digest not in (None, digest):
            raise pull_failed(reference.familiar, f"its registry served {digest[:19]} instead")
        try:
            if not image_manifest.is_index(served):
                return Offer(digest, None, served, image_manifest.parse(served))
            chosen = image_manifest.choose(served)
            if chosen is None:
                raise wrong_platform(reference.familiar, "its index has no entry for this architecture")
            one = Reference(reference.domain, reference.path, None, chosen)
            raw = await self._patiently(reference, lambda: self._skopeo.manifest(one))
            if _digest(raw) != chosen:
                raise pull_failed(reference.familiar, f"its registry served {_digest(raw)[:19]} for {chosen[:19]}")
            return Offer(digest, served, raw, image_manifest.parse(raw))
        except BadManifest as error:
            raise pull_failed(reference.familiar, f"its manifest is unusable: {error}") from error

    async def pull(self, reference: Reference, offer: Offer, work: Path, arrived: Callable[[int, int], None]) -> Path:
        """The directory with the offer's manifest and blobs; `arrived` hears bytes done and bytes in all."""
        total = sum(blob.size for blob in offer.manifest.blobs)
        needed = total + sum(
            layer.blob.size * (1 if layer.compression == "plain" else _GROWTH) for layer in offer.manifest.layers
        )
        if needed > self._files.free():
            raise no_space(reference.familiar, needed, self._files.free())

        attempts = iter(range(TRIES))

        async def once() -> Path:
            target = work / f"try{next(attempts)}"
            target.mkdir()
            async with self._watching(target, lambda done: arrived(min(done, total), total)):
                await self._skopeo.pull(reference, offer.manifest_digest, target)
            return target

        return await self._patiently(reference, once)

    async def unpack(self, archive: Path, file: Path, content: Content, work: Path) -> Path:
        """The same for one image of an archive; `file` is its plain form (archives.plain)."""
        target = work / "image"
        target.mkdir()
        link = work / "archive"  # skopeo splits at colons, and the user's path may have some
        link.symlink_to(file.absolute())
        selector = f":{content.selector}" if content.selector else ""
        try:
            await self._skopeo.unpack(f"{content.transport}:{link}{selector}", target)
        except SkopeoFailed as error:
            if "no space left" in str(error):
                raise no_space(str(archive), file.stat().st_size, self._files.free()) from error
            raise bad_archive(archive, str(error)) from error
        return target

    async def _patiently(self, reference: Reference, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, again while the registry is away."""
        for failures in range(1, TRIES):
            try:
                return await self._explained(reference, work)
            except Temporary:
                await self._clock.sleep(delay(failures, first=0.5, cap=8, jitter=0.2, roll=random.random()))
        return await self._explained(reference, work)

    async def _explained(self, reference: Reference, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except SkopeoFailed as error:
            said = str(error)
            if "no space left" in said:
                raise no_space(reference.familiar, 0, self._files.free()) from error
            raise explain(reference.familiar, said) from error

    @contextlib.asynccontextmanager
    async def _watching(self, directory: Path, say: Callable[[int], None]) -> AsyncIterator[None]:
        async def watch() -> None:
            while True:
                say(sum(path.stat().st_size for path in directory.iterdir() if path.exists()))
                await self._clock.sleep(WATCH_EVERY)

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])


def _digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()
