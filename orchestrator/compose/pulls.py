"""pull_policy and platform of a service: the words of a Compose file, understood. Pure. 05-services.md."""

from __future__ import annotations

import re
from typing import Any

_SPAN = re.compile(r"(\d+)([wdhms])")
_EVERY = re.compile(r"every_((?:\d{1,9}[wdhms])+)")
_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PLATFORM = re.compile(r"(?:linux/)?([a-z0-9_]{2,20})(/[a-z0-9]{1,20})?")
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}


def policy(written: str) -> dict[str, Any]:
    """The fields pull_policy and pull_after of model.Service."""
    if written in ("always", "missing", "never", "build"):
        return {"pull_policy": written}
    if written in ("daily", "weekly"):
        return {"pull_policy": "refresh", "pull_after": _SECONDS["d" if written == "daily" else "w"]}
    if found := _EVERY.fullmatch(written):
        seconds = sum(int(count) * _SECONDS[unit] for count, unit in _SPAN.findall(found[1]))
        return {"pull_policy": "refresh", "pull_after": seconds}
    raise ValueError("gorae takes always, missing, if_not_present, never, daily, weekly and every_12h")


def platform(written: str) -> str:
    """linux/ARCH[/VARIANT], in Go's names."""
    found = _PLATFORM.fullmatch(written.lower())
    if not found or found[1] in ("linux", "windows", "darwin"):
        raise ValueError("a platform is written linux/ARCH, like linux/amd64 or linux/arm64/v8")
    return f"linux/{_ARCHITECTURES.get(found[1], found[1])}{found[2] or ''}"
