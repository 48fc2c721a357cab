"""From a manifest to an image of the store: blobs, layers as soon as each has come, last the entry in the catalogue.

An image exists when the catalogue names it, and only then; everything it needs is on disk before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agent.images import config as image_config
from agent.images import manifest as image_manifest
from agent.images.blobs import Files, WrongBlob, aside
from agent.images.catalog import Catalog
from agent.images.errors import bad_image
from agent.images.index import Image
from agent.images.layers import Hold, Layers, Unpacked
from agent.images.lookup import info
from agent.images.manifest import BadManifest, Blob, Layer
from agent.images.names import Reference
from agent.images.reports import Report
from agent.kit.clock import Clock
from agent.kit.errors import leaf
from agent.ports import ImageConfig, ImageInfo

Bring = Callable[[Blob], Awaitable[None]]  # a blob into the store, from wherever it is


class Installer:
    def __init__(self, files: Files, layers: Layers, catalog: Catalog, clock: Clock) -> None:
        self._files, self._layers, self._catalog, self._clock = files, layers, catalog, clock

    async def install(
        self,
        raw: bytes,
        bring: Bring,
        references: Sequence[Reference],
        digest: str,
        extra: Sequence[str],
        hold: Hold,
        report: Report,
    ) -> ImageInfo:
        """The image of this manifest into the store: blobs, layers as soon as each has come, then the index."""
        name = references[0].familiar if references else "in the archive"
        try:
            manifest = image_manifest.parse(raw)
            await hold(
                *(self._files.blob(blob.digest) for blob in manifest.blobs),
                self._files.blob(image_manifest.digest_of(raw)),
            )
            await aside(self._files.put, raw)
            await bring(manifest.config)
            id_ = manifest.config.digest
            parsed, diff_ids, created, platform = await aside(self._read, id_)
            if len(diff_ids) != len(manifest.layers):
                raise bad_image(name, f"{len(manifest.layers)} layers, {len(diff_ids)} diff ids")
            await hold(*(self._files.layer(diff_id) for diff_id in diff_ids))
            sizes = await self._ensure_layers(list(zip(diff_ids, manifest.layers, strict=True)), bring, report)
            stack = await self._layers.mend(parsed.layers, hold)
        except (BadManifest, WrongBlob) as error:
            raise bad_image(name, str(error)) from error
        blobs = [image_manifest.digest_of(raw), *(blob.digest for blob in manifest.blobs), *extra]
        image = Image(image_manifest.digest_of(raw), blobs, diff_ids, created, platform, stack)
        await self.commit(id_, image, sizes, references, digest)
        report.say("done", 1, 1)
        return info(await self._catalog.opened(), id_)

    def _read(self, id_: str) -> tuple[ImageConfig, list[str], str, str]:
        """Blocking: a hostile config of 4 MiB takes a second."""
        raw = self._files.blob(id_).read_bytes()
        return (
            image_config.parse(id_, raw),
            image_config.diff_ids(raw),
            image_config.created(raw),
            image_config.platform_of(raw),
        )

    async def _ensure_layers(self, layers: Sequence[tuple[str, Layer]], bring: Bring, report: Report) -> dict[str, int]:
        """All of them brought and unpacked, several at a time; the sizes of those that were not there."""
        once = dict(layers)
        total = sum(layer.blob.size for layer in once.values())

        async def one(diff_id: str, layer: Layer) -> Unpacked:
            # Also where the layer is unpacked already: another's blob of it may be packed in another way.
            await bring(layer.blob)
            made = await self._layers.ensure(layer, diff_id, lambda count: report.unpacked(layer.blob, count, total))
            report.unpacked(layer.blob, layer.blob.size, total)
            report.layer("done", layer.blob, layer.blob.size)
            return made

        async def other(blob: Blob) -> None:
            await bring(blob)

        more = {layer.blob for _, layer in layers} - {layer.blob for layer in once.values()}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(diff_id, layer)) for diff_id, layer in once.items()]
                for blob in more:
                    group.create_task(other(blob))
        except ExceptionGroup as failed:
            raise leaf(failed) from None
        return {task.result().diff_id: task.result().size for task in tasks if task.result().size}

    async def commit(
        self, id_: str, image: Image, sizes: Mapping[str, int], references: Sequence[Reference], digest: str
    ) -> None:
        await self._catalog.commit(id_, image, sizes, references, digest, self._clock.wall())
