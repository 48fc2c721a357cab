"""Compares two canonical Compose models by what they mean: `docker compose config` spells one thing in several ways.

What is the same (tests/corpus/README.md, "What counts as equal"): absent, null and empty; sizes, processors, durations
and modes however spelled; `create_host_path: true` written or left out. Nothing else is forgiven here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

Path = tuple[str, ...]

# Maps whose keys a user invents and whose values are text or null, each meaning something.
FREE = frozenset(
    {"additional_contexts", "annotations", "args", "attributes", "driver_opts", "environment", "extra_hosts"}
    | {"labels", "options", "storage_opt", "sysctls"}
)
NAMED = frozenset(("services", "networks", "volumes", "secrets", "configs", "models", "depends_on", "ulimits"))
EMPTY_IS_A_VALUE = frozenset(("command", "entrypoint", "test"))  # [] means none; absent means the image's
BYTES = frozenset(
    ("mem_limit", "mem_reservation", "memswap_limit", "shm_size", "memory", "size", "rate", "mem_swappiness")
)
DURATIONS = frozenset(
    ("interval", "timeout", "start_period", "start_interval", "stop_grace_period", "delay", "monitor", "window")
)
NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


class _Missing:
    def __repr__(self) -> str:
        return "(absent)"


MISSING = _Missing()


class Difference(NamedTuple):
    """One place. `path`: keys and list indexes; a side that lacks it has MISSING."""

    path: Path
    expected: Any
    ours: Any

    def __str__(self) -> str:
        return f"{'.'.join(self.path) or '(root)'}: expected {self.expected!r}, ours {self.ours!r}"

    @property
    def group(self) -> str:
        """The path with the names people chose and the indexes as `*`."""
        out: list[str] = []
        for index, part in enumerate(self.path):
            invented = index > 0 and (out[-1] in NAMED | FREE) and _is_name(self.path[: index + 1])
            out.append("*" if part.isdecimal() or invented else part)
        return ".".join(out) or "(root)"


def differences(expected: Any, ours: Any, path: Path = ()) -> Iterator[Difference]:
    """All places where two values that `canonical` made differ; in order of the keys."""
    if isinstance(expected, dict) and isinstance(ours, dict):
        for key in sorted(expected.keys() | ours.keys()):
            yield from differences(expected.get(key, MISSING), ours.get(key, MISSING), (*path, key))
    elif isinstance(expected, list) and isinstance(ours, list):
        for index in range(max(len(expected), len(ours))):
            left = expected[index] if index < len(expected) else MISSING
            right = ours[index] if index < len(ours) else MISSING
            yield from differences(left, right, (*path, str(index)))
    elif type(expected) is not type(ours) or expected != ours:
        yield Difference(path, expected, ours)


def canonical(model: dict[str, Any]) -> dict[str, Any]:
    """The model with one spelling for each meaning, without `x-` keys."""
    plain: dict[str, Any] = _canonical(without_extensions(model), ())
    return plain


def _canonical(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return _bind(_mapping(value, path), path)
    if isinstance(value, list):
        return [_canonical(item, (*path, str(index))) for index, item in enumerate(value)]
    return _scalar(value, path)


def _mapping(value: dict[str, Any], path: Path) -> dict[str, Any]:
    if _is_free(path):
        return value
    out = {}
    for key, child in value.items():
        new = _canonical(child, (*path, key))
        if _is_name((*path, key)):
            out[key] = {} if new is None else new
        elif new not in (None, {}, []) or (new == [] and key in EMPTY_IS_A_VALUE):
            out[key] = new
    return out


def without_extensions(value: Any, path: Path = ()) -> Any:
    """The model without its `x-` keys; what people named `x-…`, a service or a label, stays."""
    if isinstance(value, list):
        return [without_extensions(item, (*path, str(index))) for index, item in enumerate(value)]
    if not isinstance(value, dict) or _is_free(path):
        return value
    return {
        key: without_extensions(child, (*path, key))
        for key, child in value.items()
        if not key.startswith("x-") or _is_name((*path, key))
    }


def _bind(value: dict[str, Any], path: Path) -> dict[str, Any]:
    bind = value.get("bind")
    if value.get("type") != "bind" or not isinstance(bind, dict) or bind.get("create_host_path") is not True:
        return value
    rest = {key: child for key, child in bind.items() if key != "create_host_path"}
    return {key: rest if key == "bind" else child for key, child in value.items() if key != "bind" or rest}


def _is_name(path: Path) -> bool:
    """Whether the last part is a name somebody chose: of a service, a network, a limit."""
    if len(path) == 2:
        return path[0] in NAMED
    if len(path) == 4 and path[0] == "services":
        return path[2] in ("networks", "depends_on", "models", "ulimits") or _is_free(path[:-1])
    return _is_free(path[:-1]) or path[2:-1] == ("build", "ulimits")


def _is_free(path: Path) -> bool:
    return len(path) > 2 and path[-1] in FREE and not _is_name(path)


def _scalar(value: Any, path: Path) -> Any:
    key = path[-1] if path else ""
    if key == "cpus" and isinstance(value, str | int | float) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, str):
        if key in BYTES and re.fullmatch(r"-?\d+", value):
            return int(value)
        if key in DURATIONS:
            return nanoseconds(value)
        if key == "mode" and {"secrets", "configs", "tmpfs"} & set(path) and re.fullmatch(r"0?o?[0-7]+", value):
            return int(value.replace("o", ""), 8)
    if key == "published":
        return str(value)
    return value


def _number(value: str | float) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def nanoseconds(text: str) -> int | str:
    """A duration as Go prints it, `1h5m30.02s`; other text stays."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return 0 if text == "0" else text
    return round(sum(float(number) * NANOSECONDS[unit] for number, unit in parts))
