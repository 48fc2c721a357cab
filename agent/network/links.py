"""The rtnetlink(7) messages a task's wire is made of: veth pair, addresses, routes, neighbours. Each is one Request.

Both ends get fixed MAC addresses derived from the task's address and know each other's as permanent neighbours: no ARP
is spoken, and udev or a network manager finds nothing to "repair".
Numbers: include/uapi/linux/{rtnetlink,if_link,neighbour,if_addr}.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.decide.nft_rules import GROUP
from agent.network.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Netlink, Request, attr, attrs

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _NEWROUTE, _DELROUTE, _NEWNEIGH = 20, 24, 25, 28
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 20, 26, 28, 29
_IFLA_GROUP, _DOOMED = 27, 0x676F7261  # "gora"
_IFA_F_NODAD = 0x02
_GONE = frozenset({errno.ENODEV})
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})  # of a kernel without it
_SKIP_STATS = 1 << 3
_IFF_UP = 1
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_FORWARDING, _SEND_REDIRECTS, _ROUTE_LOCALNET = 1, 6, 26  # IPV4_DEVCONF_*, linux/ip.h
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_UNICAST, _UNREACHABLE = 1, 7
_TABLE_MAIN, _PROTO_STATIC = 254, 4
_NUD_PERMANENT = 0x80
_CREATE_OR_REPLACE = NLM_F_CREATE | NLM_F_REPLACE


@dataclass(frozen=True, slots=True)
class Link:
    """`peer`: ifindex of the other end of a veth, in its own namespace; 0 for what has no other end."""

    index: int
    name: str
    alias: str
    peer: int
    mtu: int


def macs(address: str, chosen: str = "") -> tuple[bytes, bytes]:
    """(host end, task end) of a pair: locally administered, the task's IPv4 address in the last four bytes; the task's
    end may be `chosen` ("02:42:ac:11:00:02")."""
    tail = socket.inet_aton(address)
    return b"\x06\x67" + tail, bytes.fromhex(chosen.replace(":", "")) or b"\x02\x67" + tail


def create_pair(name: str, peer: str, peer_ns: int, ends: tuple[bytes, bytes], mtu: int) -> Request:
    """A veth `name` here and `peer` directly in the namespace behind descriptor `peer_ns`, with these MAC addresses.
    EEXIST is left to the caller."""
    ours, theirs = ends
    other = _ifinfo() + attr(_IFLA_IFNAME, peer) + attr(_IFLA_ADDRESS, theirs) + attr(_IFLA_MTU, mtu)
    info = attr(1, "veth") + attr(2, attr(1, other + attr(_IFLA_NET_NS_FD, peer_ns)))  # KIND, DATA(VETH_INFO_PEER)
    body = _ifinfo() + attr(_IFLA_IFNAME, name) + attr(_IFLA_ADDRESS, ours) + attr(_IFLA_MTU, mtu)
    return Request(_NEWLINK, body + attr(_IFLA_LINKINFO, info), f"link {name}", NLM_F_CREATE | NLM_F_EXCL)


def set_up(index: int, what: str) -> list[Request]:
    """Up, and without an IPv6 link-local address: what IPv6 a task has is given to it, none comes by itself.

    Two requests: of one, Linux 6.1 takes "up" first, and the link-local address is there before it is forbidden. Where
    there is no IPv6 (a kernel without it, a link too narrow for it) there is nothing to forbid."""
    spec = attr(socket.AF_INET6, attr(_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE])))
    settings = Request(_SETLINK, _ifinfo(index) + attr(_IFLA_AF_SPEC, spec), what, fine=_NO_IPV6)
    return [settings, Request(_SETLINK, _ifinfo(index, _IFF_UP), what)]


def set_up_host(index: int, what: str) -> list[Request]:
    """The host's end: up; it forwards whatever the host's default for new links is; 127/8 may be routed over it
    (published ports on 127.0.0.1); and no redirects, which a task that calls itself through the host would get."""
    conf = attr(_FORWARDING, 1) + attr(_ROUTE_LOCALNET, 1) + attr(_SEND_REDIRECTS, 0)
    spec = attr(socket.AF_INET, attr(1, conf))
    mark = Request(_SETLINK, _ifinfo(index) + attr(_IFLA_GROUP, GROUP), what)
    return [mark, Request(_SETLINK, _ifinfo(index) + attr(_IFLA_AF_SPEC, spec), what), *set_up(index, what)]


def set_alias(index: int, alias: str, what: str) -> Request:
    """A durable label of at most 255 bytes; `ip link` shows it."""
    return Request(_SETLINK, _ifinfo(index) + attr(_IFLA_IFALIAS, alias), what)


def add_address(index: int, address: str, what: str, *, local_only: bool = False) -> Request:
    """`address`/32 or /128, usable at once; already there is success. local_only: link scope, never a source for other
    destinations (IPv4; IPv6 prefers a source of the same scope and link by itself, RFC 6724)."""
    family, raw = _packed(address)
    scope = _SCOPE_LINK if local_only and family == socket.AF_INET else _SCOPE_UNIVERSE
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = struct.pack("=BBBBI", family, len(raw) * 8, flags, scope, index) + attr(1, raw) + attr(2, raw)
    return Request(_NEWADDR, body, what, _CREATE_OR_REPLACE)


def add_route(destination: str, what: str, *, index: int, via: str | None = None) -> Request:
    """`destination` "ADDRESS/LENGTH" out of link `index`, directly or via a gateway."""
    scope = _SCOPE_LINK if via is None else _SCOPE_UNIVERSE
    body = _route(destination, scope, _UNICAST) + attr(4, index)  # RTA_OIF
    if via is not None:
        body += attr(5, _packed(via)[1])  # RTA_GATEWAY
    return Request(_NEWROUTE, body, what, _CREATE_OR_REPLACE)


def add_virtual_route(subnet: str, loopback: int) -> Request:
    """Where virtual addresses lead before they are translated, so that the host's own connections to them can begin: in
    IPv4 from 127.0.0.1, as if to a published port; a source of IPv6 is found by itself."""
    body = _route(subnet, _SCOPE_LINK, _UNICAST) + attr(4, loopback)
    body += b"" if ":" in subnet else attr(7, socket.inet_aton("127.0.0.1"))  # RTA_PREFSRC
    return Request(_NEWROUTE, body, f"route {subnet}", _CREATE_OR_REPLACE, _NO_IPV6)


def remove_route(subnet: str) -> Request:
    return Request(_DELROUTE, _route(subnet, 255, 0), f"route {subnet}", fine=_NO_IPV6 | {errno.ESRCH})


def refuse_route(subnet: str) -> Request:
    """The unreachable route over a whole subnet: an address that is no task's is refused here, not sent to the
    world."""
    body = _route(subnet, _SCOPE_UNIVERSE, _UNREACHABLE)
    return Request(_NEWROUTE, body, f"route {subnet}", _CREATE_OR_REPLACE, _NO_IPV6)


def add_neighbour(index: int, address: str, mac: bytes, what: str) -> Request:
    family, raw = _packed(address)
    body = struct.pack("=BBHiHBB", family, 0, 0, index, _NUD_PERMANENT, 0, 0)
    return Request(_NEWNEIGH, body + attr(1, raw) + attr(2, mac), what, _CREATE_OR_REPLACE)


def delete(name: str) -> Request:
    """The link and, of a veth, its other end. Gone is success."""
    return Request(_DELLINK, _ifinfo() + attr(_IFLA_IFNAME, name), f"link {name}", fine=_GONE)


def delete_all(indexes: Iterable[int]) -> list[Request]:
    """Delete many links in one go. A deletion waits for every processor to forget the link (20 ms); by group, all share
    one wait. The group's number is ours for as long as the requests take."""
    marked = [
        Request(_SETLINK, _ifinfo(index) + attr(_IFLA_GROUP, _DOOMED), f"link {index}", fine=_GONE) for index in indexes
    ]
    return [*marked, Request(_DELLINK, _ifinfo() + attr(_IFLA_GROUP, _DOOMED), "links to delete", fine=_GONE)]


def find(netlink: Netlink, name: str) -> Link | None:
    """The link called `name` in the socket's namespace."""
    body = _ifinfo() + attr(_IFLA_IFNAME, name) + attr(_IFLA_EXT_MASK, _SKIP_STATS)
    try:
        found = [_link(content) for kind, content in netlink.query(_GETLINK, body, f"link {name}") if kind == _NEWLINK]
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return found[0]


def dump(netlink: Netlink, prefix: str) -> Iterator[Link]:
    """Every link whose name begins with `prefix`."""
    body = _ifinfo() + attr(_IFLA_EXT_MASK, _SKIP_STATS)
    for kind, content in netlink.query(_GETLINK, body, "links", NLM_F_DUMP):
        if kind == _NEWLINK and (link := _link(content)).name.startswith(prefix):
            yield link


def _ifinfo(index: int = 0, up: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, up, up)


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _route(destination: str, scope: int, kind: int) -> bytes:
    network = ipaddress.ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    head = (family, network.prefixlen, 0, 0, _TABLE_MAIN, _PROTO_STATIC, scope, kind, 0)
    return struct.pack("=BBBBBBBBI", *head) + attr(1, network.network_address.packed)  # RTA_DST


def _link(content: bytes) -> Link:
    index = struct.unpack_from("=i", content, 4)[0]
    name = alias = ""
    peer = mtu = 0
    for kind, value in attrs(content[16:]):
        if kind == _IFLA_IFNAME:
            name = value.rstrip(b"\0").decode()
        elif kind == _IFLA_IFALIAS:
            alias = value.rstrip(b"\0").decode(errors="replace")
        elif kind == _IFLA_LINK:
            peer = struct.unpack("=i", value)[0]
        elif kind == _IFLA_MTU:
            mtu = struct.unpack("=i", value)[0]
    return Link(index, name, alias, peer, mtu)
