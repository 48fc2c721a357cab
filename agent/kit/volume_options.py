"""The options of Docker's `local` volume driver that gorae honours (docs.docker.com, volume create): a folder of the
host (type: none, o: bind, device: /PATH) and memory (type: tmpfs). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_MINE = frozenset(("nosuid", "nodev", "rw"))  # holds anyway
_TMPFS = re.compile(r"(size=\d+[kmg%]?|nr_inodes=\d+[kmg]?|mode=[0-7]{1,4}|uid=\d{1,10}|gid=\d{1,10})", re.I | re.ASCII)
_KNOWN = "gorae mounts folders (type: none, o: bind, device: /PATH) and memory (type: tmpfs)"


@dataclass(frozen=True, slots=True)
class Local:
    """What stands behind a volume. `device`: absolute path of a bind. `data`: mount(2)'s, of a tmpfs."""

    kind: Literal["plain", "bind", "tmpfs"] = "plain"
    device: str = ""
    read_only: bool = False
    no_exec: bool = False
    data: str = ""


def understand(options: Mapping[str, str]) -> Local:
    """ValueError says what is wrong."""
    if not options:
        return Local()
    if strange := sorted(options.keys() - {"type", "o", "device"}):
        raise ValueError(f"there is no option {strange[0]!r}; there are type, o and device")
    words = [word for word in options.get("o", "").split(",") if word]
    kind, device = options.get("type", ""), options.get("device", "")
    read_only = "ro" in words
    if {"bind", "rbind"} & set(words) and kind in ("", "none", "bind"):
        if not device.startswith("/") or "\0" in device:
            raise ValueError("`device` must be an absolute path of the host")
        _refuse(words, [word for word in words if word not in _MINE | {"bind", "rbind", "ro"}])
        return Local("bind", device, read_only)
    if kind != "tmpfs":
        raise ValueError(_KNOWN)
    data = [word for word in words if _TMPFS.fullmatch(word)]
    _refuse(words, [word for word in words if word not in _MINE | {"ro", "noexec"} and word not in data])
    return Local("tmpfs", "", read_only, "noexec" in words, ",".join(data))


def _refuse(words: list[str], unknown: list[str]) -> None:
    if unknown:
        raise ValueError(f"gorae does not support {unknown[0][:40]!r} in `o`")
