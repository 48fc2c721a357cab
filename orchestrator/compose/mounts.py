"""The short form of `volumes` (05-services.md, volumes) → what the long form would say; paths of host and container.

    SOURCE:TARGET[:OPTION,…]     SOURCE beginning with . / ~ is a path of the host, else the key of a volume
    TARGET                       a volume without a name

Pure functions of text; ValueError says what is wrong with it.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
DRIVE = re.compile(r"[a-zA-Z]:\\")  # of Windows: such a path is no path here, and stays as it is
_PARTS = re.compile(r":(?!\\)")
_SILENT = frozenset(("rw", "cached", "delegated", "consistent"))
OPTIONS = ("ro", "nocopy", "z", "Z", *sorted(PROPAGATION), *sorted(_SILENT))


def volume(text: str) -> tuple[dict[str, Any], list[str]]:
    """The long form, and the options nobody knows (the reference passes over them)."""
    parts = _PARTS.split(text)
    if "" in parts or len(parts) > 3:
        wrong = "an empty section between colons" if "" in parts else "too many colons"
        raise ValueError(f"{wrong}; a volume is written as SOURCE:TARGET[:OPTIONS]")
    if len(parts) == 1:
        return {"type": "volume", "target": target(text), "volume": {}}, []
    kind = "bind" if parts[0][0] in "./~" or DRIVE.match(text) else "volume"
    found: dict[str, Any] = {"type": kind, "source": parts[0], "target": target(parts[1]), kind: {}}
    unknown = []
    for option in parts[2].split(",") if parts[2:] else ():
        if option == "ro":
            found["read_only"] = True
        elif option in PROPAGATION:
            found.setdefault("bind", {})["propagation"] = option
        elif option in ("z", "Z"):
            found.setdefault("bind", {})["selinux"] = option
        elif option == "nocopy":
            found.setdefault("volume", {})["nocopy"] = True
        elif option not in _SILENT:
            unknown.append(option)
    return found, unknown


def target(path: str) -> str:
    """A path in the container, cleaned."""
    if len(path) > 4095:
        raise ValueError("the path in the container is too long")
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if path.startswith("/") else cleaned


def source(path: str, folder: str, home: str | None) -> str:
    """A path of the host, absolute: `.` from the first file's folder, `~` from the user's home. An absolute path stays
    as it is written."""
    if path.startswith("/") or DRIVE.match(path):
        return path
    if path == "~" or path.startswith("~/"):
        if not home:
            raise ValueError("HOME is not set, and ~ stands for it")
        path = home + path[1:]
    elif path.startswith("~"):
        raise ValueError("~user is not supported; write the path out")
    joined = "/" + posixpath.normpath(posixpath.join(folder, path)).lstrip("/")
    try:
        joined.encode()
    except UnicodeEncodeError:
        raise ValueError("the name of a folder on the way is not in UTF-8") from None
    return joined
