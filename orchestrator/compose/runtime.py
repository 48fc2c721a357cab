"""The canonical project → model.Stack, what the API takes: values are understood here, each with its unit and range.

Only what gorae honours comes in (honesty.py has refused the rest). Everything reported here names its place; pydantic's
own checks of the model stay a net below that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from signal import Signals
from typing import Any, TypeVar

from orchestrator.compose import (
    health,
    hooks,
    limits,
    logs,
    model,
    modes,
    naming,
    networks,
    ports,
    pulls,
    storage,
    units,
)
from orchestrator.compose.context import SERVICE, Context, absolute, matching
from orchestrator.compose.nodes import BAD, Node, fields, flag, items, spelled, text

T = TypeVar("T")

_HOST = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,62}[a-zA-Z0-9])?")
_USER = re.compile(r"[^\s:]{1,64}(?::[^\s:]{1,64})?")
_REALTIME = re.compile(r"(?:SIG)?RTMIN\+(?:[12]?\d|30)", re.ASCII)


def stack(name: str, root: Node, context: Context) -> model.Stack:
    """Raises ComposeError when anything of the files, in this stage or before, was wrong."""
    top = fields(root)
    services = {}
    for key, node in fields(top.get("services")).items():
        if not SERVICE.fullmatch(key):
            message = f"cannot name a service {key[:80]!r}: a name is 1 to 63 letters, digits, '.', '_' and '-'"
            context.report.problem(node.key_at, message)
        services[key] = service(f"services.{key}", fields(node), top, context)
        if "build" in fields(node):
            services[key] = {"pull_policy": "build", **services[key]}
            services[key]["image"] = services[key]["image"] or f"{name}-{key}".lower()
    volumes = {key: storage.volume(key, node, context) for key, node in fields(top.get("volumes")).items()}
    chosen = {key: one["network_mode"] for key, one in services.items()}
    modes.shared(chosen, fields(top.get("services")), context)
    own_networks = networks.networks(name, fields(top.get("networks")), context)
    context.report.finish()
    return model.Stack(
        name=name,
        services={key: model.Service(**value) for key, value in services.items()},
        volumes={key: value for key, value in volumes.items() if value},
        networks=own_networks,
    )


def service(path: str, entry: dict[str, Node], top: dict[str, Node], context: Context) -> dict[str, Any]:
    """The fields of model.Service. `top`: the sections; an optional dependency on a service that is not there is
    dropped."""
    services, top_networks = fields(top.get("services")), fields(top.get("networks"))
    mode = modes.mode(path, entry, top_networks, context)

    def read(key: str, understand: Callable[[str], T]) -> T | None:
        if text(entry.get(key)) == "":
            return None  # as left by a variable that is not set: as good as absent
        return context.value(entry.get(key), f"{path}.{key}", understand)

    return {
        "image": read("image", _image) or "",
        "platform": read("platform", pulls.platform) or "",
        **(read("pull_policy", pulls.policy) or {}),
        "command": hooks.words(entry.get("command")),
        "entrypoint": hooks.words(entry.get("entrypoint")),
        "environment": hooks.environment(entry, path, context),
        "ports": tuple(port for node in items(entry.get("ports")) if (port := _port(node, path, context)))
        if mode != "host"
        else (),
        "expose": context.each(entry, "expose", path, ports.exposed),
        "mounts": storage.mounts(entry, path, context),
        "volumes_from": context.each(entry, "volumes_from", path, storage.volumes_from),
        "networks": networks.uses(path, entry, top_networks, context),
        "network_mode": mode,
        "mac_address": networks.mac(path, entry, context),
        "depends_on": {
            other: model.DependsOn.model_validate(
                {key: node.value for key, node in fields(needs).items() if node.value not in (None, BAD)}
            )
            for other, needs in fields(entry.get("depends_on")).items()
            if other in services
        },
        "healthcheck": health.healthcheck(entry, path, context),
        "restart": limits.restart(entry, path, context),
        "replicas": limits.replicas(entry, path, context),
        "job": limits.job(entry),
        "update": limits.update(entry, "update_config", path, context),
        "rollback": limits.update(entry, "rollback_config", path, context),
        "resources": limits.resources(entry, path, context),
        "user": read("user", matching(_USER, "a user is written as NAME, UID or UID:GID")),
        "working_dir": read("working_dir", absolute),
        "hostname": read("hostname", matching(_HOST, "a host name has letters, digits, '-' and '.'")),
        "naming": naming.naming(path, entry, context),
        "labels": {key: text(node) or "" for key, node in fields(entry.get("labels")).items()},
        "read_only": flag(entry.get("read_only"), False),
        "init": flag(entry.get("init"), False),
        "tty": flag(entry.get("tty"), False),
        "stdin_open": flag(entry.get("stdin_open"), False),
        **hooks.hooks(entry, path, context),
        "on_unhealthy": text(entry.get("x-gorae-on-unhealthy")),
        "drain": read("x-gorae-drain", _drain),
        "stop_signal": read("stop_signal", _signal),
        "stop_grace_period": read("stop_grace_period", units.span),
        "logging": logs.logging(entry, path, context),
    }


def _port(node: Node, path: str, context: Context) -> model.PortMapping | None:
    entry = fields(node)
    published, target = text(entry.get("published")) or "0", entry["target"].value
    try:
        low, high = ports.port_range(published, lowest=0)
    except ValueError:
        low, high = -1, -1
    if high < 0 or (high and not low) or not isinstance(target, int) or not 0 < target < 65536:
        why = "it is no port: 1 to 65535"
        context.report.problem(node, f"cannot publish {published[:40]} → {spelled(target)[:40]} in {path}: {why}")
        return None
    return model.PortMapping(
        target=target,
        published=low or None if low == high else None,
        among=None if low == high else (low, high),
        protocol="udp" if text(entry.get("protocol")) == "udp" else "tcp",
        host_ip=text(entry.get("host_ip")) or "",
        mode="host" if text(entry.get("mode")) == "host" else "ingress",
    )


def _image(name: str) -> str:
    if not name or len(name) > 500 or any(char.isspace() or not char.isprintable() for char in name):
        raise ValueError("an image is written as NAME[:TAG][@DIGEST], without spaces")
    return name


def _drain(written: str) -> float:
    seconds = units.span(written)
    if seconds > 86400:
        raise ValueError("it is a day at most")
    return seconds


def _signal(name: str) -> str:
    upper = name.upper()
    if upper.isdecimal() and upper.isascii() and 1 <= int(upper[:3]) <= 64:
        return upper
    if f"SIG{upper.removeprefix('SIG')}" in Signals.__members__ or _REALTIME.fullmatch(upper):
        return f"SIG{upper.removeprefix('SIG')}"
    raise ValueError("there is no such signal; write SIGTERM, SIGINT, SIGQUIT …")
