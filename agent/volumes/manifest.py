"""What is written beside a volume's data: NAME/volume.json, durable before the volume is there.

A volume of a time without manifests has none: then its directory tells when it was made, and nothing tells the rest.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import TypeAdapter

from agent.ports import VolumeInfo

FILE = "volume.json"
_LATEST = 253402300800.0  # the year 10000, which no calendar of Python's knows
_JSON = TypeAdapter(VolumeInfo)


def write(directory: Path, info: VolumeInfo) -> None:
    beside = directory / f"{FILE}.new"
    with beside.open("wb") as file:
        file.write(dump(info))
        file.flush()
        os.fsync(file.fileno())
    beside.rename(directory / FILE)


def read(directory: Path) -> VolumeInfo:
    """OSError: there is no such directory."""
    try:
        return parse((directory / FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return VolumeInfo(directory.name, created=directory.stat().st_ctime)


def parse(document: bytes) -> VolumeInfo:
    """ValueError: it is none."""
    found = _JSON.validate_json(document)
    if not 0 <= found.created < _LATEST:  # not a number is neither
        raise ValueError("created: not a time")
    return found


def dump(info: VolumeInfo) -> bytes:
    return _JSON.dump_json(info, indent=1) + b"\n"
