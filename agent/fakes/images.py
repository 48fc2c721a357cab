"""Images kept in memory, for tests of everything that runs containers. No file system, no registry, no root.

`registry` is what pull() finds, `add` puts an image straight into the store. Names and errors are the real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.images import config as image_config
from agent.images import names
from agent.images.auth import NONE, Keys
from agent.images.errors import bad_archive, image_in_use, image_missing, not_in_registry
from agent.ports import ImageConfig, ImageInfo, Progress, Resolved, Wanted


class FakeImages:
    def __init__(self) -> None:
        self.registry: dict[str, dict[str, Any]] = {}  # full name → config document that pull() finds
        self.images: dict[str, ImageConfig] = {}
        self.names: dict[str, str] = {}  # full name → image id
        self.published: dict[str, str] = {}  # full name → a digest that is newer than what was pulled
        self.digests: dict[str, str] = {}  # full name → what its registry calls it, where it came from one
        self.archives: dict[Path, Sequence[tuple[str, dict[str, Any]]]] = {}  # what load() finds: (name, config)
        self.failures: list[Exception] = []  # raised by the next pulls, first to last

    def add(self, name: str, **config: Any) -> ImageConfig:
        """Docker-style keys (Cmd, Entrypoint, Env, …): the image as the store will know it."""
        return self._put(names.parse(name).full, config, "")

    async def config(self, image: str) -> ImageConfig:
        return self.images[self._id(image)]

    async def ensure(self, want: Wanted, progress: Progress, keys: Keys = NONE) -> Resolved:
        full = names.parse(want.name).full
        if want.id in self.images and want.policy in ("missing", "never"):
            return Resolved(want.id, want.digest)
        if full not in self.names or want.policy == "always":
            if want.policy == "never":
                raise image_missing(want.name)
            await self.pull(want.name, progress, want.platform, keys)
        return Resolved(self.names[full], self.digests.get(full, ""))

    async def pull(self, name: str, progress: Progress, platform: str = "", keys: Keys = NONE) -> ImageInfo:
        reference = names.parse(name)
        if self.failures:
            raise self.failures.pop(0)
        if reference.full not in self.registry:
            raise not_in_registry(reference.familiar, "manifest unknown")
        progress({"image": reference.familiar, "step": "pulling", "done": 0, "total": 1})
        image = self._put(reference.full, self.registry[reference.full], "")
        self.digests[reference.full] = "sha256:" + hashlib.sha256(image.id.encode()).hexdigest()
        progress({"image": reference.familiar, "step": "done", "done": 1, "total": 1})
        return self._info(image.id)

    async def latest(self, name: str, keys: Keys = NONE, platform: str = "") -> str:
        reference = names.parse(name)
        if reference.full not in self.registry:
            raise not_in_registry(reference.familiar, "manifest unknown")
        return self.published.get(reference.full) or self.digests[reference.full]

    async def load(self, archive: Path, name: str | None, progress: Progress) -> Sequence[ImageInfo]:
        if archive not in self.archives:
            raise bad_archive(archive, "no such file")
        found = []
        for own, config in self.archives[archive]:
            found.append(self._put(names.parse(name or own).full, config, "").id)
            progress({"image": name or own, "step": "done", "done": 1, "total": 1})
        return [self._info(image) for image in found]

    async def import_rootfs(self, tar: Path, name: str, config: Mapping[str, Any], progress: Progress) -> ImageInfo:
        reference = names.parse(name)
        if not tar.is_file():
            raise bad_archive(tar, "no such file")
        image = self._put(reference.full, image_config.check(config), hashlib.sha256(tar.read_bytes()).hexdigest())
        progress({"image": reference.familiar, "step": "done", "done": 1, "total": 1})
        return self._info(image.id)

    async def list(self) -> Sequence[ImageInfo]:
        return sorted((self._info(image) for image in self.images), key=lambda info: (info.names, info.id))

    async def remove(self, image: str, in_use: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
        id_ = self._id(image)
        own = [name for name, target in self.names.items() if target == id_]
        gone = own if image.startswith("sha256:") or len(own) == 0 else [names.parse(image).full]
        if set(gone) >= set(own):
            if id_ in in_use:
                raise image_in_use(image, in_use[id_])
            del self.images[id_]
        for name in gone:
            del self.names[name]
        return tuple(sorted(names.parse(name).familiar for name in gone)), 1 if set(gone) >= set(own) else 0

    def _id(self, image: str) -> str:
        found = image if image in self.images else self.names.get(names.parse(image).full)
        if found is None:
            raise image_missing(image)
        return found

    def _put(self, full: str, config: Mapping[str, Any], salt: str) -> ImageConfig:
        layer = "sha256:" + hashlib.sha256(b"layer" + salt.encode()).hexdigest()
        document = image_config.document(config, (layer,))
        raw = json.dumps(document, sort_keys=True).encode()
        image = image_config.parse("sha256:" + hashlib.sha256(raw).hexdigest(), raw)
        self.images[image.id] = image
        self.names[full] = image.id
        return image

    def _info(self, image: str) -> ImageInfo:
        own = tuple(sorted(names.parse(name).familiar for name, target in self.names.items() if target == image))
        return ImageInfo(id=image, names=own, digests=(), size=1, layers=len(self.images[image].layers))
