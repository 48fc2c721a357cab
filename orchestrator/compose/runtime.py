"""The canonical project → model.Stack, what the API takes: values are understood here, each with its unit and range.

Only what gorae honours comes in (honesty.py has refused the rest). Everything reported here names its place; pydantic's
own checks of the model stay a net below that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from posixpath import normpath
from signal import Signals
from typing import Any, TypeVar

from agent.kit.volume_options import understand
from orchestrator.compose import health, limits, model, ports, pulls, units
from orchestrator.compose.context import Context
from orchestrator.compose.mounts import PROPAGATION
from orchestrator.compose.nodes import BAD, Node, fields, flag, items, spelled, text
from orchestrator.compose.values import short

T = TypeVar("T")

_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}")
_HOST = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,62}[a-zA-Z0-9])?")
_USER = re.compile(r"[^\s:]{1,64}(?::[^\s:]{1,64})?")
_REALTIME = re.compile(r"(?:SIG)?RTMIN\+(?:[12]?\d|30)", re.ASCII)
_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
_TMPFS_DEFAULTS = frozenset(("rw", "noexec", "nosuid", "nodev"))


def stack(name: str, root: Node, context: Context) -> model.Stack:
    """Raises ComposeError when anything of the files, in this stage or before, was wrong."""
    top = fields(root)
    services = {}
    for key, node in fields(top.get("services")).items():
        if not _SERVICE.fullmatch(key):
            message = f"cannot name a service {key[:80]!r}: a name is 1 to 63 letters, digits, '.', '_' and '-'"
            context.report.problem(node.key_at, message)
        services[key] = service(f"services.{key}", fields(node), fields(top.get("services")).keys(), context)
        if "build" in fields(node):
            services[key] = {"pull_policy": "build", **services[key]}
            services[key]["image"] = services[key]["image"] or f"{name}-{key}".lower()
    volumes = {key: _volume(key, node, context) for key, node in fields(top.get("volumes")).items()}
    context.report.finish()
    return model.Stack(
        name=name,
        services={key: model.Service(**value) for key, value in services.items()},
        volumes={key: value for key, value in volumes.items() if value},
    )


def service(path: str, entry: dict[str, Node], services: Collection[str], context: Context) -> dict[str, Any]:
    """The fields of model.Service. `services`: those of the stack; an optional dependency on another is dropped."""

    def read(key: str, understand: Callable[[str], T]) -> T | None:
        if text(entry.get(key)) == "":
            return None  # as left by a variable that is not set: as good as absent
        return context.value(entry.get(key), f"{path}.{key}", understand)

    return {
        "image": read("image", _image) or "",
        "platform": read("platform", pulls.platform) or "",
        **(read("pull_policy", pulls.policy) or {}),
        "command": _words(entry.get("command")),
        "entrypoint": _words(entry.get("entrypoint")),
        "environment": _environment(entry, path, context),
        "ports": tuple(port for node in items(entry.get("ports")) if (port := _port(node, path, context))),
        "expose": _each(entry, "expose", path, ports.exposed, context),
        "mounts": _mounts(entry, path, context),
        "volumes_from": _each(entry, "volumes_from", path, _volumes_from, context),
        "depends_on": {
            other: model.DependsOn.model_validate(
                {key: node.value for key, node in fields(needs).items() if key != "restart" and node.value is not BAD}
            )
            for other, needs in fields(entry.get("depends_on")).items()
            if other in services
        },
        "healthcheck": health.healthcheck(entry, path, context),
        "restart": limits.restart(entry, path, context),
        "replicas": limits.replicas(entry, path, context),
        "resources": limits.resources(entry, path, context),
        "user": read("user", _matching(_USER, "a user is written as NAME, UID or UID:GID")),
        "working_dir": read("working_dir", _absolute),
        "hostname": read("hostname", _matching(_HOST, "a host name has letters, digits, '-' and '.'")),
        "labels": {key: text(node) or "" for key, node in fields(entry.get("labels")).items()},
        "read_only": flag(entry.get("read_only"), False),
        "stop_signal": read("stop_signal", _signal),
        "stop_grace_period": read("stop_grace_period", units.span),
    }


def _each(
    entry: dict[str, Node], key: str, path: str, understand: Callable[[str], T], context: Context
) -> tuple[T, ...]:
    found = (
        context.value(node, f"{path}.{key}[{index}]", understand) for index, node in enumerate(items(entry.get(key)))
    )
    return tuple(value for value in found if value is not None)


def _environment(entry: dict[str, Node], path: str, context: Context) -> dict[str, str]:
    """A variable without a value has been looked up; it is absent where it is not set."""
    found = {}
    for name, node in fields(entry.get("environment")).items():
        if not name or "=" in name:
            message = f"cannot use {short(name)} as the name of a variable in {path}: it is empty or holds '='"
            context.report.problem(node.key_at, message)
        elif (value := text(node)) is not None:
            found[name] = value
    return found


def _words(node: Node | None) -> tuple[str, ...] | None:
    return tuple(text(word) or "" for word in node.value) if node and isinstance(node.value, list) else None


def _port(node: Node, path: str, context: Context) -> model.PortMapping | None:
    entry = fields(node)
    published = text(entry.get("published")) or "0"
    target = entry["target"].value
    port = int(published[:6]) if published.isdecimal() else -1
    if not 0 <= port < 65536 or not isinstance(target, int) or not 0 < target < 65536:
        range_ = "-" in published and published.replace("-", "").isdecimal()
        why = (
            "a range of host ports for one port of the container is not supported yet"
            if range_
            else "it is no port: 1 to 65535"
        )
        context.report.problem(node, f"cannot publish {published[:40]} → {spelled(target)[:40]} in {path}: {why}")
        return None
    return model.PortMapping(
        target=target,
        published=port or None,
        protocol="udp" if text(entry.get("protocol")) == "udp" else "tcp",
        host_ip=text(entry.get("host_ip")) or "",
    )


def _mounts(entry: dict[str, Node], path: str, context: Context) -> tuple[model.ServiceMount, ...]:
    found = [_mount(node, path, index, context) for index, node in enumerate(items(entry.get("volumes")))]
    return (*(mount for mount in found if mount), *_each(entry, "tmpfs", path, _tmpfs, context))


def _mount(node: Node, path: str, index: int, context: Context) -> model.ServiceMount | None:
    entry = fields(node)
    kind, source = text(entry.get("type")) or "", text(entry.get("source"))
    target = context.value(entry.get("target"), f"{path}.volumes[{index}]", _target)
    if target is None or kind not in ("bind", "volume", "tmpfs"):
        return None
    for other in {"bind", "volume", "tmpfs"} - {kind}:
        if fields(entry.get(other)).keys() - {"selinux"}:
            context.report.problem(
                node, f"cannot mount at {target} in {path}: `{other}` says how a {other} mount is made"
            )
    if kind == "tmpfs" and source:
        context.report.problem(node, f"cannot mount at {target} in {path}: a tmpfs mount has no source")
    options = fields(entry.get(kind))
    size = options.get("size")
    return model.ServiceMount(
        type=kind,
        target=target,
        source="/" + normpath(source).lstrip("/") if kind == "bind" and source else source or None,
        read_only=flag(entry.get("read_only"), False),
        create_host_path=flag(options.get("create_host_path"), True),
        nocopy=flag(options.get("nocopy"), False),
        size=int(text(size) or 0) if size and text(size) else None,
        mode=context.value(options.get("mode"), f"{path}.volumes[{index}].tmpfs.mode", units.octal),
        labels={label: text(child) or "" for label, child in fields(options.get("labels")).items()},
        subpath=context.value(options.get("subpath"), f"{path}.volumes[{index}].volume.subpath", _inside),
        propagation=context.value(options.get("propagation"), f"{path}.volumes[{index}].bind.propagation", _propagation)
        or "private",
    )


def _propagation(word: str) -> str:
    """r or not is the same: what is mounted below comes along in any case."""
    if word and word not in PROPAGATION:
        raise ValueError(f"it is one of {', '.join(sorted(PROPAGATION))}")
    return word.removeprefix("r")


def _inside(path: str) -> str | None:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("it must be a path within the volume, without '..'")
    return normpath(path) if path not in ("", ".") else None


def _volumes_from(written: str) -> model.VolumesFrom:
    """SERVICE[:ro|rw]"""
    service, _, mode = written.partition(":")
    if service == "container":
        raise ValueError("gorae has no containers but those of services; write SERVICE or SERVICE:ro")
    if mode not in ("", "ro", "rw") or not _SERVICE.fullmatch(service):
        raise ValueError("it is written as SERVICE, SERVICE:ro or SERVICE:rw")
    return model.VolumesFrom(service=service, read_only=mode == "ro")


def _tmpfs(written: str) -> model.ServiceMount:
    """PATH[:size=64m,mode=1777] of `tmpfs`."""
    path, _, options = written.partition(":")
    found: dict[str, int] = {}
    for option in options.split(",") if options else ():
        name, _, value = option.partition("=")
        if name == "size":
            found["size"] = units.size(value)
        elif name == "mode":
            found["mode"] = units.octal(value or "none")
        elif option not in _TMPFS_DEFAULTS:
            raise ValueError(f"gorae does not support the option {option[:40]!r} yet; size and mode are supported")
    return model.ServiceMount(type="tmpfs", target=_target(path), **found)


def _target(path: str) -> str:
    _absolute(path)
    cleaned = "/" + path.strip("/") if path.strip("/") else ""
    if not cleaned:
        raise ValueError("a mount cannot stand at / of the container")
    return cleaned


def _volume(key: str, node: Node, context: Context) -> model.Volume | None:
    entry = fields(node)
    own = _matching(_VOLUME, "a volume's name has letters, digits, '_', '.' and '-', and begins with a letter or digit")
    name = context.value(entry.get("name"), f"volumes.{key}.name", own)
    labels = {label: text(child) or "" for label, child in fields(entry.get("labels")).items()}
    options = {option: text(child) or "" for option, child in fields(entry.get("driver_opts")).items()}
    try:
        understand(options)
    except ValueError as error:
        context.report.problem(entry["driver_opts"].key_at, f"cannot use volumes.{key}.driver_opts: {error}")
    external = flag(entry.get("external"), False)
    return model.Volume(name=name, external=external, labels=labels, driver_opts=options) if name else None


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


def _absolute(path: str) -> str:
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
