"""From a registry or an archive to blobs: what is offered, then each blob once, however many pulls want it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.images import manifest as image_manifest
from agent.images.archives import Content
from agent.images.blobs import Files, WrongBlob, aside
from agent.images.errors import bad_archive, no_space, pull_failed, wrong_platform
from agent.images.flights import Flights
from agent.images.lanes import Lane
from agent.images.manifest import BadManifest, Blob, Manifest
from agent.images.names import Reference
from agent.images.skopeo import Skopeo, SkopeoFailed, explain
from agent.kit.backoff import delay
from agent.kit.clock import Clock
from agent.kit.errors import Temporary

T = TypeVar("T")

TRIES = 5  # of a look or a blob, while the registry is away or too busy
LANES = 3  # of one pull
AT_ONCE = 8  # blobs on their way, of all pulls
_GROWTH = 2  # a compressed layer unpacked, as a guess for the check beforehand

Again = Callable[[int, float, str], None]  # hears of a further try: its number, seconds until it, why


@dataclass(frozen=True, slots=True)
class Offer:
    """What a registry has under a name."""

    digest: str  # of what it served: what Docker shows as the repo digest
    index: bytes | None  # where that was a list of platforms
    raw: bytes  # the manifest of the platform that was asked for
    manifest: Manifest

    @property
    def manifest_digest(self) -> str:
        return image_manifest.digest_of(self.raw)


class Fetcher:
    """`arrived`: bytes so far of each blob that is on its way, by digest."""

    def __init__(self, files: Files, skopeo: Skopeo, clock: Clock) -> None:
        self._files = files
        self._skopeo = skopeo
        self._clock = clock
        self._blobs: Flights[None] = Flights()
        # Threads of their own: those of the loop are few, and containers are started with them.
        self.threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="blob")
        self.arrived: dict[str, int] = {}

    async def look(self, reference: Reference, platform: str, auth: Path, again: Again) -> Offer:
        """UserError image-missing, wrong-platform; Temporary registry-away after TRIES."""
        served = await self._patiently(reference, lambda: self._skopeo.manifest(reference, auth), again)
        digest = image_manifest.digest_of(served)
        if reference.digest not in (None, digest):
            raise pull_failed(reference.familiar, f"its registry served {digest[:19]} instead")
        try:
            if not image_manifest.is_index(served):
                return Offer(digest, None, served, image_manifest.parse(served))
            chosen = image_manifest.choose(served, platform)
            if chosen is None:
                what = platform or "this architecture"
                has = ", ".join(image_manifest.platforms(served)) or "none"
                raise wrong_platform(reference.familiar, f"its index has no entry for {what}; it has {has}")
            one = Reference(reference.domain, reference.path, None, chosen)
            raw = await self._patiently(reference, lambda: self._skopeo.manifest(one, auth), again)
            if image_manifest.digest_of(raw) != chosen:
                raise pull_failed(
                    reference.familiar, f"its registry served {image_manifest.digest_of(raw)[:19]} for {chosen[:19]}"
                )
            return Offer(digest, served, raw, image_manifest.parse(raw))
        except BadManifest as error:
            raise pull_failed(reference.familiar, f"its manifest is unusable: {error}") from error

    def must_fit(self, reference: Reference, offer: Offer) -> None:
        """UserError no-space, before the first byte; what is here already needs no room."""
        blobs = {blob for blob in offer.manifest.blobs if not self._files.has(blob)}
        needed = sum(blob.size for blob in blobs) + sum(
            layer.blob.size * (1 if layer.compression == "plain" else _GROWTH)
            for layer in set(offer.manifest.layers)
            if layer.blob in blobs
        )
        if needed > self._files.free():
            raise no_space(reference.familiar, needed, self._files.free())

    @contextlib.asynccontextmanager
    async def source(
        self, reference: Reference, offer: Offer, work: Path, auth: Path, again: Again
    ) -> AsyncIterator[Callable[[Blob], Awaitable[None]]]:
        """bring(blob): into the store, unless it is there. The caller holds the blob (catalog.py)."""
        idle: list[Lane] = []
        allowed = asyncio.Semaphore(LANES)

        @contextlib.asynccontextmanager
        async def lane() -> AsyncIterator[Lane]:
            async with allowed:
                usable = (
                    idle.pop()
                    if idle
                    else await Lane.open(self._skopeo, reference, offer.manifest_digest, auth, self.threads)
                )
                try:
                    yield usable
                finally:
                    if usable.works:
                        idle.append(usable)
                    else:
                        await usable.close()

        async def download(blob: Blob) -> None:
            if self._files.has(blob):
                return
            target = work / f"blob-{blob.digest[7:]}"
            try:
                async with lane() as usable:
                    await usable.fetch(blob, target, lambda count: self.arrived.__setitem__(blob.digest, count))
                await aside(self._files.accept, target, blob)
            except WrongBlob as error:
                raise pull_failed(reference.familiar, str(error)) from error
            finally:
                self.arrived.pop(blob.digest, None)

        async def bring(blob: Blob) -> None:
            if not self._files.has(blob):
                join = lambda: self._blobs.join_or_do(blob.digest, lambda: download(blob))  # noqa: E731 (one expression)
                await self._patiently(reference, join, again)

        try:
            yield bring
        finally:
            for unused in idle:
                await unused.close()

    async def unpack(self, archive: Path, file: Path, content: Content, work: Path) -> Path:
        """A directory with manifest and blobs of one image of a docker-archive; `file` is its plain form
        (archives.plain)."""
        target = work / "image"
        target.mkdir()
        link = work / "archive"  # skopeo splits at colons, and the user's path may have some
        link.symlink_to(file.absolute())
        try:
            await self._skopeo.unpack(f"docker-archive:{link}:@{content.number}", target)
        except SkopeoFailed as error:
            if "no space left" in str(error):
                raise no_space(str(archive), file.stat().st_size, self._files.free()) from error
            raise bad_archive(archive, str(error)) from error
        return target

    async def _patiently(self, reference: Reference, work: Callable[[], Awaitable[T]], again: Again) -> T:
        """`work`, again while the registry is away or too busy."""
        for failures in range(1, TRIES):
            try:
                return await self._explained(reference, work)
            except Temporary as error:
                wait = delay(failures, first=0.5, cap=15, jitter=0.3, roll=random.random())
                again(failures + 1, wait, str(error))
                await self._clock.sleep(wait)
        return await self._explained(reference, work)

    async def _explained(self, reference: Reference, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except SkopeoFailed as error:
            said = str(error)
            if "no space left" in said:
                raise no_space(reference.familiar, 0, self._files.free()) from error
            raise explain(reference.familiar, said) from error
