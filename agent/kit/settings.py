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

[publish]
default_address = ""  # where ports are published of which the Compose file does not say where; "": everywhere

[network]
pool = "10.181.0.0/16"  # a /16 that containers and services get their addresses from
"""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv4Network, ip_address
from pathlib import Path

from agent.kit.errors import UserError
from agent.kit.pools import ADDRESS_POOL

KEYS = {"images": ("unpacked", "entries", "reserve"), "gc": ("high", "low", "days"), "logs": ("budget",)}
TEXTS = {"publish": ("default_address",), "network": ("pool",)}
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)b?", re.I)


def read(path: Path) -> dict[str, dict[str, int]]:
    """By section and key, of the numbers that are set; sizes in bytes. UserError bad-settings for anything not
    understood: a limit that is silently not one would be worse than no start."""
    return _read(path)[0]


def default_address(path: Path) -> str:
    """[publish] default_address; "": every address of the host. Errors as read()."""
    return _read(path)[1].get("default_address", "")


def pool(path: Path) -> str:
    """[network] pool. Errors as read()."""
    return _read(path)[1].get("pool", ADDRESS_POOL)


def _read(path: Path) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError) as error:
        raise _bad(path, str(error)) from error
    found: dict[str, dict[str, int]] = {}
    texts: dict[str, str] = {}
    for section, keys in document.items():
        if section not in KEYS | TEXTS or not isinstance(keys, dict):
            raise _bad(path, f"there is no section [{section}]")
        for key, value in keys.items():
            if key not in (KEYS | TEXTS)[section]:
                raise _bad(path, f"[{section}] has no key {key}")
            if section in TEXTS:
                understand = _pool if key == "pool" else _address
                texts[key] = understand(path, f"[{section}] {key}", value)
                continue
            found.setdefault(section, {})[key] = _number(path, f"[{section}] {key}", value)
    return found, texts


def _pool(path: Path, key: str, value: object) -> str:
    try:
        network = IPv4Network(value) if isinstance(value, str) else None
    except ValueError:
        network = None
    if network is None or network.prefixlen != 16 or not network.is_private:
        raise _bad(path, f'{key} must be a private /16 like "10.77.0.0/16", not {value!r}')
    return str(network)


def _address(path: Path, key: str, value: object) -> str:
    try:
        return str(ip_address(str(value))) if value != "" else ""
    except ValueError:
        raise _bad(path, f"{key} must be an address of this host, not {value!r}") from None


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
        hint="it may set " + "; ".join(f"{', '.join(keys)} in [{section}]" for section, keys in (KEYS | TEXTS).items()),
    )
