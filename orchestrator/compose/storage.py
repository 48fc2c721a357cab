"""What a service mounts, and the volumes of a stack: the part of runtime.py that is about files."""

from __future__ import annotations

import re
from posixpath import normpath

from agent.kit.volume_options import understand
from orchestrator.compose import model, units
from orchestrator.compose.context import SERVICE, Context, absolute, matching
from orchestrator.compose.mounts import PROPAGATION
from orchestrator.compose.nodes import Node, fields, flag, items, text

_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}")
_TMPFS_DEFAULTS = frozenset(("rw", "noexec", "nosuid", "nodev"))


def mounts(entry: dict[str, Node], path: str, context: Context) -> tuple[model.ServiceMount, ...]:
    found = [_mount(node, path, index, context) for index, node in enumerate(items(entry.get("volumes")))]
    return (*(mount for mount in found if mount), *context.each(entry, "tmpfs", path, _tmpfs))


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


def volumes_from(written: str) -> model.VolumesFrom:
    """SERVICE[:ro|rw]"""
    service, _, mode = written.partition(":")
    if service == "container":
        raise ValueError("gorae has no containers but those of services; write SERVICE or SERVICE:ro")
    if mode not in ("", "ro", "rw") or not SERVICE.fullmatch(service):
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
    absolute(path)
    cleaned = "/" + path.strip("/") if path.strip("/") else ""
    if not cleaned:
        raise ValueError("a mount cannot stand at / of the container")
    return cleaned


def volume(key: str, node: Node, context: Context) -> model.Volume | None:
    entry = fields(node)
    own = matching(_VOLUME, "a volume's name has letters, digits, '_', '.' and '-', and begins with a letter or digit")
    name = context.value(entry.get("name"), f"volumes.{key}.name", own)
    labels = {label: text(child) or "" for label, child in fields(entry.get("labels")).items()}
    options = {option: text(child) or "" for option, child in fields(entry.get("driver_opts")).items()}
    try:
        understand(options)
    except ValueError as error:
        context.report.problem(entry["driver_opts"].key_at, f"cannot use volumes.{key}.driver_opts: {error}")
    external = flag(entry.get("external"), False)
    return model.Volume(name=name, external=external, labels=labels, driver_opts=options) if name else None
