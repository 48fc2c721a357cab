"""What a service says of names: container_name, domainname, links, dns, dns_search, dns_opt, extra_hosts → the wire's
Naming, which is also the model's."""

from __future__ import annotations

import ipaddress
import re

from agent.wire.messages import HOSTNAME, Naming
from orchestrator.compose.context import Context, matching
from orchestrator.compose.nodes import Node, text

_DOMAIN = "it has letters, digits, '-' and '.'"
_OPTION = re.compile(r"[a-z0-9-]{1,32}(:[0-9]{1,5})?")


_KEYS = {"container_name", "domainname", "links", "dns", "dns_search", "dns_opt", "extra_hosts"}
_NOTHING = Naming()


def naming(path: str, entry: dict[str, Node], context: Context) -> Naming:
    if _KEYS.isdisjoint(entry):
        return _NOTHING

    def one(key: str, otherwise: str) -> str:
        node = entry.get(key)
        return (text(node) and context.value(node, f"{path}.{key}", matching(HOSTNAME, otherwise))) or ""

    hosts: dict[str, tuple[str, ...]] = {}
    for name, address in context.each(entry, "extra_hosts", path, _host):
        hosts[name] = (*hosts.get(name, ()), address)
    search = tuple(domain for domain in context.each(entry, "dns_search", path, _domain))
    return Naming(
        container=one("container_name", "it is a host name for others: letters, digits, '-', '_' and '.'"),
        domain=one("domainname", _DOMAIN),
        links={alias: service for service, alias in context.each(entry, "links", path, _link) if alias != service},
        servers=context.each(entry, "dns", path, _server),
        search=search or None,
        options=context.each(entry, "dns_opt", path, matching(_OPTION, "it is a word of resolv.conf, or WORD:NUMBER")),
        hosts=hosts,
    )


def _host(written: str) -> tuple[str, str]:
    name, _, address = written.partition("=")
    if not HOSTNAME.fullmatch(name):
        raise ValueError("it is written as NAME=ADDRESS")
    if address == "host-gateway":
        return name, address
    return name, str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]")))


def _link(written: str) -> tuple[str, str]:
    service, _, alias = written.partition(":")
    if alias and not HOSTNAME.fullmatch(alias):
        raise ValueError("it is written as SERVICE or SERVICE:ALIAS, and an alias is a host name")
    return service, alias or service


def _server(written: str) -> str:
    address = ipaddress.ip_address(written)
    if address.is_loopback:
        raise ValueError("a loopback address; leave it out for the host's own servers, or name a service's address")
    return str(address)


def _domain(written: str) -> str:
    if written != "." and not HOSTNAME.fullmatch(written.removesuffix(".")):
        raise ValueError(_DOMAIN)
    return written
