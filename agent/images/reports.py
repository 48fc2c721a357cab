"""Progress of one image, as everyone who waits for it hears it: steps of the whole, and each layer on its own.

{"image", "step", "done", "total"}, bytes; with "layer" (12 hex digits) it is about that layer alone; step "again" says
in "note" why, and that what failed is tried once more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from agent.images.manifest import Blob
from agent.kit.clock import Clock
from agent.ports import Progress

EVERY = 0.25  # seconds between two looks at what has arrived


class Report:
    def __init__(self, image: str, listeners: Sequence[Progress]) -> None:
        self._image = image
        self._listeners = listeners
        self._last: dict[str, tuple[str, int]] = {}
        self._read: dict[str, int] = {}

    def say(self, step: str, done: int = 0, total: int = 0, **more: str) -> None:
        for listener in tuple(self._listeners):
            listener({"image": self._image, "step": step, "done": done, "total": total, **more})

    def layer(self, step: str, blob: Blob, done: int) -> None:
        """Only what is new."""
        if self._last.get(blob.digest) != (step, done):
            self._last[blob.digest] = (step, done)
            self.say(step, done, blob.size, layer=blob.digest[7:19])

    def unpacked(self, blob: Blob, count: int, total: int) -> None:
        """So much of a layer's blob was read; the image's sum is told, too."""
        self._read[blob.digest] = count
        self.layer("unpacking", blob, count)
        self.say("unpacking", sum(self._read.values()), total)

    def again(self, number: int, wait: float, why: str) -> None:
        self.say("again", number, 0, note=f"{why}; try {number} in {wait:.0f} s")

    @contextlib.asynccontextmanager
    async def watching(self, blobs: Sequence[Blob], arrived: Mapping[str, int], clock: Clock) -> AsyncIterator[None]:
        """Tell of these blobs while they come, whoever fetches them."""
        here: dict[str, int] = {}
        total = sum(blob.size for blob in blobs)

        async def watch() -> None:
            while True:
                for blob in blobs:
                    count = arrived.get(blob.digest)
                    if count is not None and count != here.get(blob.digest):
                        here[blob.digest] = count
                        self.layer("pulling", blob, count)
                done = sum(here.values())
                if done:
                    self.say("pulling", min(done, total), total)
                await clock.sleep(EVERY)

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])
