"""What the store holds and by which names: one small JSON file, replaced atomically. The blobs and layers it names are
all there; what it does not name may be deleted. Write it after adding files, and before deleting them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1


@dataclass(slots=True)
class Image:
    """By id, the config's digest."""

    manifest: str  # digest
    blobs: list[str]  # digests: manifest, config, layers as they came, the index it was chosen from
    layers: list[str]  # diff ids, as the config lists them
    created: str = ""
    platform: str = ""  # OS/ARCH[/VARIANT], of the config
    stack: list[str] = field(default_factory=list)  # layers as overlayfs is to see them; [] as listed (mending.py)


@dataclass(slots=True)
class Name:
    """By full name. digest: what the registry calls it, "" when it came from no registry."""

    id: str
    digest: str = ""
    at: float = 0.0  # Unix seconds: when it was given, or last found to be what the registry has


@dataclass(slots=True)
class Index:
    images: dict[str, Image] = field(default_factory=dict)
    names: dict[str, Name] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # diff id → bytes unpacked
    used: dict[str, float] = field(default_factory=dict)  # id → Unix seconds when it last came or was wanted

    def names_of(self, id_: str) -> list[str]:
        return sorted(name for name, target in self.names.items() if target.id == id_)

    def size(self, id_: str) -> int:
        return sum(self.sizes.get(layer, 0) for layer in set(self.images[id_].layers))

    def find(self, wanted: str) -> list[str]:
        """Ids that begin with `wanted` ("sha256:…", or at least 6 hexadecimal digits)."""
        hexadecimal = wanted.removeprefix("sha256:")
        if len(hexadecimal) < 6 or not set(hexadecimal) <= set("0123456789abcdef"):
            return []
        return [id_ for id_ in self.images if id_.startswith("sha256:" + hexadecimal)]


def load(path: Path) -> Index:
    """OSError; ValueError when it is not ours: then it must not be overwritten."""
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"{path} is not an image index of version {VERSION}")
    return Index(
        images={id_: Image(**image) for id_, image in document["images"].items()},
        names={name: Name(**target) for name, target in document["names"].items()},
        sizes=dict(document["sizes"]),
        used=dict(document.get("used", {})),
    )


def save(index: Index, path: Path) -> None:
    """Durable when it returns."""
    kept = {layer for image in index.images.values() for layer in image.layers}
    document: dict[str, Any] = {"version": VERSION, **asdict(index)}
    document["sizes"] = {layer: size for layer, size in index.sizes.items() if layer in kept}
    unfinished = path.with_suffix(".new")
    with unfinished.open("w") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directories([path.parent])


def sync_directories(directories: Iterable[Path]) -> None:
    """Make renames in them durable, fsync(2)."""
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
