"""Manifests, Docker's and OCI's, as the registry wrote them: what they name. Pure; every field is checked.

OCI image-spec manifest.md and image-index.md; Docker image manifest version 2, schema 2. Schema 1 is refused: it has no
config, and registries have stopped serving it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import dataclass
from typing import Any, Literal

from agent.images.config import ARCHITECTURES

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIGS = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
_LAYERS: dict[str, Literal["plain", "gzip", "zstd"]] = {
    OCI_LAYER: "plain",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "plain",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
LIMIT = 4 << 20  # bytes of a manifest or config


class BadManifest(ValueError):
    """Not a manifest of a runnable image; the text says why."""


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Layer:
    blob: Blob
    compression: Literal["plain", "gzip", "zstd"]  # as the manifest says; the bytes may differ (blobs.compression)


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Blob
    layers: tuple[Layer, ...]  # lowest first

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return (self.config, *(layer.blob for layer in self.layers))


def digest_of(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def parse(raw: bytes) -> Manifest:
    document = _object(raw)
    if "config" not in document or not isinstance(document.get("layers"), list):
        raise BadManifest("it is not the manifest of one image")
    if _media_type(document["config"]) not in _CONFIGS:
        raise BadManifest("it is not a container image")
    layers = []
    for layer in document["layers"]:
        compression = _LAYERS.get(_media_type(layer))
        if compression is None:
            raise BadManifest(f"a layer of type {_media_type(layer)!r}")
        layers.append(Layer(_blob(layer), compression))
    config = _blob(document["config"])
    if config.size > LIMIT:
        raise BadManifest(f"a config of {config.size} bytes")
    return Manifest(config, tuple(layers))


def is_index(raw: bytes) -> bool:
    """A list of manifests, one per platform."""
    return isinstance(_object(raw).get("manifests"), list)


def choose(raw: bytes, wanted: str = "") -> str | None:
    """The digest of the index's manifest for a platform (OS/ARCH[/VARIANT] in Go's names; "" for this machine's); None
    when it has none."""
    wanted = wanted or f"linux/{ARCHITECTURES.get(platform.machine(), platform.machine())}"
    for entry in _object(raw)["manifests"]:
        own = _platform(entry)
        if own and (own == wanted or own.startswith(wanted + "/")):
            return _blob(entry).digest
    return None


def platforms(raw: bytes) -> list[str]:
    """Of an index; attestations, which say unknown, left out."""
    found = {_platform(entry) for entry in _object(raw)["manifests"]}
    return sorted(own for own in found if own and "unknown" not in own)


def _platform(entry: Any) -> str:
    place = entry.get("platform") if isinstance(entry, dict) else None
    if not isinstance(place, dict):
        return ""
    words = [place.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(word[:40] for word in words if isinstance(word, str) and word)


def write(config: Blob, layer: Layer) -> bytes:
    """The OCI manifest of an imported image; the same input gives the same bytes."""
    suffix = "" if layer.compression == "plain" else f"+{layer.compression}"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": OCI_LAYER + suffix, "digest": layer.blob.digest, "size": layer.blob.size}],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _object(raw: bytes) -> dict[str, Any]:
    if len(raw) > LIMIT:
        raise BadManifest("it is too long")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadManifest("it is not JSON") from error
    if not isinstance(document, dict):
        raise BadManifest("it is not a JSON object")
    return document


def _media_type(descriptor: Any) -> str:
    found = descriptor.get("mediaType") if isinstance(descriptor, dict) else None
    return found if isinstance(found, str) else ""


def _blob(descriptor: Any) -> Blob:
    digest, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BadManifest(f"a digest that is not sha256: {str(digest)[:80]}")
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise BadManifest("a blob without a size")
    return Blob(digest, size)
