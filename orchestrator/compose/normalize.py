"""The merged tree in long form → the model: values are understood here, each with its unit and range.

Everything reported here names its place; pydantic's own checks of the model stay a net below that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from signal import Signals
from typing import Any, TypeVar

from orchestrator.compose import health, limits, model, units
from orchestrator.compose.context import Context
from orchestrator.compose.environment import environment
from orchestrator.compose.nodes import BAD, Node, fields, flag, items, spelled, text

T = TypeVar("T")

_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}")
_HOST = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,62}[a-zA-Z0-9])?")
_USER = re.compile(r"[^\s:]{1,64}(?::[^\s:]{1,64})?")
_REALTIME = re.compile(r"(?:SIG)?RTMIN\+(?:[12]?\d|30)", re.ASCII)


def stack(name: str, root: Node, context: Context) -> model.Stack:
    """Raises ComposeError when anything of the files, in this stage or before, was wrong."""
    top = fields(root)
    services = {
        key: service(f"services.{key}", fields(node), context) for key, node in fields(top.get("services")).items()
    }
    volumes = {key: _volume(name, key, node, context) for key, node in fields(top.get("volumes")).items()}
    context.report.finish()
    return model.Stack(
        name=name,
        services={key: model.Service(**value) for key, value in services.items()},
        volumes={key: value for key, value in volumes.items() if value},
    )


def service(path: str, entry: dict[str, Node], context: Context) -> dict[str, Any]:
    """The fields of model.Service."""

    def read(key: str, understand: Callable[[str], T]) -> T | None:
        if text(entry.get(key)) == "":
            return None  # as left by a variable that is not set: as good as absent
        return context.value(entry.get(key), f"{path}.{key}", understand)

    return {
        "image": context.value(entry.get("image"), f"{path}.image", _image) or "",
        "command": _words(entry.get("command")),
        "entrypoint": _words(entry.get("entrypoint")),
        "environment": environment(entry, path, context),
        "ports": tuple(_port(node) for node in items(entry.get("ports"))),
        "expose": tuple(spelled(node.value) for node in items(entry.get("expose"))),
        "mounts": _mounts(entry, path, context),
        "depends_on": {
            other: model.DependsOn.model_validate(
                {key: node.value for key, node in fields(needs).items() if key != "restart" and node.value is not BAD}
            )
            for other, needs in fields(entry.get("depends_on")).items()
        },
        "healthcheck": health.healthcheck(entry, path, context),
        "restart": limits.restart(entry, path, context),
        "replicas": limits.replicas(entry, path, context),
        "resources": limits.resources(entry, path, context),
        "user": read("user", _matching(_USER, "a user is written as NAME, UID or UID:GID")),
        "working_dir": read("working_dir", _working_dir),
        "hostname": read("hostname", _matching(_HOST, "a host name has letters, digits, '-' and '.'")),
        "labels": {key: text(node) or "" for key, node in fields(entry.get("labels")).items()},
        "read_only": flag(entry.get("read_only"), False),
        "stop_signal": read("stop_signal", _signal),
        "stop_grace_period": read("stop_grace_period", units.duration),
    }


def _words(node: Node | None) -> tuple[str, ...] | None:
    return tuple(text(word) or "" for word in node.value) if node and isinstance(node.value, list) else None


def _port(node: Node) -> model.PortMapping:
    return model.PortMapping.model_validate({key: child.value for key, child in fields(node).items()})


def _mounts(entry: dict[str, Node], path: str, context: Context) -> tuple[model.ServiceMount, ...]:
    found = []
    for node in [*items(entry.get("volumes")), *items(entry.get("tmpfs"))]:
        mount = {key: child.value for key, child in fields(node).items()}
        if mount["type"] == "bind":
            mount["source"] = context.value(fields(node)["source"], f"{path}.volumes", context.source)
        found.append(model.ServiceMount.model_validate(mount))
    return tuple(found)


def _volume(project: str, key: str, node: Node, context: Context) -> model.Volume | None:
    entry = fields(node)
    external = flag(entry.get("external"), False)
    if external and (others := [name for name in entry if name not in ("external", "name")]):
        message = f"cannot set volumes.{key}.{others[0]}: the volume is external, somebody else made it"
        context.report.problem(entry[others[0]].key_at, message)
    own = _matching(_VOLUME, "a volume's name has letters, digits, '_', '.' and '-', and begins with a letter or digit")
    name = context.value(entry.get("name"), f"volumes.{key}.name", own)
    name = name or context.value(node.with_value(key if external else f"{project}_{key}"), f"volumes.{key}", own)
    labels = {label: text(child) or "" for label, child in fields(entry.get("labels")).items()}
    return model.Volume(name=name, external=external, labels=labels) if name else None


def _image(name: str) -> str:
    if not name or len(name) > 500 or any(char.isspace() or not char.isprintable() for char in name):
        raise ValueError("an image is written as NAME[:TAG][@DIGEST], without spaces")
    return name


def _matching(pattern: re.Pattern[str], otherwise: str) -> Callable[[str], str]:
    def understand(written: str) -> str:
        if not pattern.fullmatch(written):
            raise ValueError(otherwise)
        return written

    return understand


def _working_dir(path: str) -> str:
    if not path.startswith("/") or len(path) > 4095:
        raise ValueError("it must be an absolute path in the container")
    return path


def _signal(name: str) -> str:
    upper = name.upper()
    if upper.isdecimal() and upper.isascii() and 1 <= int(upper[:3]) <= 64:
        return upper
    if f"SIG{upper.removeprefix('SIG')}" in Signals.__members__ or _REALTIME.fullmatch(upper):
        return f"SIG{upper.removeprefix('SIG')}"
    raise ValueError("there is no such signal; write SIGTERM, SIGINT, SIGQUIT …")
