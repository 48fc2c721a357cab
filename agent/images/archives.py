"""What an archive holds, read from its own table of contents; skopeo then copies each image out. Blocking: in a thread.

docker-archive: manifest.json (a list of {Config, RepoTags, Layers}); what `docker save` writes. OCI archive or layout:
index.json, image-layout.md. An archive with both is read as Docker's, whose names are whole.
"""

from __future__ import annotations

import json
import stat
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.images.errors import bad_archive, bad_name
from agent.images.names import parse
from agent.kit.errors import UserError

_LIMIT = 4 << 20  # bytes of a table of contents
_MEMBERS = 200_000  # looked at before giving up
_REF = "org.opencontainers.image.ref.name"
_CONTAINERD = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Content:
    """One image. `transport` and `selector` name it for skopeo: TRANSPORT:PATH[:SELECTOR]."""

    transport: str
    selector: str
    names: tuple[str, ...]  # as written in the archive; may be empty


def read(archive: Path) -> list[Content]:
    """UserError bad-archive with the reason."""
    try:
        mode = archive.stat().st_mode
        if stat.S_ISDIR(mode):
            return _oci(archive, "oci", json.loads((archive / "index.json").read_bytes()[:_LIMIT]))
        if not stat.S_ISREG(mode):
            raise bad_archive(archive, "it is not a regular file")
        tables = _tables(archive)
        if "manifest.json" in tables:
            return _docker(archive, tables["manifest.json"])
        if "index.json" in tables:
            return _oci(archive, "oci-archive", tables["index.json"])
    except OSError as error:
        raise bad_archive(archive, error.strerror or str(error)) from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise bad_archive(archive, "it is not a tar archive, or ends too early") from error
    except (ValueError, RecursionError) as error:
        raise bad_archive(archive, f"its table of contents is malformed ({error})") from error
    raise bad_archive(archive, "it holds neither manifest.json nor index.json")


def _tables(archive: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tarfile.open(archive, "r:*") as tar:
        for count, member in enumerate(tar):
            name = member.name.removeprefix("./")
            if name in ("manifest.json", "index.json") and member.isfile() and member.size <= _LIMIT:
                content = tar.extractfile(member)
                if content is not None:
                    found[name] = json.loads(content.read())
            if "manifest.json" in found or count > _MEMBERS:
                break
    return found


def _docker(archive: Path, table: Any) -> list[Content]:
    if not isinstance(table, list) or not table:
        raise bad_archive(archive, "its manifest.json lists no image")
    found = []
    for number, image in enumerate(table):
        tags = image.get("RepoTags") if isinstance(image, dict) else None
        names = tuple(_usable(tag) for tag in tags or [] if isinstance(tag, str))
        found.append(Content("docker-archive", f"@{number}", names))
    return found


def _oci(archive: Path, transport: str, table: Any) -> list[Content]:
    entries = table.get("manifests") if isinstance(table, dict) else None
    if not isinstance(entries, list) or not entries:
        raise bad_archive(archive, "its index.json lists no image")
    found = []
    for entry in entries:
        notes = (entry.get("annotations") if isinstance(entry, dict) else None) or {}
        ref = notes.get(_REF) if isinstance(notes, dict) else None
        name = (notes.get(_CONTAINERD) if isinstance(notes, dict) else None) or ref
        if len(entries) > 1 and not isinstance(ref, str):
            raise bad_archive(archive, "it holds several images, and not all have a name")
        names = (_usable(name),) if isinstance(name, str) and _is_name(name) else ()
        found.append(Content(transport, ref if len(entries) > 1 and isinstance(ref, str) else "", names))
    return found


def _is_name(text: str) -> bool:
    """OCI's ref.name is often a bare tag ("latest", "1.2"), which names nothing."""
    if not any(mark in text for mark in ":/@"):
        return False
    try:
        parse(text)
    except UserError:
        return False
    return True


def _usable(name: str) -> str:
    """`name`, if it may be one in our store: with a tag."""
    if parse(name).digest:
        raise bad_name(name, "an archive may only give tags")
    return name
