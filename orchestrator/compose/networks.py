"""06-networks.md, and what services say of networks: values → model.Network, model.NetworkUse.

What is not said stays unsaid: a service on its stack's plain default network alone names no network, so that the
shortest file and the longest that means the same are one model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import TypeVar

from agent.wire.messages import NETWORKS, Subnet
from orchestrator.compose import model, modes
from orchestrator.compose.context import Context
from orchestrator.compose.nodes import Node, below, fields, flag, items, text

T = TypeVar("T")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
MTU = "com.docker.network.driver.mtu"
_LEAST_6 = 1280  # bytes, RFC 8200 §5
_ALIAS = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9_])?")


def networks(stack: str, nodes: dict[str, Node], context: Context) -> dict[str, model.Network]:
    """The top-level section, without those that stand for a network_mode."""
    found = {key: _network(key, node, context) for key, node in nodes.items() if not modes.stands_for(node)}
    plain = model.Network(name=f"{stack}_default")
    return {key: made for key, made in found.items() if made and not (key == "default" and made == plain)}


def _network(key: str, node: Node, context: Context) -> model.Network | None:
    entry = fields(node)
    name = context.value(entry.get("name"), f"networks.{key}.name", _name)
    pools = enumerate(items(fields(entry.get("ipam")).get("config")))
    subnets = tuple(
        one for at, pool in pools if (one := _subnet(fields(pool), f"networks.{key}.ipam.config[{at}]", context))
    )
    options = fields(entry.get("driver_opts"))
    if name is None:
        return None
    mtu = context.value(options.get(MTU), f"networks.{key}.driver_opts.{MTU}", _mtu) or 0
    ipv6 = flag(entry.get("enable_ipv6"), False) or any(":" in one.subnet for one in subnets)
    if ipv6 and 0 < mtu < _LEAST_6:
        message = f"cannot give networks.{key} IPv6: its MTU is {mtu}, and IPv6 needs {_LEAST_6}"
        context.report.problem(options[MTU].at, message)
    return model.Network(
        name=name,
        external=flag(entry.get("external"), False),
        internal=flag(entry.get("internal"), False),
        ipv6=ipv6,
        subnets=subnets,
        mtu=mtu,
    )


def _subnet(entry: dict[str, Node], path: str, context: Context) -> Subnet | None:
    """None where the file names no subnet."""

    def read(key: str, understand: Callable[[str], T]) -> T | None:
        return context.value(entry.get(key), f"{path}.{key}", understand)

    whole, among, gateway = read("subnet", _range), read("ip_range", _range), read("gateway", _address)
    others = [
        context.value(node, f"{path}.aux_addresses.{name}", _address)
        for name, node in fields(entry.get("aux_addresses")).items()
    ]
    if whole is None:
        if "subnet" not in entry and among is not None:
            context.report.problem(entry["ip_range"].at, f"cannot use {path}.ip_range: it needs a subnet beside it")
        return None
    for key, part in (("ip_range", among), ("gateway", gateway)):
        inner = ip_network(part) if part else None
        if inner and not (inner.version == ip_network(whole).version and inner.subnet_of(ip_network(whole))):  # type: ignore[arg-type]
            context.report.problem(entry[key].at, f"cannot use {part} as {path}.{key}: it is not in {whole}")
            return None
    reserved = tuple(one for one in (gateway, *others) if one)
    return Subnet(subnet=whole, among=among or "", reserved=reserved)


def _range(written: str) -> str:
    try:
        return str(ip_network(written, strict=False))
    except ValueError:
        raise ValueError("a range is written like 172.28.0.0/16") from None


def _address(written: str) -> str:
    try:
        return str(ip_address(written.partition("/")[0]))
    except ValueError:
        raise ValueError("that is no address") from None


def _mtu(written: object) -> int:
    text = str(written)
    if not (text.isascii() and text.isdecimal() and 576 <= int(text[:6]) <= 65535):
        raise ValueError("an MTU is a number of bytes from 576 to 65535")
    return int(text)


def _ipv4(written: str) -> str:
    return _of(4, _address(written))


def _ipv6(written: str) -> str:
    return _of(6, _address(written))


def _of(version: int, address: str) -> str:
    if ip_address(address).version != version:
        raise ValueError(f"that is no IPv{version} address")
    return address


def mac(path: str, entry: dict[str, Node], context: Context) -> str:
    """The service's own word, else that of one of its networks: a container has one link."""
    found = context.value(entry.get("mac_address"), f"{path}.mac_address", _mac)
    for key, node in fields(entry.get("networks")).items():
        found = found or context.value(fields(node).get("mac_address"), f"{path}.networks.{key}.mac_address", _mac)
    return found or ""


def _mac(written: str) -> str:
    plain = written.lower().replace("-", ":")
    if not _MAC.fullmatch(plain) or int(plain[:2], 16) & 1 or plain == "00:00:00:00:00:00":
        raise ValueError("the address of one link is written like 02:42:ac:11:00:02, its first byte even")
    return plain


def _name(written: str) -> str:
    if written in modes.MODES:
        raise ValueError("it is Docker's name for what `network_mode` says; use that, or say that it is external")
    if not _NAME.fullmatch(written):
        raise ValueError("a network's name has letters, digits, '_', '.' and '-', and begins with a letter or digit")
    return written


def uses(path: str, entry: dict[str, Node], top: Mapping[str, Node], context: Context) -> dict[str, model.NetworkUse]:
    """The networks of one service, by their keys in the top-level section, of which those are left out that stand for
    a network_mode."""
    found = {}
    for key, node in fields(entry.get("networks")).items():
        if key in top and modes.stands_for(top[key]):
            continue
        aliases = context.each(fields(node), "aliases", f"{path}.networks.{key}", _alias)
        written = [
            context.value(fields(node).get(name), f"{path}.networks.{key}.{name}", understand)
            for name, understand in (("ipv4_address", _ipv4), ("ipv6_address", _ipv6))
        ]
        found[key] = model.NetworkUse(
            aliases=tuple(dict.fromkeys(aliases)), addresses=tuple(address for address in written if address)
        )
    if len(found) > NETWORKS:
        message = f"cannot put {path.removeprefix('services.')} on {len(found)} networks: {NETWORKS} at most"
        context.report.problem(entry["networks"].at, message)
    for section in ("update_config", "rollback_config"):
        order = below(entry, f"deploy.{section}.order")
        if text(order) == "start-first" and order and any(use.addresses for use in found.values()):
            message = f"cannot start a new container of {path.removeprefix('services.')} first: it has a chosen address"
            context.report.problem(order.at, message, "order: stop-first, or no address")
    return {} if found == {"default": model.NetworkUse()} else found


def _alias(written: str) -> str:
    if not _ALIAS.fullmatch(written):
        raise ValueError("an alias is a host name: letters, digits, '-', '_' and '.'")
    return written
