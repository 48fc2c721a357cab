"""The catalogue: the index in memory and on disk, and the deletion of what neither it nor a running operation needs.

All changes happen on the event loop under one lock, and are on disk before they are seen. An operation holds the blobs
and layers it brings or counts on, by path and before they are there, so that a removal at the same time spares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from agent.images import gc
from agent.images import index as image_index
from agent.images.blobs import Files, aside
from agent.images.errors import image_in_use, image_missing, no_space
from agent.images.index import Image, Index, Name
from agent.images.layers import Hold
from agent.images.lookup import find, named, shown
from agent.images.names import Reference
from agent.kit import trees
from agent.kit.errors import Permanent
from agent.ports import GcRule

_TOUCHED = 3600.0  # seconds
_COMMITTED = 15.0  # seconds in which an `up` whose images are here becomes an assignment


class Catalog:
    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = asyncio.Lock()  # over every change of the index and every deletion
        self._index: Index | None = None
        self._wanted: dict[str, float] = {}  # id → Unix seconds, of this life of the agent
        self._held: Counter[Path] = Counter()  # blobs and layers that running operations need

    async def opened(self) -> Index:
        if self._index is None:
            async with self._lock:
                if self._index is None:
                    self._index = await aside(self._open)
        return self._index

    def _open(self) -> Index:
        """Load the index, and delete all that it does not name: what a crash left behind. It is there from the first
        moment: were one that got lost taken for an empty one, the layers below running containers would go."""
        self._files.prepare()
        try:
            if not self._files.index.exists() and not self._files.everything():
                image_index.save(Index(), self._files.index)
            index = image_index.load(self._files.index)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Permanent(
                f"cannot read {self._files.index}: {error}",
                code="image-index",
                hint="restore it from a backup, or move the directory away and pull the images again",
            ) from error
        self._files.clear_tmp()
        self._files.delete(self._files.everything() - self._needed(index))
        return index

    async def commit(
        self,
        id_: str,
        image: Image,
        sizes: Mapping[str, int],
        references: Sequence[Reference],
        digest: str,
        at: float,
    ) -> None:
        """UserError image-missing: it was here when the caller looked, and has been removed since."""
        async with self._lock:
            changed = copy.deepcopy(self._index) if self._index else Index()
            if id_ not in changed.images and not all(self._held[path] for path in self.paths(image)):
                raise image_missing(id_)
            changed.images.setdefault(id_, image)  # the same config by another manifest: the first stays
            changed.sizes.update(sizes)
            changed.used[id_] = at
            for reference in references:
                changed.names[reference.full] = Name(id_, digest, at)
            await self._save(changed)

    async def touch(self, id_: str, at: float) -> bool:
        """The image is wanted; False: it is not here any more. Not written each time: age counts in hours."""
        await self.opened()
        async with self._lock:  # a removal that is under way ends first
            index = self._index or Index()
            if id_ not in index.images:
                return False
            self._wanted[id_] = at
            if at - index.used.get(id_, 0.0) >= _TOUCHED:
                changed = copy.deepcopy(index)
                changed.used[id_] = at
                await self._save(changed)
            return True

    async def remove(self, image: str, in_use: Mapping[str, str]) -> tuple[list[str], int, str | None]:
        """Names removed, bytes freed, and the id if the image itself went: with its last name, or when asked by id.

        UserError image-missing, ambiguous-image, image-in-use.
        """
        await self.opened()
        async with self._lock:
            index = self._index or Index()
            id_ = find(index, image)
            name = None if image in index.images else named(index, image)
            own = index.names_of(id_)
            gone = own if name is None else [name]
            last = len(gone) == len(own)
            if last and id_ in in_use:
                raise image_in_use(image, in_use[id_])
            changed = copy.deepcopy(index)
            for doomed in gone:
                del changed.names[doomed]
            if last:
                del changed.images[id_]
                changed.used.pop(id_, None)
            await self._save(changed)
            if not last:
                return gone, 0, None
            return gone, await self._collect(self.paths(index.images[id_]), index.sizes), id_

    async def collect(self, keep: Collection[str], rule: GcRule, now: float, *, dry: bool) -> tuple[list[str], int]:
        """Remove what the rule allows; the images as people know them, and the bytes freed (of blobs and layers)."""
        async with self._lock:
            index = self._index or Index()
            recent = {id_ for id_, at in self._wanted.items() if now - at < max(rule.young, _COMMITTED)}
            gone = gc.victims(index, {*keep, *recent}, rule, now, self._files.size)
            told = [shown(index, id_) for id_ in gone]
            if dry:
                return told, gc.freed(index, gone, self._files.size)
            return told, await self._drop(gone)

    async def forget(self, ids: Sequence[str]) -> None:
        """Images that are broken, with their names."""
        async with self._lock:
            await self._drop([id_ for id_ in ids if id_ in (self._index or Index()).images])

    async def _drop(self, ids: Sequence[str]) -> int:
        """The lock is held; the bytes that were freed."""
        if not ids:
            return 0
        index = self._index or Index()
        changed = copy.deepcopy(index)
        for id_ in ids:
            del changed.images[id_]
            changed.used.pop(id_, None)
        changed.names = {name: target for name, target in changed.names.items() if target.id in changed.images}
        await self._save(changed)
        return await self._collect({path for id_ in ids for path in self.paths(index.images[id_])}, index.sizes)

    async def strays(self, *, delete: bool) -> list[Path]:
        """Blobs and layers that neither an image nor a running operation needs."""
        async with self._lock:
            keep = self._needed(self._index or Index())
            found = await aside(self._files.everything)
            lost = sorted(path for path in found - keep if not self._held[path])
            if delete:
                await aside(self._files.delete, lost)
            return lost

    async def _save(self, changed: Index) -> None:
        def save() -> None:
            self._files.settle()
            image_index.save(changed, self._files.index)

        await aside(save)
        self._index = changed

    def paths(self, image: Image) -> set[Path]:
        return {*map(self._files.blob, image.blobs), *map(self._files.layer, (*image.layers, *image.stack))}

    def _needed(self, index: Index) -> set[Path]:
        return {path for image in index.images.values() for path in self.paths(image)}

    async def _collect(self, candidates: Iterable[Path], sizes: Mapping[str, int]) -> int:
        """Delete those that no image and no operation needs (the lock is held); the bytes they took."""
        keep = self._needed(self._index or Index())
        doomed = {path for path in candidates if path not in keep and not self._held[path]}
        freed = sum(size for layer, size in sizes.items() if self._files.layer(layer) in doomed)
        return freed + await aside(self._files.delete, doomed)

    @contextlib.asynccontextmanager
    async def working(self, kind: str, what: str) -> AsyncIterator[tuple[Path, Hold]]:
        """A directory for unfinished work, and hold(): what was held and has come to nothing is deleted at the end."""
        mine: set[Path] = set()

        async def hold(*paths: Path) -> None:
            async with self._lock:
                fresh = set(paths) - mine
                mine.update(fresh)
                self._held.update(fresh)

        work = await aside(self._files.work, kind)
        try:
            yield work, hold
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise no_space(what, 0, self._files.free()) from error
            raise Permanent(
                f"cannot store {what}: {error.filename or self._files.root}: {error.strerror}",
                code="image-store",
                hint="gorae doctor",
            ) from error
        finally:
            await aside(trees.delete, work)
            async with self._lock:
                self._held.subtract(mine)
                self._held = +self._held
                await self._collect(mine, {})
