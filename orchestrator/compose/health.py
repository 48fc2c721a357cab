"""`healthcheck`, and `x-gorae-healthcheck`: a probe by gorae itself, with no process in the container.

    x-gorae-healthcheck: {http: {port: 8000, path: /health}, interval: 5s}      or {tcp: {port: 5432}}

Both may be given, so that one file serves Docker too: then the probe is gorae's, its times are those of
x-gorae-healthcheck where it has them, else those of healthcheck. `disable: true` switches off both.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.compose import units
from orchestrator.compose.context import Context
from orchestrator.compose.model import HealthcheckModel
from orchestrator.compose.nodes import BAD, Node, fields, flag, items, text

_OWN = "x-gorae-healthcheck"
_PATH = re.compile(r"/[!-~]{0,1000}")  # a space or a line end would reach into the request


def healthcheck(service: dict[str, Node], path: str, context: Context) -> HealthcheckModel | None:
    if "healthcheck" not in service and _OWN not in service:
        return None
    common = fields(service.get("healthcheck"))
    own = fields(service.get(_OWN))
    test = _test(common.get("test"), path, context)
    if flag(common.get("disable"), False) or test == ("NONE",):
        return HealthcheckModel(disable=True)
    found: dict[str, Any] = _times(common, f"{path}.healthcheck", context)
    if _OWN in service:
        found |= _times(own, f"{path}.{_OWN}", context) | _probe(service[_OWN], f"{path}.{_OWN}", context)
    else:
        found["test"] = test
    return HealthcheckModel(**found)


def _test(node: Node | None, path: str, context: Context) -> tuple[str, ...] | None:
    """None: the image's. ("NONE",) | ("CMD", …) | ("CMD-SHELL", …)."""
    words = tuple(text(word) or "" for word in items(node))
    if node is None or not words:
        return None
    if words[0] == "NONE":
        return ("NONE",)
    if len(words) == 1:
        context.report.problem(node, f"cannot use {path}.healthcheck.test: there is no command after {words[0]}")
        return None
    return words


def _times(entry: dict[str, Node], path: str, context: Context) -> dict[str, Any]:
    """The times that are set; 0 stands for the default, but for start_period, where it means none."""
    found: dict[str, Any] = {}
    for key in ("interval", "timeout", "start_period", "start_interval"):
        seconds = context.value(entry.get(key), f"{path}.{key}", units.span)
        if seconds is not None and (seconds > 0 or key == "start_period"):
            found[key] = seconds
    retries = context.value(entry.get("retries"), f"{path}.retries", _retries)
    return found | ({"retries": retries} if retries else {})


def _retries(count: int) -> int:
    if not 0 <= count <= 1_000_000:
        raise ValueError("a number of retries is 1 or more")
    return count


def _probe(node: Node, path: str, context: Context) -> dict[str, Any]:
    if node.value is BAD:
        return {}
    entry = fields(node)
    kinds = [kind for kind in ("http", "tcp") if kind in entry]
    if len(kinds) != 1:
        context.report.problem(node, f"cannot use {path}: it takes one of http and tcp", "http: {port: 8000, path: /}")
        return {}
    kind = kinds[0]
    target = fields(entry[kind])
    port = context.value(target.get("port"), f"{path}.{kind}.port", _port)
    if kind == "tcp":
        return {"tcp_port": port}
    asked = context.value(target.get("path"), f"{path}.http.path", _http_path)
    return {"http_port": port, "http_path": asked or "/"}


def _port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ValueError("a port is 1 to 65535")
    return port


def _http_path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError("a path begins with / and has no spaces")
    return path
