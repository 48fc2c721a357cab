"""Every blob and every layer of the store verified: blobs against their digests, layers against a fresh unpacking.

A digest of an unpacked tree written down beforehand would cost every pull a second reading, and would be one more thing
to break. The blob a layer came from is in the store, has a digest, and gives the tree again: that is compared.
Nothing that a task uses is touched: its files may be mounted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agent.images import config as image_config
from agent.images import manifest as image_manifest
from agent.images import mending
from agent.images.blobs import Files, aside
from agent.images.catalog import Catalog
from agent.images.compare import difference
from agent.images.index import Image, Index
from agent.images.layers import Layers
from agent.images.lookup import shown
from agent.images.manifest import BadManifest, Layer
from agent.images.reports import Report
from agent.kit.errors import GoraeError, leaf
from agent.ports import StoreCheck, StoreProblem


class Check:
    """One run over the images that were there when it began."""

    def __init__(self, files: Files, catalog: Catalog, layers: Layers, report: Report) -> None:
        self._files, self._catalog, self._layers, self._report = files, catalog, layers, report
        self._few = asyncio.Semaphore(os.cpu_count() or 1)
        self._bytes = 0

    async def run(self, repair: bool, in_use: Callable[[], Mapping[str, str]]) -> StoreCheck:
        async with self._catalog.working("fsck", "the check of the image store") as (work, hold):
            index = await self._catalog.opened()
            blobs = {digest for image in index.images.values() for digest in image.blobs}
            layers = {layer for image in index.images.values() for layer in image.layers}
            mended = {layer for image in index.images.values() for layer in image.stack}
            await hold(*map(self._files.blob, blobs), *map(self._files.layer, layers | mended))
            problems = [StoreProblem("blob", d, why) for d, why in await self._each("blobs", blobs, self._blob)]
            bad = {problem.digest for problem in problems}
            sources, odd = self._sources(index, bad)
            problems += odd
            fresh = {diff_id: work / f"layer-{diff_id[7:]}" for diff_id in layers}

            async def layer(diff_id: str) -> str | None:
                return await self._layer(diff_id, sources.get(diff_id), fresh[diff_id], keep=repair)

            problems += [StoreProblem("layer", d, why) for d, why in await self._each("layers", layers, layer)]
            problems += await self._mended(index, {problem.digest for problem in problems}, work)
            for problem in problems:
                needed = [
                    id_
                    for id_, image in index.images.items()
                    if problem.digest in (id_, *image.blobs, *image.layers, *image.stack)
                ]
                problem.images = [shown(index, id_) for id_ in needed]
                users = in_use()  # not that of the start: verifying takes minutes
                problem.used_by = next((users[id_] for id_ in needed if id_ in users), "")
                if repair and not problem.used_by:
                    problem.done = await self._repair(problem, needed, fresh)
            problems += await self._strays(index, repair)
        # What was held until here and has no name any more goes with the hold.
        return StoreCheck(len(index.images), len(blobs), len(layers), self._bytes, problems)

    async def _each(
        self, what: str, digests: set[str], look: Callable[[str], Awaitable[str | None]]
    ) -> list[tuple[str, str]]:
        """(digest, what is wrong with it)."""
        done = 0

        async def one(digest: str) -> tuple[str, str | None]:
            nonlocal done
            async with self._few:
                found = await look(digest)
            done += 1
            self._report.say(f"verifying {what}", done, len(digests))
            return digest, found

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(digest)) for digest in sorted(digests)]
        except ExceptionGroup as failed:
            raise leaf(failed) from None
        return [(digest, why) for digest, why in (task.result() for task in tasks) if why is not None]

    async def _blob(self, digest: str) -> str | None:
        def look() -> str | None:
            try:
                with self._files.blob(digest).open("rb") as file:
                    found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
                    self._bytes += file.tell()
            except FileNotFoundError:
                return "it is missing"
            except OSError as error:
                return f"it cannot be read: {error.strerror}"
            return None if found == digest else f"its content has the digest {found[:19]}"

        return await aside(look)

    def _sources(self, index: Index, bad: set[str]) -> tuple[dict[str, Layer], list[StoreProblem]]:
        """diff id → a whole blob it can be unpacked from; and images whose own documents do not fit together."""
        found: dict[str, Layer] = {}
        odd = []
        for id_, image in index.images.items():
            if id_ in bad or image.manifest in bad:
                continue
            try:
                manifest = image_manifest.parse(self._files.blob(image.manifest).read_bytes())
                listed = image_config.diff_ids(self._files.blob(id_).read_bytes())
                if manifest.config.digest != id_ or listed != image.layers or len(listed) != len(manifest.layers):
                    raise BadManifest("index, manifest and config name different layers")
            except (BadManifest, json.JSONDecodeError, KeyError, TypeError) as error:
                odd.append(StoreProblem("blob", image.manifest, str(error)))
                continue
            pairs = zip(listed, manifest.layers, strict=True)
            found |= {diff_id: layer for diff_id, layer in pairs if layer.blob.digest not in bad}
        return found, odd

    async def _layer(self, diff_id: str, source: Layer | None, fresh: Path, *, keep: bool) -> str | None:
        place = self._files.layer(diff_id)
        if source is None:
            return "no whole blob is left to compare it with" if place.is_dir() else "it is missing, and so is its blob"
        try:
            await self._layers.again(source, diff_id, fresh)
        except GoraeError as error:
            if error.code not in ("bad-layer", "layer-too-big"):
                raise  # a full disk, say, proves nothing about the layer
            return f"its blob cannot be unpacked: {error}"
        why = await aside(difference, fresh, place) if place.is_dir() else "it is missing"
        if why is None or not keep:
            await aside(self._files.erase, fresh)
        return why

    async def _mended(self, index: Index, bad: set[str], work: Path) -> list[StoreProblem]:
        """Layers that were made to mend a stack (mending.py), made once more; of images whose own layers are whole."""

        def look(image: Image, place: Path) -> str | None:
            place.mkdir()
            top_first = list(dict.fromkeys(reversed(image.layers)))
            count, made, digest = mending.mend([self._files.layer(one) for one in top_first], place)
            if image.stack != [*reversed(top_first[:count]), *([digest] if made is not None else [])]:
                return "it is not what the image's layers need"
            if made is None:
                return None
            kept = self._files.layer(digest)
            return difference(made, kept) if kept.is_dir() else "it is missing"

        found = {}
        for id_, image in index.images.items():
            if image.stack and not bad & {id_, image.manifest, *image.layers}:
                why = await aside(look, image, work / f"mend-{id_[7:]}")
                if why is not None:
                    found[image.stack[-1]] = StoreProblem("layer", image.stack[-1], why)
        return list(found.values())

    async def _repair(self, problem: StoreProblem, needed: list[str], fresh: Mapping[str, Path]) -> str:
        if problem.what == "layer" and problem.digest in fresh and fresh[problem.digest].is_dir():
            await aside(self._files.exchange, fresh[problem.digest], self._files.layer(problem.digest))
            return "unpacked again"
        await self._catalog.forget(needed)
        await aside(self._files.delete, [self._path(problem)])
        return "removed, with the images that need it; the next pull or up fetches them again"

    def _path(self, problem: StoreProblem) -> Path:
        return (self._files.layer if problem.what == "layer" else self._files.blob)(problem.digest)

    async def _strays(self, index: Index, repair: bool) -> list[StoreProblem]:
        """Files that nothing names: a crash leaves some until the next start."""
        found = await self._catalog.strays(delete=repair)
        done = "removed" if repair else ""
        return [StoreProblem("stray", path.name, f"{path.parent.name} that nothing names", done=done) for path in found]
