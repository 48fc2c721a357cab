"""The short form of `volumes` (05-services.md, volumes) → what the long form would say; paths of host and container.

    SOURCE:TARGET[:OPTION,…]     SOURCE beginning with . / ~ is a path of the host, else the key of a volume
    TARGET                       a volume without a name

Pure functions of text; ValueError says what is wrong with it.
"""

from __future__ import annotations

import posixpath
from typing import Any

PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_SILENT = frozenset(("rw", "cached", "delegated", "consistent"))


def volume(text: str) -> tuple[dict[str, Any], list[str]]:
    """The long form, and the options nobody knows (the reference passes over them)."""
    parts = text.split(":")
    if "" in parts or len(parts) > 3:
        raise ValueError("a volume is written as SOURCE:TARGET[:OPTIONS]")
    if len(parts) == 1:
        return {"type": "volume", "target": target(text), "volume": {}}, []
    bind = parts[0][0] in "./~"
    found: dict[str, Any] = {"type": "bind" if bind else "volume", "source": parts[0], "target": target(parts[1])}
    details: dict[str, Any] = {}
    unknown = []
    for option in parts[2].split(",") if parts[2:] else ():
        if option == "ro":
            found["read_only"] = True
        elif option in PROPAGATION:
            details["propagation"] = option
        elif option in ("z", "Z"):
            details["selinux"] = option
        elif option == "nocopy":
            details["nocopy"] = True
        elif option not in _SILENT:
            unknown.append(option)
    keys = ("propagation", "selinux") if bind else ("nocopy",)
    found[found["type"]] = {key: value for key, value in details.items() if key in keys}
    return found, unknown


def target(path: str) -> str:
    """A path in the container, cleaned."""
    if len(path) > 4095:
        raise ValueError("the path in the container is too long")
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if path.startswith("/") else cleaned


def source(path: str, folder: str, home: str | None) -> str:
    """A path of the host, absolute: `.` from the first file's folder, `~` from the user's home."""
    if path == "~" or path.startswith("~/"):
        if not home:
            raise ValueError("HOME is not set, and ~ stands for it")
        path = home + path[1:]
    elif path.startswith("~"):
        raise ValueError("~user is not supported; write the path out")
    return "/" + posixpath.normpath(posixpath.join(folder, path)).lstrip("/")
