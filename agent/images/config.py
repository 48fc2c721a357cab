"""Image configs: from Docker's or OCI's JSON to what the runtime needs, and from a user's wishes to JSON. Pure.

OCI image-spec config.md; Docker's own keys (Healthcheck, Shell) live in the same object. Images are hostile: every
value is checked for its shape.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from typing import Any

from agent.images.errors import bad_config, bad_image
from agent.ports import ImageConfig
from agent.wire.messages import Healthcheck

_DIFF_ID = re.compile(r"sha256:[a-f0-9]{64}")
_STRINGS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Cmd", "Entrypoint", "Env", "Shell", "OnBuild")
_MAPS = ("Volumes", "ExposedPorts", "Labels")
KEYS = frozenset((*_STRINGS, *_LISTS, *_MAPS, "Healthcheck", "StopTimeout", "ArgsEscaped"))

LAYERS = 160  # Docker stops at 128; mount(2) before Linux 6.13 takes a page of options, and each is 20 bytes of them
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}  # Go's names


def parse(id_: str, raw: bytes) -> ImageConfig:
    """Permanent bad-image for anything that is not an image config."""
    try:
        top = json.loads(raw)
        rootfs, config = top["rootfs"], top.get("config") or {}
        _encodable(config)
        diff_ids = rootfs["diff_ids"] or []
        if not all(isinstance(layer, str) and _DIFF_ID.fullmatch(layer) for layer in diff_ids):
            raise ValueError("a diff id is not a digest")
        layers = _unique(diff_ids)
        if len(layers) > LAYERS:
            raise ValueError(f"{len(layers)} layers; no more than {LAYERS} can be mounted")
        return ImageConfig(
            id=id_,
            layers=layers,
            entrypoint=_words(config, "Entrypoint"),
            command=_words(config, "Cmd"),
            environment=_words(config, "Env"),
            user=_word(config, "User"),
            working_dir=_word(config, "WorkingDir"),
            stop_signal=_word(config, "StopSignal"),
            volumes=tuple(sorted(_map(config, "Volumes"))),
            labels={key: str(value) for key, value in _map(config, "Labels").items()},
            healthcheck=_healthcheck(config.get("Healthcheck")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise bad_image(id_, f"its config is malformed: {error}") from error


def diff_ids(raw: bytes) -> list[str]:
    """As listed, one for each of the manifest's layers; only for a config that parse() has accepted."""
    return list(json.loads(raw)["rootfs"]["diff_ids"] or [])


def created(raw: bytes) -> str:
    """RFC 3339, or "" where the image does not say."""
    found = json.loads(raw).get("created")
    return found if isinstance(found, str) and len(found) < 64 else ""


def platform_of(raw: bytes) -> str:
    """OS/ARCH[/VARIANT]; "" where the image does not say."""
    top = json.loads(raw)
    words = [top.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(word[:40] for word in words if isinstance(word, str) and word)


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """A user's config for an import, with shapes checked and empty values dropped. UserError bad-image-config."""
    for key in config:
        if key not in KEYS:
            raise bad_config(f'unknown key "{key}"')
    try:
        _encodable(config)
        for key in _STRINGS:
            _word(config, key)
        for key in _LISTS:
            _words(config, key)
        for key in _MAPS:
            _map(config, key)
        _healthcheck(config.get("Healthcheck"))
    except (ValueError, TypeError, AttributeError) as error:
        raise bad_config(str(error)) from error
    return {key: config[key] for key in sorted(config) if config[key] not in (None, "", [], {}, ())}


def document(config: Mapping[str, Any], diff_ids: tuple[str, ...]) -> dict[str, Any]:
    """The config of an imported image. No date: the same content gives the same id."""
    machine = platform.machine()
    return {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"comment": "imported by gorae"}],
    }


def _unique(diff_ids: list[str]) -> tuple[str, ...]:
    """Of equal layers only the topmost: it hides the others wholly, and overlayfs refuses one directory twice (ELOOP).
    Docker-built images often hold the empty layer many times."""
    return tuple(reversed(dict.fromkeys(reversed(diff_ids))))


def _encodable(config: Any) -> None:
    """JSON can name half a character ("\\ud800"), which no file, journal or message can hold: ValueError."""
    json.dumps(config, ensure_ascii=False).encode()


def _word(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{key} must be a string")
    return value


def _words(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError(f"{key} must be a list of strings")
    return tuple(value)


def _map(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} must be an object")
    return value


def _healthcheck(value: Any) -> Healthcheck | None:
    """Docker's Healthcheck: times are nanoseconds, 0 means not said; Test is [], ["NONE"], ["CMD", …] or
    ["CMD-SHELL", line]."""
    if value is None:
        return None
    test = _words(value, "Test")
    if test[:1] == ("NONE",):
        return Healthcheck(kind="none")
    if not test:
        return None
    if test[0] not in ("CMD", "CMD-SHELL") or len(test) < 2:
        raise ValueError("Healthcheck.Test must begin with CMD, CMD-SHELL or NONE")
    return Healthcheck(
        test=test,
        interval=_seconds(value, "Interval"),
        timeout=_seconds(value, "Timeout"),
        retries=_number(value, "Retries"),
        start_period=_seconds(value, "StartPeriod"),
        start_interval=_seconds(value, "StartInterval"),
    )


def _number(value: Mapping[str, Any], key: str) -> int | None:
    found = value.get(key) or None
    if found is not None and (not isinstance(found, int) or not 0 <= found < 1 << 63):
        raise ValueError(f"Healthcheck.{key} must be a whole number")
    return found


def _seconds(value: Mapping[str, Any], key: str) -> float | None:
    nanoseconds = _number(value, key)
    return None if nanoseconds is None else nanoseconds / 1e9
