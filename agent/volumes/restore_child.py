"""Unpacks the content of a backup, as a process of its own, shut into the directory it fills, as layers are unpacked
(agent/images/unpack_child.py). archive.py runs it, nothing imports it.

    python -m agent.volumes.restore_child DIRECTORY plain LIMITS-JSON < tar
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Iterable
from typing import Any

from agent.images.layer_writer import LayerWriter, Limits
from agent.images.tarfields import BadTar
from agent.images.tarstream import DIRECTORY, FILE, HARDLINK, Entry, TarStream
from agent.images.unpack_child import Source, main

_MANIFEST, _DATA, _END = b"gorae-volume.json", b"data", b"gorae-volume.end"  # pack.py
_ACCESS, _DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_SMALL = 1 << 20


class VolumeWriter(LayerWriter):
    """A file named .wh.x is a file here, and access lists mean something; a directory's default list is set last, or
    what is unpacked into it would inherit it. A backup names every directory before what is in it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._defaults: list[tuple[bytes, bytes]] = []

    def _add(self, path: bytes, entry: Entry, data: Iterable[bytes | memoryview]) -> None:
        if path:
            self._put(path, entry, data)
        else:
            super()._add(path, entry, data)
        if entry.kind in (FILE, DIRECTORY) and (access := entry.xattrs.get(_ACCESS)):
            os.setxattr(path or b".", _ACCESS, access)
        if entry.kind == DIRECTORY and (default := entry.xattrs.get(_DEFAULT)):
            self._defaults.append((path or b".", default))

    def finish(self) -> None:
        for path, value in self._defaults:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.setxattr(path, _DEFAULT, value, follow_symlinks=False)
        super().finish()


def restore(compression: str, limits: Limits) -> dict[str, Any]:
    """Only a stream whose end counts what came before is whole."""
    source = Source(compression, limits.unpacked)
    tar, writer, count, end = TarStream(source.read), VolumeWriter(limits), 0, -1
    for entry in tar:
        if end >= 0:
            raise BadTar("something follows its end")
        if entry.name == _END:
            end = _count(b"".join(bytes(piece) for piece in tar.data()) if entry.size < _SMALL else b"")
        elif entry.name != _MANIFEST:
            entry.name = _below(entry.name)
            if entry.kind == HARDLINK:
                entry.link = _below(entry.link)
            writer.add(entry, tar.data())
            count += 1
    writer.finish()
    if end != count:
        raise BadTar("it is cut off" if end < 0 else f"its end counts {end} entries, and it has {count}")
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    if libc.syncfs(root) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")
    return {"entries": writer.entries, "bytes": writer.size}


def _below(name: bytes) -> bytes:
    top, slash, rest = name.partition(b"/")
    if top != _DATA:
        raise BadTar(f"an entry that is not below data/: {name[:80]!r}")
    return rest if slash else b"."


def _count(text: bytes) -> int:
    try:
        return int(json.loads(text)["entries"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadTar("its end cannot be read") from error


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:4], unpack=restore))
