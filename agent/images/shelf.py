"""What is done with images that are here: looked at, named, saved, counted, collected, checked."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from agent.images import gc, lookup, names, saving
from agent.images.blobs import Files, aside
from agent.images.catalog import Catalog
from agent.images.errors import bad_image, bad_name
from agent.images.fsck import Check
from agent.images.layers import Layers
from agent.images.manifest import BadManifest, parse
from agent.images.reports import Report
from agent.kit.clock import Clock
from agent.ports import GcRule, ImageInfo, Progress, StoreCheck

_CHUNK = 512 << 10


class Shelf:
    def __init__(self, files: Files, catalog: Catalog, layers: Layers, clock: Clock) -> None:
        self._files, self._catalog, self._layers, self._clock = files, catalog, layers, clock
        self._checking = asyncio.Lock()

    async def inspect(self, image: str) -> dict[str, Any]:
        index = await self._catalog.opened()
        id_ = lookup.find(index, image)
        kept = index.images[id_]

        def read() -> tuple[Any, list[int]]:
            layers = parse(self._files.blob(kept.manifest).read_bytes()).layers
            return json.loads(self._files.blob(id_).read_bytes()), [layer.blob.size for layer in layers]

        try:
            config, packed = await aside(read)
        except (OSError, ValueError, BadManifest) as error:
            raise bad_image(image, f"{error}; gorae image fsck says more") from error
        info = lookup.info(index, id_)
        sizes = [index.sizes.get(layer, 0) for layer in kept.layers]
        return {
            "id": id_,
            "names": info.names,
            "digests": info.digests,
            "manifest": kept.manifest,
            "platform": kept.platform,
            "created": kept.created,
            "size": info.size,
            "layers": [
                {"diff_id": layer, "size": size, "packed": blob}
                for layer, size, blob in zip(kept.layers, sizes, packed, strict=True)
            ],
            "history": _history(config, sizes),
            "config": config.get("config") or {},
        }

    async def tag(self, image: str, name: str) -> ImageInfo:
        index = await self._catalog.opened()
        reference = names.parse(name)
        if reference.digest:
            raise bad_name(name, "a digest cannot be given, only a tag")
        id_ = lookup.find(index, image)
        await self._catalog.commit(id_, index.images[id_], {}, [reference], "", self._clock.wall())
        return lookup.info(await self._catalog.opened(), id_)

    async def save(self, images: Sequence[str], form: saving.Format) -> AsyncIterator[bytes]:
        """The bytes of an archive. UserError image-missing before the first of them."""
        index = await self._catalog.opened()
        chosen: dict[str, list[str]] = {}
        for image in images:
            id_ = lookup.find(index, image)
            name = None if image in index.images else lookup.named(index, image)
            asked = [name] if name else index.names_of(id_) if image in index.images else []
            chosen.setdefault(id_, []).extend(one for one in asked if "@" not in one)
        saved = [
            saving.Saved(id_, index.images[id_].manifest, tuple(index.images[id_].layers), saving.distinct(own))
            for id_, own in chosen.items()
        ]
        async with self._catalog.working("save", "an archive") as (work, hold):
            for one in saved:
                kept = index.images[one.id]
                await hold(*map(self._files.blob, kept.blobs), *map(self._files.layer, kept.layers))
            async for piece in _piped(lambda out: saving.write(self._files, saved, form, out, work)):
                yield piece

    async def usage(self, in_use: Collection[str]) -> dict[str, Any]:
        index = await self._catalog.opened()
        unused = [id_ for id_ in index.images if id_ not in in_use]
        blobs = await aside(self._files.weigh)
        unnamed = [id_ for id_ in unused if not index.names_of(id_)]
        layers = {layer for image in index.images.values() for layer in image.layers}
        own = gc.own_layers(index, unused)
        place = os.statvfs(self._files.root)
        return {
            "images": len(index.images),
            "unused": len(unused),
            "unnamed": len(unnamed),
            "blobs": blobs,
            "layers": sum(index.sizes.get(layer, 0) for layer in layers),
            "layer_count": len(layers),
            "layers_unused": len(own),
            "layers_reclaimable": sum(index.sizes.get(layer, 0) for layer in own),
            "reclaimable": gc.freed(index, unused, self._files.size),
            "free": place.f_bavail * place.f_frsize,
            "total": place.f_blocks * place.f_frsize,
        }

    async def collect(self, keep: Collection[str], rule: GcRule, *, dry: bool = False) -> tuple[list[str], int]:
        """Remove what the rule allows (gc.py); what went, as people know it, and the bytes freed."""
        await self._catalog.opened()
        return await self._catalog.collect(keep, rule, self._clock.wall(), dry=dry)

    async def check(self, repair: bool, in_use: Callable[[], Mapping[str, str]], progress: Progress) -> StoreCheck:
        """One at a time: each unpacks every layer."""
        async with self._checking:
            await self._catalog.opened()
            check = Check(self._files, self._catalog, self._layers, Report("images", [progress]))
            return await check.run(repair, in_use)


def _history(config: Any, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Oldest first; an entry that made no layer has size 0."""
    left = list(sizes)
    found = []
    entries = config.get("history")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        texts = {key: entry[key] for key in ("created", "created_by", "comment") if isinstance(entry.get(key), str)}
        found.append({**texts, "size": 0 if entry.get("empty_layer") or not left else left.pop(0)})
    return [*found, *({"comment": "not in the image's history", "size": size} for size in left)]


async def _piped(write: Any) -> AsyncIterator[bytes]:
    """What write(file) writes, in pieces; whoever stops listening ends it."""
    reader, writer = os.pipe()
    loop = asyncio.get_running_loop()
    # Of its own: where writers have taken every thread there is, none is left to read what they wait to write.
    threads = ThreadPoolExecutor(2, thread_name_prefix="save")

    def produce() -> None:
        out: IO[bytes]
        with os.fdopen(writer, "wb", buffering=_CHUNK) as out:
            write(out)

    producing = loop.run_in_executor(threads, produce)
    try:
        while piece := await loop.run_in_executor(threads, os.read, reader, _CHUNK):
            yield piece
        await producing
    finally:
        os.close(reader)
        await asyncio.wait([producing])
        if not producing.cancelled() and isinstance(producing.exception(), BrokenPipeError):
            pass  # nobody listens any more
        threads.shutdown(wait=False)
