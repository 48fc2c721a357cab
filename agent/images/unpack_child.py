"""Unpacks one layer, as a process of its own, shut into the directory it fills. layers.py runs it, nothing imports it.

    python -m agent.images.unpack_child DIRECTORY COMPRESSION LIMITS-JSON < blob

It enters a mount namespace whose only root is DIRECTORY before it reads a byte, so no entry (absolute names, "..",
symlinks, hard links, whiteouts through them) has anything outside to point at; and it gives up every capability that
unpacking does not need. Standard output: lines {"read": bytes of the blob so far}, last {"diff_id", "size", "entries"}
or {"error": "bad-layer" | "layer-too-big" | "no-space" | "io", "why"}.

After shut_in() nothing may be imported: the module search path would lead into the layer.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import resource
import signal
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from agent.images.layer_writer import LayerTooBig, LayerWriter, Limits, NoSpace
from agent.images.tarfields import BadTar
from agent.images.tarstream import TarStream
from agent.kit import syscalls

CHUNK = 1 << 20
GZIP_CHUNK = 64 << 10  # of the blob: zlib copies what follows at each member's end, and a member may be 20 bytes
REPORT_EVERY = 16 << 20  # bytes of the blob

# linux/capability.h. SYS_ADMIN is what writing trusted.overlay.* costs.
_KEEP = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "SYS_ADMIN": 21, "MKNOD": 27, "SETFCAP": 31}


def shut_in(directory: str) -> None:
    """Make `directory` the root of this process, with nothing else mounted. pivot_root(2), "pivot_root(., .)"."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.chdir(directory)
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(directory, directory, None, syscalls.MS_BIND)
    os.chdir(directory)
    if libc.pivot_root(b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root", directory)
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    keep = sum(1 << number for number in _KEEP.values())
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    low, high = keep & 0xFFFFFFFF, keep >> 32
    if libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    sys.path.clear()
    sys.path_importer_cache.clear()
    os.umask(0)


class Source:
    """The decompressed stream of standard input, hashed; a second thread reads, inflates and hashes ahead."""

    def __init__(self, compression: str, limit: int) -> None:
        self._gunzip = Gunzip() if compression == "gzip" else None
        self._limit = limit
        self._ready: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._room = threading.Semaphore(8)
        self._digest = hashlib.sha256()
        self._count = 0
        threading.Thread(target=self._run, daemon=True).start()

    def read(self, _: int) -> bytes:
        """The next piece, of any size; b"" at the end."""
        piece = self._ready.get()
        if isinstance(piece, Exception):
            raise piece
        self._room.release()
        return piece

    def diff_id(self) -> str:
        """After read() has returned b""."""
        return "sha256:" + self._digest.hexdigest()

    def _run(self) -> None:
        try:
            taken = reported = 0
            while raw := os.read(0, GZIP_CHUNK if self._gunzip else CHUNK):
                taken += len(raw)
                if taken - reported >= REPORT_EVERY:
                    reported = taken
                    say({"read": taken})
                for piece in self._gunzip.feed(raw) if self._gunzip else (raw,):
                    self._put(piece)
            if self._gunzip:
                self._gunzip.close()
            self._ready.put(b"")
        except (OSError, zlib.error, BadTar, LayerTooBig, MemoryError) as error:
            self._ready.put(error)

    def _put(self, piece: bytes) -> None:
        self._count += len(piece)
        if self._count > self._limit:
            raise LayerTooBig(f"it unpacks to more than {self._limit >> 20} MiB")
        self._room.acquire()
        self._digest.update(piece)
        self._ready.put(piece)


class Gunzip:
    """gzip of several members (RFC 1952), in pieces of at most CHUNK bytes however well it was packed."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, raw: bytes) -> Iterator[bytes]:
        while raw:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            piece = self._member.decompress(raw, CHUNK)
            while piece:
                yield piece
                if len(piece) < CHUNK or self._member.eof:
                    break
                piece = self._member.decompress(self._member.unconsumed_tail, CHUNK)
            raw = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def close(self) -> None:
        if not self._member.eof:
            raise BadTar("its gzip stream ends too early")


def unpack(compression: str, limits: Limits) -> dict[str, Any]:
    source = Source(compression, limits.unpacked)
    tar = TarStream(source.read)
    writer = LayerWriter(limits)
    for entry in tar:
        writer.add(entry, tar.data())
    writer.finish()
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    if libc.syncfs(root) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")
    return {"diff_id": source.diff_id(), "size": writer.size, "entries": writer.entries}


def say(document: dict[str, Any]) -> None:
    os.write(1, json.dumps(document).encode() + b"\n")  # one write: two threads speak


def main(
    directory: str, compression: str, limits: str, *, unpack: Callable[[str, Limits], dict[str, Any]] = unpack
) -> int:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.setswitchinterval(0.0005)  # the reader's pieces should not wait 5 ms for the interpreter lock
    try:
        allowed = Limits(**json.loads(limits))
        shut_in(directory)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed.memory, allowed.memory))
        say(unpack(compression, allowed))
        return 0
    except (BadTar, zlib.error) as error:
        say({"error": "bad-layer", "why": str(error)})
    except LayerTooBig as error:
        say({"error": "layer-too-big", "why": str(error)})
    except MemoryError:
        say({"error": "layer-too-big", "why": f"its names and headers take more than {allowed.memory >> 20} MiB"})
    except NoSpace as error:
        say({"error": "no-space", "needed": error.needed, "free": error.free})
    except OSError as error:
        kind = "no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "io"
        say({"error": kind, "why": f"{error.filename or error.args[-1]}: {os.strerror(error.errno or 0)}"})
    return 1


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:4]))  # no clean-up of Python's: it would wait for the reader thread
