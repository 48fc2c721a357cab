"""06-networks.md, and what services say of networks: values → model.Network, model.NetworkUse.

What is not said stays unsaid: a service on its stack's plain default network alone names no network, so that the
shortest file and the longest that means the same are one model.
"""

from __future__ import annotations

import re

from agent.wire.messages import NETWORKS
from orchestrator.compose import model
from orchestrator.compose.context import Context
from orchestrator.compose.nodes import Node, fields, flag, items, text

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}")
_ALIAS = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9_])?")


def networks(stack: str, nodes: dict[str, Node], context: Context) -> dict[str, model.Network]:
    """The top-level section."""
    found = {key: _network(key, node, context) for key, node in nodes.items()}
    plain = model.Network(name=f"{stack}_default")
    return {key: made for key, made in found.items() if made and not (key == "default" and made == plain)}


def _network(key: str, node: Node, context: Context) -> model.Network | None:
    entry = fields(node)
    name = context.value(entry.get("name"), f"networks.{key}.name", _name)
    external = flag(entry.get("external"), False)
    return model.Network(name=name, external=external, internal=flag(entry.get("internal"), False)) if name else None


def _name(written: str) -> str:
    if written in ("host", "none"):
        raise ValueError("it is Docker's name for what `network_mode` says; use that")
    if not _NAME.fullmatch(written):
        raise ValueError("a network's name has letters, digits, '_', '.' and '-', and begins with a letter or digit")
    return written


def uses(path: str, entry: dict[str, Node], context: Context) -> dict[str, model.NetworkUse]:
    """The networks of one service, by their keys in the top-level section."""
    found = {}
    for key, node in fields(entry.get("networks")).items():
        aliases = context.each(fields(node), "aliases", f"{path}.networks.{key}", _alias)
        found[key] = model.NetworkUse(aliases=tuple(dict.fromkeys(aliases)))
    if len(found) > NETWORKS:
        message = f"cannot put {path.removeprefix('services.')} on {len(found)} networks: {NETWORKS} at most"
        context.report.problem(entry["networks"].at, message)
    return {} if found == {"default": model.NetworkUse()} else found


def _alias(written: str) -> str:
    if not _ALIAS.fullmatch(written):
        raise ValueError("an alias is a host name: letters, digits, '-', '_' and '.'")
    return written


def mode(path: str, entry: dict[str, Node], context: Context) -> str:
    """Of network_mode: "none", or "" for what means a network. Without one there is nothing to publish on."""
    if text(entry.get("network_mode")) != "none":
        return ""
    if items(entry.get("ports")):
        service = path.removeprefix("services.")
        context.report.problem(entry["ports"].key_at, f"cannot publish ports of {service}: its network_mode is none")
    return "none"
