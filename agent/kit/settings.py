"""What the operator of a host may set: gorae.toml in the configuration directory (/etc/gorae). What it does not say has
the default of the code.

[images]
unpacked = "64g"      # bytes that a layer may unpack to; k, m, g, t are powers of 1024
entries = 2000000     # files and directories that a layer may have
reserve = "64m"       # bytes of the file system that images leave free

[gc]
high = 85             # percent of the file system: when it is fuller, unused images go,
low = 80              # until it is at this
days = 30             # images that nobody has wanted for so long go, too; without it none goes for its age

[logs]
budget = "2g"         # bytes on the disk that all logs together may take
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from agent.kit.errors import UserError

KEYS = {"images": ("unpacked", "entries", "reserve"), "gc": ("high", "low", "days"), "logs": ("budget",)}
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)b?", re.I)


def read(path: Path) -> dict[str, dict[str, int]]:
    """By section and key, of those that are set; sizes in bytes. UserError bad-settings for anything not understood: a
    limit that is silently not one would be worse than no start."""
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _bad(path, str(error)) from error
    found: dict[str, dict[str, int]] = {}
    for section, keys in document.items():
        if section not in KEYS or not isinstance(keys, dict):
            raise _bad(path, f"there is no section [{section}]")
        for key, value in keys.items():
            if key not in KEYS[section]:
                raise _bad(path, f"[{section}] has no key {key}")
            found.setdefault(section, {})[key] = _number(path, f"[{section}] {key}", value)
    return found


def _number(path: Path, key: str, value: object) -> int:
    matched = _SIZE.fullmatch(value) if isinstance(value, str) else None
    number = int(matched[1]) << 10 * " kmgt".index(matched[2].lower() or " ") if matched else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise _bad(path, f"{key} must be a whole number of 1 or more, or one with k, m, g or t, not {value!r}")
    return number


def _bad(path: Path, why: str) -> UserError:
    return UserError(
        f"cannot use {path}: {why}",
        code="bad-settings",
        hint="it may set " + "; ".join(f"{', '.join(keys)} in [{section}]" for section, keys in KEYS.items()),
    )
