"""The short forms of `volumes` and `tmpfs` (05-services.md, volumes; tmpfs) → what the long form would say.

    SOURCE:TARGET[:OPTION,…]     SOURCE beginning with . / ~ is a path of the host, else the key of a volume
    TARGET[:size=64m,mode=1777]  tmpfs

Pure functions of text; ValueError says what is wrong with it.
"""

from __future__ import annotations

import posixpath

from orchestrator.compose.units import octal, size

IGNORED = frozenset(("rw", "z", "Z", "cached", "delegated", "consistent", "rprivate", "private"))
PROPAGATION = frozenset(("shared", "slave", "rshared", "rslave"))
TMPFS_DEFAULTS = frozenset(("rw", "noexec", "nosuid", "nodev"))


def volume(text: str) -> dict[str, str | bool]:
    """type, source, target and the options that were given: read_only, nocopy."""
    source, separator, rest = text.partition(":")
    if not separator:
        if source.startswith("/"):
            raise ValueError("gorae does not support a volume without a name yet; write NAME:" + source[:80])
        raise ValueError("a volume is written as SOURCE:TARGET[:OPTIONS]")
    path, _, options = rest.partition(":")
    if not source:
        raise ValueError("the source is missing")
    found: dict[str, str | bool] = {
        "type": "bind" if source[0] in "./~" else "volume",
        "source": source,
        "target": target(path),
    }
    for option in options.split(",") if options else ():
        if option == "ro":
            found["read_only"] = True
        elif option == "nocopy" and found["type"] == "volume":
            found["nocopy"] = True
        elif option in PROPAGATION:
            raise ValueError(f"gorae does not support the mount propagation {option} yet")
        elif option not in IGNORED:
            raise ValueError(f"the option {option[:40]!r} is unknown; ro, rw and nocopy are known")
    return found


def tmpfs(text: str) -> dict[str, str | int]:
    path, _, options = text.partition(":")
    found: dict[str, str | int] = {"type": "tmpfs", "target": target(path)}
    for option in options.split(",") if options else ():
        name, _, value = option.partition("=")
        if name == "size":
            found["size"] = size(value)
        elif name == "mode":
            found["mode"] = octal(value or "none")
        elif option not in TMPFS_DEFAULTS:
            raise ValueError(
                f"gorae does not support the tmpfs option {option[:40]!r} yet; size and mode are supported"
            )
    return found


def target(path: str) -> str:
    """A path in the container, cleaned; never its root."""
    if not path.startswith("/"):
        raise ValueError(f"the path in the container must be absolute: {path[:80]!r}")
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    if cleaned == "/":
        raise ValueError("a mount cannot stand at / of the container")
    if len(cleaned) > 4095:
        raise ValueError("the path in the container is too long")
    return cleaned


def source(path: str, folder: str, home: str | None) -> str:
    """A path of the host, absolute: `.` from the first file's folder, `~` from the user's home."""
    if path == "~" or path.startswith("~/"):
        if not home:
            raise ValueError("HOME is not set, and ~ stands for it")
        path = home + path[1:]
    elif path.startswith("~"):
        raise ValueError("~user is not supported; write the path out")
    return "/" + posixpath.normpath(posixpath.join(folder, path)).lstrip("/")
