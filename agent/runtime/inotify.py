"""inotify(7), the few lines of it that are needed: a descriptor, watches, events. Nothing here polls."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.kit.errors import Temporary

_libc = ctypes.CDLL(None, use_errno=True)

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = (
    0x2,
    0x4,
    0x8,
    0x40,
    0x80,
    0x100,
    0x200,
    0x400,
)
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_ONESHOT = 0x4000, 0x8000, 0x1000000, 0x80000000


class Inotify:
    """Non-blocking and close-on-exec; give `fd` to add_reader, then take `events`."""

    def __init__(self) -> None:
        """Temporary no-inotify: there is none left for this user."""
        self.fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise Temporary(
                f"cannot watch files: inotify: {os.strerror(ctypes.get_errno())}",
                code="no-inotify",
                hint="sysctl fs.inotify.max_user_instances=1024",
            )

    def watch(self, path: Path, mask: int) -> int:
        """The watch's number; watching the same inode again gives the same one. Raises OSError."""
        number: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        return number

    def events(self) -> Iterator[tuple[int, int, str]]:
        """(watch, mask, name) of everything that is waiting."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        place = 0
        while place < len(data):
            number, mask, _, length = struct.unpack_from("iIII", data, place)
            name = data[place + 16 : place + 16 + length].rstrip(b"\0")
            yield number, mask, os.fsdecode(name)
            place += 16 + length

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
