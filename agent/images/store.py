"""The image store behind agent.ports.Images: what to get, in which order it becomes true, and what may be deleted.

An image exists when the catalogue names it, and only then; everything it needs is on disk before. Heavy work happens in
children (skopeo, unpack_child) and threads; the event loop only decides.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.images import archives, names, policy
from agent.images import config as image_config
from agent.images import manifest as image_manifest
from agent.images.archives import Content
from agent.images.auth import NONE, Keys, Logins, mark
from agent.images.blobs import Files, WrongBlob, aside, compression
from agent.images.catalog import Catalog
from agent.images.errors import bad_archive, bad_image, image_missing
from agent.images.fetch import Fetcher
from agent.images.flights import Flights
from agent.images.index import Image
from agent.images.install import Bring, Installer
from agent.images.layer_writer import Limits
from agent.images.layers import Hold, Layers
from agent.images.layouts import OciLayout
from agent.images.lookup import find, info, named
from agent.images.manifest import BadManifest, Blob, Layer
from agent.images.names import Reference
from agent.images.reports import Report
from agent.images.shelf import Shelf
from agent.images.skopeo import Skopeo
from agent.kit.clock import Clock, RealClock
from agent.kit.layout import Layout
from agent.ports import ImageConfig, ImageInfo, Progress, Resolved, Wanted


class ImageStore:
    """See agent.ports.Images. Nothing touches the disk before the first call; that one clears up after a crash."""

    def __init__(self, layout: Layout, *, clock: Clock | None = None, limits: Limits | None = None) -> None:
        self._files = Files(layout.images)
        self._layers = Layers(self._files, limits or Limits())
        self._clock = clock or RealClock()
        skopeo = Skopeo(self._files.tmp)
        self._fetcher = Fetcher(self._files, skopeo, self._clock)
        self._catalog = Catalog(self._files)
        self._installer = Installer(self._files, self._layers, self._catalog, self._clock)
        self.shelf = Shelf(self._files, self._catalog, self._layers, self._clock)
        self.logins = Logins(layout.registry_logins, skopeo)
        self._configs: dict[str, ImageConfig] = {}
        self._pulls: Flights[ImageInfo] = Flights()
        self._listeners: dict[str, list[Progress]] = {}

    # questions ------------------------------------------------------------------------------------------------------

    async def config(self, image: str) -> ImageConfig:
        index = await self._catalog.opened()
        id_ = find(index, image)
        if id_ not in self._configs:
            try:
                parsed = await aside(lambda: image_config.parse(id_, self._files.blob(id_).read_bytes()))
            except OSError as error:
                raise bad_image(image, f"its config is gone: {error.strerror}") from error
            stack = index.images[id_].stack
            self._configs[id_] = replace(parsed, layers=tuple(stack)) if stack else parsed
        return self._configs[id_]

    async def list(self) -> Sequence[ImageInfo]:
        index = await self._catalog.opened()
        return sorted((info(index, id_) for id_ in index.images), key=lambda row: (not row.names, row.names, row.id))

    # getting images -------------------------------------------------------------------------------------------------

    async def ensure(self, want: Wanted, progress: Progress, keys: Keys = NONE) -> Resolved:
        while True:  # once more when it was removed between two steps
            id_ = policy.choose(want, await self._catalog.opened(), self._clock.wall())
            if id_ is None:
                if want.policy == "never":
                    raise image_missing(want.name)
                id_ = (await self.pull(policy.source(want), progress, want.platform, keys)).id
            if await self._catalog.touch(id_, self._clock.wall()):
                break
        index = await self._catalog.opened()
        if id_ == want.id and want.policy in ("missing", "never"):
            return Resolved(id_, want.digest)
        name = named(index, want.name)
        return Resolved(id_, index.names[name].digest if name and index.names[name].id == id_ else "")

    async def pull(self, name: str, progress: Progress, platform: str = "", keys: Keys = NONE) -> ImageInfo:
        reference = names.parse(name)
        await self._catalog.opened()
        # Whoever has other credentials may see another image, or none.
        flight = f"{reference.full} {platform} {mark(keys)}"
        listeners = self._listeners.setdefault(flight, [])
        listeners.append(progress)
        try:
            report = Report(reference.familiar, listeners)
            return await self._pulls.join(flight, lambda: self._pull(reference, platform, keys, report))
        finally:
            listeners.remove(progress)
            if not listeners:
                self._listeners.pop(flight, None)

    async def latest(self, name: str, keys: Keys = NONE, platform: str = "") -> str:
        """The digest the registry has under this name now. Errors as of pull."""
        reference = names.parse(name)
        await self._catalog.opened()
        with self.logins.file(keys, self._files.tmp) as auth:
            return (await self._fetcher.look(reference, platform, auth, lambda *_: None)).digest

    async def _pull(self, reference: Reference, platform: str, keys: Keys, report: Report) -> ImageInfo:
        report.say("asking")
        async with self._catalog.working("pull", reference.familiar) as (work, hold):
            with self.logins.file(keys, work) as auth:
                offer = await self._fetcher.look(reference, platform, auth, report.again)
                raw = offer.raw
                index = await self._catalog.opened()
                here = next((i for i, image in index.images.items() if image.manifest == offer.manifest_digest), None)
                if here is not None:
                    await hold(*self._catalog.paths(index.images[here]))
                    index = await self._catalog.opened()
                if here is not None and here in index.images:
                    await self._installer.commit(here, index.images[here], {}, [reference], offer.digest)
                    report.say("done", 1, 1)
                    return info(await self._catalog.opened(), here)
                await hold(
                    *map(
                        self._files.blob,
                        (image_manifest.digest_of(raw), *(blob.digest for blob in offer.manifest.blobs)),
                    )
                )
                self._fetcher.must_fit(reference, offer)
                extra = []
                if offer.index is not None:
                    extra = [image_manifest.digest_of(offer.index)]
                    await hold(self._files.blob(extra[0]))
                    await aside(self._files.put, offer.index)
                blobs = [blob for blob in dict.fromkeys(offer.manifest.blobs) if not self._files.has(blob)]
                async with (
                    self._fetcher.source(reference, offer, work, auth, report.again) as bring,
                    report.watching(blobs, self._fetcher.arrived, self._clock),
                ):
                    return await self._installer.install(raw, bring, [reference], offer.digest, extra, hold, report)

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
                report = Report(references[0].familiar if references else archive.name, [progress])
                report.say("reading")
                place = work / str(number)
                place.mkdir()
                raw, bring, extra = await self._opened(archive, file, content, place, hold)
                found.append(await self._installer.install(raw, bring, references, "", extra, hold, report))
        return found

    async def _opened(
        self, archive: Path, file: Path, content: Content, place: Path, hold: Hold
    ) -> tuple[bytes, Bring, Sequence[str]]:
        """(manifest, how its blobs come, further blobs to keep) of one image of an archive."""
        if not content.digest:
            directory = await self._fetcher.unpack(archive, file, content, place)

            async def take(blob: Blob) -> None:
                await aside(self._files.take, directory / blob.digest[7:], blob)

            return await aside((directory / "manifest.json").read_bytes), take, []
        try:
            layout = await aside(OciLayout, file)
            raw, extra = await aside(layout.read, content.digest), []
            if image_manifest.digest_of(raw) != content.digest:
                raise WrongBlob(f"{content.digest[:19]} came as {image_manifest.digest_of(raw)[:19]}")
            if image_manifest.is_index(raw):
                chosen = image_manifest.choose(raw)
                if chosen is None:
                    has = ", ".join(image_manifest.platforms(raw)) or "none"
                    raise bad_archive(archive, f"it has no image for this machine; it has {has}")
                await hold(self._files.blob(content.digest))
                await aside(self._files.put, raw)
                raw, extra = await aside(layout.read, chosen), [content.digest]
                if image_manifest.digest_of(raw) != chosen:
                    raise WrongBlob(f"{chosen[:19]} came as {image_manifest.digest_of(raw)[:19]}")
        except (WrongBlob, BadManifest, tarfile.TarError) as error:
            raise bad_archive(archive, str(error)) from error

        async def copy(blob: Blob) -> None:
            if not self._files.has(blob):
                unfinished = place / blob.digest[7:]
                await aside(layout.copy, blob, unfinished)
                await aside(self._files.take, unfinished, blob)

        return raw, copy, extra

    async def import_rootfs(self, tar: Path, name: str, config: Mapping[str, Any], progress: Progress) -> ImageInfo:
        reference, wanted = names.parse(name), image_config.check(config)
        await self._catalog.opened()
        report = Report(reference.familiar, [progress])
        report.say("copying")
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
            made = await self._layers.discover(layer, hold, lambda done: report.say("unpacking", done, blob.size))
            document = json.dumps(image_config.document(wanted, (made.diff_id,)), sort_keys=True).encode()
            id_ = image_manifest.digest_of(document)
            written = image_manifest.write(Blob(id_, len(document)), layer)
            await hold(self._files.blob(id_), self._files.blob(image_manifest.digest_of(written)))
            await aside(self._files.put, document)
            await aside(self._files.put, written)
            image = Image(
                image_manifest.digest_of(written),
                [image_manifest.digest_of(written), id_, blob.digest],
                [made.diff_id],
                platform=image_config.platform_of(document),
            )
            await self._installer.commit(id_, image, {made.diff_id: made.size}, [reference], "")
        report.say("done", blob.size, blob.size)
        return info(await self._catalog.opened(), id_)

    # forgetting images ------------------------------------------------------------------------------------------------

    async def remove(self, image: str, in_use: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
        gone, freed, id_ = await self._catalog.remove(image, in_use)
        if id_ is not None:
            self._configs.pop(id_, None)
        return tuple(sorted(names.parse(name).familiar for name in gone)), freed
