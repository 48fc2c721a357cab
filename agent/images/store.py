"""The image store behind agent.ports.Images: what to get, in which order it becomes true, and what may be deleted.

An image exists when the catalogue names it, and only then; everything it needs is on disk before. Heavy work happens in
children (skopeo, unpack_child) and threads; the event loop only decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.images import archives, names
from agent.images import config as image_config
from agent.images import manifest as image_manifest
from agent.images.blobs import Files, WrongBlob, aside, compression
from agent.images.catalog import Catalog
from agent.images.errors import bad_archive, bad_image, pull_failed
from agent.images.fetch import Fetcher
from agent.images.flights import Flights
from agent.images.index import Image
from agent.images.layer_writer import Limits
from agent.images.layers import Hold, Layers, Unpacked
from agent.images.lookup import find, info
from agent.images.manifest import BadManifest, Blob, Layer
from agent.images.names import Reference
from agent.images.skopeo import Skopeo
from agent.kit.clock import Clock, RealClock
from agent.kit.layout import Layout
from agent.ports import ImageConfig, ImageInfo, Progress


class ImageStore:
    """See agent.ports.Images. Nothing touches the disk before the first call; that one clears up after a crash."""

    def __init__(self, layout: Layout, *, clock: Clock | None = None, limits: Limits | None = None) -> None:
        self._files = Files(layout.images)
        self._layers = Layers(self._files, limits or Limits())
        self._fetcher = Fetcher(self._files, Skopeo(self._files.tmp), clock or RealClock())
        self._catalog = Catalog(self._files)
        self._configs: dict[str, ImageConfig] = {}
        self._pulls: Flights[ImageInfo] = Flights()
        self._listeners: dict[str, list[Progress]] = {}

    # questions ------------------------------------------------------------------------------------------------------

    async def config(self, image: str) -> ImageConfig:
        id_ = find(await self._catalog.opened(), image)
        if id_ not in self._configs:
            try:
                raw = self._files.blob(id_).read_bytes()
            except OSError as error:
                raise bad_image(image, f"its config is gone: {error.strerror}") from error
            self._configs[id_] = image_config.parse(id_, raw)
        return self._configs[id_]

    async def list(self) -> Sequence[ImageInfo]:
        index = await self._catalog.opened()
        return sorted((info(index, id_) for id_ in index.images), key=lambda row: (not row.names, row.names, row.id))

    # getting images -------------------------------------------------------------------------------------------------

    async def pull(self, name: str, progress: Progress) -> ImageInfo:
        reference = names.parse(name)
        await self._catalog.opened()
        listeners = self._listeners.setdefault(reference.full, [])
        listeners.append(progress)
        try:
            say = _reporter(reference.familiar, listeners)
            return await self._pulls.join(reference.full, lambda: self._pull(reference, say))
        finally:
            listeners.remove(progress)
            if not listeners:
                self._listeners.pop(reference.full, None)

    async def _pull(self, reference: Reference, say: Say) -> ImageInfo:
        say("asking", 0, 0)
        offer = await self._fetcher.look(reference)
        index = await self._catalog.opened()
        here = next((id_ for id_, image in index.images.items() if image.manifest == offer.manifest_digest), None)
        if here is not None:
            await self._catalog.commit(here, index.images[here], {}, [reference], offer.digest)
            say("done", 1, 1)
            return info(await self._catalog.opened(), here)
        async with self._catalog.working("pull", reference.familiar) as (work, hold):
            directory = await self._fetcher.pull(
                reference, offer, work, lambda done, total: say("pulling", done, total)
            )
            extra = []
            if offer.index is not None:
                digest = "sha256:" + hashlib.sha256(offer.index).hexdigest()
                await hold(self._files.blob(digest))
                await aside(self._files.put, offer.index)
                extra = [digest]
            if (directory / "manifest.json").read_bytes() != offer.raw:
                raise pull_failed(reference.familiar, "the manifest changed on the way")
            return await self._install(directory, [reference], offer.digest, extra, hold, say)

    async def load(self, archive: Path, name: str | None, progress: Progress) -> Sequence[ImageInfo]:
        await self._catalog.opened()
        forced = names.parse(name) if name else None
        found = []
        async with self._catalog.working("load", str(archive)) as (work, hold):
            file = await aside(archives.plain, archive, work / "plain")
            contents = await aside(archives.read, archive, file)
            if forced and len(contents) > 1:
                raise bad_archive(archive, f"it holds {len(contents)} images, which cannot all be {forced.familiar}")
            for number, content in enumerate(contents):
                references = [forced] if forced else [names.parse(own) for own in content.names]
                say = _reporter(references[0].familiar if references else archive.name, [progress])
                say("reading", 0, 0)
                place = work / str(number)
                place.mkdir()
                directory = await self._fetcher.unpack(archive, file, content, place)
                found.append(await self._install(directory, references, "", [], hold, say))
        return found

    async def _install(
        self, directory: Path, references: Sequence[Reference], digest: str, extra: Sequence[str], hold: Hold, say: Say
    ) -> ImageInfo:
        """A directory as skopeo's dir: writes it, into the store: blobs, layers, then the index."""
        try:
            raw = await aside((directory / "manifest.json").read_bytes)
            manifest = image_manifest.parse(raw)
            await hold(*(self._files.blob(blob.digest) for blob in manifest.blobs), self._files.blob(_digest(raw)))
            for blob in manifest.blobs:
                await aside(self._files.take, directory / blob.digest[7:], blob)
            await aside(self._files.put, raw)
        except (BadManifest, WrongBlob) as error:
            raise bad_image(references[0].familiar if references else "in the archive", str(error)) from error
        id_ = manifest.config.digest
        config = self._files.blob(id_).read_bytes()
        image_config.parse(id_, config)
        diff_ids = image_config.diff_ids(config)
        if len(diff_ids) != len(manifest.layers):
            raise bad_image(id_, f"{len(manifest.layers)} layers, {len(diff_ids)} diff ids")
        await hold(*(self._files.layer(diff_id) for diff_id in diff_ids))
        sizes = await self._ensure_layers(dict(zip(diff_ids, manifest.layers, strict=True)), say)
        blobs = [_digest(raw), *(blob.digest for blob in manifest.blobs), *extra]
        image = Image(_digest(raw), blobs, diff_ids, image_config.created(config))
        await self._catalog.commit(id_, image, sizes, references, digest)
        say("done", 1, 1)
        return info(await self._catalog.opened(), id_)

    async def _ensure_layers(self, layers: Mapping[str, Layer], say: Say) -> dict[str, int]:
        """All of them unpacked, several at a time; the sizes of those that were not there."""
        total = sum(layer.blob.size for layer in layers.values())
        done: dict[str, int] = {}

        async def one(diff_id: str, layer: Layer) -> Unpacked:
            def read(count: int) -> None:
                done[diff_id] = count
                say("unpacking", sum(done.values()), total)

            made = await self._layers.ensure(layer, diff_id, read)
            read(layer.blob.size)
            return made

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(diff_id, layer)) for diff_id, layer in layers.items()]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return {task.result().diff_id: task.result().size for task in tasks if task.result().size}

    async def import_rootfs(self, tar: Path, name: str, config: Mapping[str, Any], progress: Progress) -> ImageInfo:
        reference, wanted = names.parse(name), image_config.check(config)
        await self._catalog.opened()
        say = _reporter(reference.familiar, [progress])
        say("copying", 0, 0)
        async with self._catalog.working("import", str(tar)) as (work, hold):
            try:
                copied, blob = await aside(self._files.copy, tar, work)
                layer = Layer(blob, compression(copied))
            except WrongBlob as error:
                raise bad_archive(tar, str(error)) from error
            except FileNotFoundError as error:
                raise bad_archive(tar, "no such file") from error
            await hold(self._files.blob(blob.digest))
            copied.replace(self._files.blob(blob.digest))
            made = await self._layers.discover(layer, hold, lambda done: say("unpacking", done, blob.size))
            document = json.dumps(image_config.document(wanted, (made.diff_id,)), sort_keys=True).encode()
            id_ = _digest(document)
            written = image_manifest.write(Blob(id_, len(document)), layer)
            await hold(self._files.blob(id_), self._files.blob(_digest(written)))
            await aside(self._files.put, document)
            await aside(self._files.put, written)
            image = Image(_digest(written), [_digest(written), id_, blob.digest], [made.diff_id])
            await self._catalog.commit(id_, image, {made.diff_id: made.size}, [reference], "")
        say("done", blob.size, blob.size)
        return info(await self._catalog.opened(), id_)

    # forgetting images ------------------------------------------------------------------------------------------------

    async def remove(self, image: str, in_use: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
        gone, freed, id_ = await self._catalog.remove(image, in_use)
        if id_ is not None:
            self._configs.pop(id_, None)
        return tuple(sorted(names.parse(name).familiar for name in gone)), freed


Say = Callable[[str, int, int], None]


def _reporter(image: str, listeners: Sequence[Progress]) -> Say:
    def say(step: str, done: int, total: int) -> None:
        for listener in tuple(listeners):
            listener({"image": image, "step": step, "done": done, "total": total})

    return say


def _digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()
