"""Archives of images: docker-archive (`docker save`, as every Docker reads it) and oci-archive. Blocking: in a thread.

Ids and manifest digests stay what they are. An oci-archive holds blobs byte for byte, Docker's media types among them;
a docker-archive has no manifests, and its layers are not packed: their digests are the diff ids.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from agent.images import manifest as image_manifest
from agent.images.archives import unpacked
from agent.images.blobs import Files
from agent.images.errors import bad_image
from agent.images.names import parse

Format = Literal["docker-archive", "oci-archive"]
_CHUNK = 1 << 20
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Saved:
    """One image: its id, the digest of its manifest, the diff ids of its layers, the full names it is saved under."""

    id: str
    manifest: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


def write(files: Files, images: Sequence[Saved], form: Format, out: IO[bytes], work: Path) -> None:
    """The archive into `out`, which need not be seekable. Permanent bad-image when the store's copy is broken."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        if form == "oci-archive":
            _oci(files, images, tar)
        else:
            _docker(files, images, tar, work)


def _oci(files: Files, images: Sequence[Saved], tar: tarfile.TarFile) -> None:
    _put(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    entries: list[dict[str, Any]] = []
    digests: dict[str, None] = {}
    for image in images:
        raw = files.blob(image.manifest).read_bytes()
        media = json.loads(raw).get("mediaType") or image_manifest.OCI_MANIFEST
        digests |= dict.fromkeys((image.manifest, *(blob.digest for blob in image_manifest.parse(raw).blobs)))
        entry = {"mediaType": media, "digest": image.manifest, "size": len(raw)}
        notes = [
            {"org.opencontainers.image.ref.name": parse(name).familiar, "io.containerd.image.name": name}
            for name in image.names
        ]
        entries += [{**entry, "annotations": note} for note in notes] or [entry]
    for digest in digests:
        path = files.blob(digest)
        with path.open("rb") as blob:
            _add(tar, f"blobs/sha256/{digest[7:]}", blob, path.stat().st_size)
    _put(tar, "index.json", json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}).encode())


def _docker(files: Files, images: Sequence[Saved], tar: tarfile.TarFile, work: Path) -> None:
    table = []
    there: set[str] = set()
    for image in images:
        parsed = image_manifest.parse(files.blob(image.manifest).read_bytes())
        for diff_id, layer in zip(image.layers, parsed.layers, strict=True):
            if diff_id not in there:
                there.add(diff_id)
                _layer(files.blob(layer.blob.digest), diff_id, tar, work)
        config = f"{image.id[7:]}.json"
        if config not in there:
            there.add(config)
            _put(tar, config, files.blob(image.id).read_bytes())
        layers = [f"{diff_id[7:]}/layer.tar" for diff_id in image.layers]
        table.append(
            {"Config": config, "RepoTags": [parse(name).familiar for name in image.names] or None, "Layers": layers}
        )
    _put(tar, "manifest.json", json.dumps(table).encode())


def _layer(blob: Path, diff_id: str, tar: tarfile.TarFile, work: Path) -> None:
    """A tar's header says how long a member is: known of a packed layer only when it has been unpacked."""
    digest = hashlib.sha256()
    plain = work / "layer.tar"
    with unpacked(blob) as source, plain.open("wb") as out:
        while piece := source.read(_CHUNK):
            digest.update(piece)
            out.write(piece)
    if "sha256:" + digest.hexdigest() != diff_id:
        raise bad_image(diff_id[:19], "the layer in the store is broken; gorae image fsck")
    with plain.open("rb") as content:
        _add(tar, f"{diff_id[7:]}/layer.tar", content, plain.stat().st_size)
    plain.unlink()


def _put(tar: tarfile.TarFile, name: str, raw: bytes) -> None:
    _add(tar, name, io.BytesIO(raw), len(raw))


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    """No date and no owner: the same images give the same archive."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    tar.addfile(member, content)


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
