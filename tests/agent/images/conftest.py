"""A real store in a directory of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.images.layer_writer import Limits
from agent.images.store import ImageStore
from agent.kit.layout import Layout
from tests.support.images import MadeImage, docker_archive, image


@dataclass
class Shop:
    """A store, and what a test needs around it."""

    root: Path
    said: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images = self.root / "state" / "images"
        self.store = self.open()

    def open(self, limits: Limits | None = None) -> ImageStore:
        """A store as the next start of the agent sees it."""
        return ImageStore(Layout.at(self.root), limits=limits)

    def layer(self, diff_id: str) -> Path:
        return self.images / "layers" / diff_id[7:]

    def archive(self, made: MadeImage, *tags: str) -> Path:
        return docker_archive(self.root / f"{made.id[7:19]}.tar", [(made, tags)])

    async def load(self, *layers: bytes, name: str = "made:1", **config: Any) -> MadeImage:
        made = image(*layers, docker=True, compression="plain", config=config or None)
        await self.store.load(self.archive(made, name), None, self.said.append)
        return made

    def files(self) -> set[str]:
        """Everything in the store but the index: blobs/HEX, layers/HEX, tmp/…"""
        found = [*self.images.glob("blobs/sha256/*"), *self.images.glob("layers/*"), *self.images.glob("tmp/*")]
        return {str(path.relative_to(self.images)) for path in found}


@pytest.fixture
def shop() -> Iterator[Shop]:
    root = Path(tempfile.mkdtemp(prefix="g-images-", dir="/tmp"))
    yield Shop(root)
    shutil.rmtree(root)
