"""A volume as one file: a tar, zstd-compressed, of its manifest, its content below data/, and an end that counts it.

Containers may be at work in it (kit/treepack.py). Sockets, device nodes and mounts are left out. Numbers of owners are
those inside the container.
"""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import tarfile
from threading import Event
from typing import IO

from agent.kit import zstd
from agent.kit.errors import Temporary
from agent.kit.treepack import TreePacker
from agent.ports import BackedUp, VolumeInfo
from agent.volumes import manifest

MANIFEST, DATA, END = "gorae-volume.json", "data", "gorae-volume.end"


def pack(content: int, info: VolumeInfo, target: int, stop: Event) -> BackedUp:
    """The directory `content` (a readable descriptor) into the file `target`. Temporary disk-full, cancelled."""
    with subprocess.Popen(zstd.COMMAND, stdin=subprocess.PIPE, stdout=target, stderr=subprocess.PIPE) as packing:
        assert packing.stdin is not None and packing.stderr is not None
        try:
            packer = Packer(packing.stdin, stop)
            packer.all(content, info)
            packing.stdin.close()
            complaint = packing.stderr.read().decode(errors="replace")
        except BrokenPipeError:
            complaint = packing.stderr.read().decode(errors="replace")
        except BaseException:
            packing.kill()
            raise
    if packing.returncode == 0:
        return packer.counts
    if "No space left" in complaint:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise Temporary(
        f"cannot back up volume {info.name}: {complaint.strip() or 'zstd ended'}",
        code="backup-failed",
        hint="gorae doctor",
    )


class Packer:
    """A volume has one device: what is mounted in it is another's."""

    def __init__(self, sink: IO[bytes], stop: Event) -> None:
        self.counts = BackedUp()
        self._sink, self._stop = sink, stop

    def all(self, content: int, info: VolumeInfo) -> None:
        device = os.fstat(content).st_dev
        with tarfile.open(mode="w|", fileobj=self._sink, format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            tree = TreePacker(tar, self._go_on, lambda _, found: found.st_dev == device, xattrs=True)
            _text(tar, MANIFEST, manifest.dump(info))
            tree.top(content, DATA)
            self.counts = BackedUp(tree.counts.entries, tree.counts.bytes, tree.counts.changed, tree.counts.skipped)
            _text(tar, END, json.dumps({"entries": tree.counts.entries, "bytes": tree.counts.bytes}).encode())

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Temporary("cannot finish the backup: nobody waits for it any more", code="cancelled")


def _text(tar: tarfile.TarFile, name: str, text: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text), 0o600
    tar.addfile(entry, io.BytesIO(text))
