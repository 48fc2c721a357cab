"""network_mode of 05-services.md, and the networks of 06-networks.md that are another word for one: a service without
networks of its own, and what it may then not say."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.wire.messages import NETWORK_MODE
from orchestrator.compose.context import Context
from orchestrator.compose.nodes import Node, fields, flag, items, text

MODES = ("host", "none")
_MODE = re.compile(NETWORK_MODE)
_WORDS = "it is one of none, host, bridge, service:NAME and container:NAME"
_HOST = (
    "{service} is in the host's own network: what it opens is open on the host, and it reaches what listens on the"
    " host's 127.0.0.1"
)


def stands_for(node: Node) -> str:
    """The network_mode that a network is another word for: Docker's own networks host and none, and their drivers."""
    entry = fields(node)
    driver, name = text(entry.get("driver")), text(entry.get("name"))
    if driver in MODES:
        return driver or ""
    return name or "" if name in MODES and flag(entry.get("external"), False) else ""


def mode(path: str, entry: dict[str, Node], top: Mapping[str, Node], context: Context) -> str:
    """What network_mode says, or the networks of a service that stand for one; "" for networks of its own. `top`: the
    top-level section."""
    written = text(entry.get("network_mode")) or ""
    service, report = path.removeprefix("services."), context.report
    uses = fields(entry.get("networks"))
    meant = {key: stood for key in uses if key in top and (stood := stands_for(top[key]))}
    at = entry.get("network_mode") or entry.get("networks")
    if at is None or written in ("bridge", "default") or not (written or meant):
        return ""
    if meant and len(uses) > 1:
        key, stood = next(iter(meant.items()))
        report.problem(at, f"cannot put {service} on {key}, which is network_mode {stood}, and on other networks")
        return ""
    found = written or next(iter(meant.values()))
    if not _MODE.fullmatch(found):
        report.problem(
            at, f"cannot use {found[:80]!r} as {path}.network_mode: {_WORDS}", "for a network: networks: [NAME]"
        )
        return ""
    for key in meant:
        for said, node in fields(uses[key]).items():
            report.problem(node.key_at, f"cannot use {said} in {service}: its network {key} is network_mode {found}")
    if "mac_address" in entry:
        message = f"cannot use mac_address in {service}: its network_mode is {found}"
        report.problem(entry["mac_address"].key_at, message)
    if found == "host":
        report.warn(at, _HOST.format(service=service))
    if items(entry.get("ports")):
        _ports(service, found, entry["ports"], context)
    if ":" in found:
        _joining(service, found, entry, context)
    return found


def _ports(service: str, found: str, node: Node, context: Context) -> None:
    if found == "host":
        why = "its network_mode is host, so each port that it opens is the host's own"
        context.report.warn(node.key_at, f"ports of {service} are ignored: {why}")
    else:
        hint = f"publish them in {found.partition(':')[2]}" if found.startswith("service:") else ""
        message = f"cannot publish ports of {service}: its network_mode is {found}"
        context.report.problem(node.key_at, message, hint)


def _joining(service: str, found: str, entry: dict[str, Node], context: Context) -> None:
    """What belongs to the network that a service shares is said where that is."""
    if "dns" in entry:
        context.report.problem(entry["dns"].key_at, f"cannot use dns in {service}: its network_mode is {found}")
    for node in items(entry.get("extra_hosts")):
        if (text(node) or "").endswith("=host-gateway"):
            message = f"cannot open the host to {service}: its network_mode is {found}"
            context.report.problem(node, message, "say host-gateway where that network is")


def shared(services: Mapping[str, str], nodes: Mapping[str, Node], context: Context) -> None:
    """service:NAME names a service that has a network to share. `services`: name → network_mode."""
    for name, found in services.items():
        kind, _, other = found.partition(":")
        if kind == "service" and services.get(other):
            message = (
                f"cannot share the network of {other} with {name}: the network_mode of {other} is {services[other]}"
            )
            at = fields(nodes[name])["network_mode"]
            if services[other] != "none":
                context.report.problem(at, message, "name the service that it has its network from")
