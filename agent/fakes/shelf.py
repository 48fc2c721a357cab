"""What is done with images that are here, on the images of FakeImages: no files behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from agent.fakes.images import FakeImages
from agent.images import names
from agent.ports import GcRule, ImageInfo, Progress, StoreCheck, StoreProblem


class FakeShelf:
    """`problems`: what check() finds. `rules`: what collect() was asked for, with whom to keep."""

    def __init__(self, images: FakeImages) -> None:
        self._images = images
        self.problems: list[StoreProblem] = []
        self.rules: list[tuple[frozenset[str], GcRule, bool]] = []

    async def inspect(self, image: str) -> dict[str, Any]:
        found = await self._images.config(image)
        return {"id": found.id, "config": {"Cmd": list(found.command)}, "history": [], "layers": []}

    async def tag(self, image: str, name: str) -> ImageInfo:
        found = await self._images.config(image)
        self._images.names[names.parse(name).full] = found.id
        return next(info for info in await self._images.list() if info.id == found.id)

    async def save(self, images: Sequence[str], form: Literal["docker-archive", "oci-archive"]) -> AsyncIterator[bytes]:
        ids = [(await self._images.config(image)).id for image in images]
        for id_ in ids:
            yield f"{form} {id_}\n".encode()

    async def usage(self, in_use: Collection[str]) -> dict[str, Any]:
        unused = [id_ for id_ in self._images.images if id_ not in in_use]
        layers = ("layers", "layer_count", "layers_unused", "layers_reclaimable")
        sizes = dict.fromkeys(("blobs", *layers, "reclaimable", "free", "total"), 0)
        return {"images": len(self._images.images), "unused": len(unused), "unnamed": 0, **sizes}

    async def collect(self, keep: Collection[str], rule: GcRule, *, dry: bool = False) -> tuple[list[str], int]:
        self.rules.append((frozenset(keep), rule, dry))
        gone = [id_ for id_ in self._images.images if id_ not in keep]
        for id_ in () if dry else gone:
            del self._images.images[id_]
        return gone, len(gone)

    async def check(self, repair: bool, in_use: Callable[[], Mapping[str, str]], progress: Progress) -> StoreCheck:
        progress({"image": "images", "step": "verifying blobs", "done": 0, "total": 0})
        for problem in self.problems if repair else ():
            problem.done = "removed"
        return StoreCheck(len(self._images.images), 0, 0, 0, self.problems)
