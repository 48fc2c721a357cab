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

from agent.network.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Netlink, Request, attr, attrs

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _NEWROUTE, _DELROUTE, _NEWNEIGH = 20, 24, 25, 28
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 20, 26, 28, 29
_IFLA_GROUP, _DOOMED = 27, 0x676F7261  # "gora"
_GONE = frozenset({errno.ENODEV})
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


def macs(address: str) -> tuple[bytes, bytes]:
    """(host end, task end) of a pair: locally administered, the task's address in the last four bytes."""
    tail = socket.inet_aton(address)
    return b"\x06\x67" + tail, b"\x02\x67" + tail


def create_pair(name: str, peer: str, peer_ns: int, address: str, mtu: int) -> Request:
    """A veth `name` here and `peer` directly in the namespace behind descriptor `peer_ns`. EEXIST is left to the
    caller."""
    ours, theirs = macs(address)
    other = _ifinfo() + attr(_IFLA_IFNAME, peer) + attr(_IFLA_ADDRESS, theirs) + attr(_IFLA_MTU, mtu)
    info = attr(1, "veth") + attr(2, attr(1, other + attr(_IFLA_NET_NS_FD, peer_ns)))  # KIND, DATA(VETH_INFO_PEER)
    body = _ifinfo() + attr(_IFLA_IFNAME, name) + attr(_IFLA_ADDRESS, ours) + attr(_IFLA_MTU, mtu)
    return Request(_NEWLINK, body + attr(_IFLA_LINKINFO, info), f"link {name}", NLM_F_CREATE | NLM_F_EXCL)


def set_up(index: int, what: str) -> list[Request]:
    """Up, and without an IPv6 link-local address: IPv6 is not given to tasks, so it must not come by itself."""
    return _set_up(index, attr(socket.AF_INET6, _gen_none()), what)


def set_up_host(index: int, what: str) -> list[Request]:
    """The host's end: up; it forwards whatever the host's default for new links is; 127/8 may be routed over it
    (published ports on 127.0.0.1); and no redirects, which a task that calls itself through the host would get."""
    conf = attr(_FORWARDING, 1) + attr(_ROUTE_LOCALNET, 1) + attr(_SEND_REDIRECTS, 0)
    return _set_up(index, attr(socket.AF_INET, attr(1, conf)) + attr(socket.AF_INET6, _gen_none()), what)


def _set_up(index: int, spec: bytes, what: str) -> list[Request]:
    """Two requests: of one, Linux 6.1 takes "up" first, and the link-local address is there before it is forbidden."""
    settings = Request(_SETLINK, _ifinfo(index) + attr(_IFLA_AF_SPEC, spec), what)
    return [settings, Request(_SETLINK, _ifinfo(index, _IFF_UP), what)]


def set_alias(index: int, alias: str, what: str) -> Request:
    """A durable label of at most 255 bytes; `ip link` shows it."""
    return Request(_SETLINK, _ifinfo(index) + attr(_IFLA_IFALIAS, alias), what)


def add_address(index: int, address: str, what: str, *, local_only: bool = False) -> Request:
    """`address`/32; already there is success. local_only: link scope, never a source for other destinations."""
    raw = socket.inet_aton(address)
    scope = _SCOPE_LINK if local_only else _SCOPE_UNIVERSE
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, scope, index) + attr(1, raw) + attr(2, raw)
    return Request(_NEWADDR, body, what, _CREATE_OR_REPLACE)


def add_route(destination: str, what: str, *, index: int, via: str | None = None) -> Request:
    """`destination` "ADDRESS/LENGTH" out of link `index`, directly or via a gateway."""
    scope = _SCOPE_LINK if via is None else _SCOPE_UNIVERSE
    body = _route(destination, scope, _UNICAST) + attr(4, index)  # RTA_OIF
    if via is not None:
        body += attr(5, socket.inet_aton(via))  # RTA_GATEWAY
    return Request(_NEWROUTE, body, what, _CREATE_OR_REPLACE)


def refuse_route(subnet: str, *, present: bool) -> Request:
    """The unreachable route over a whole subnet: an address that is no task's is refused here, not sent to the
    world."""
    body = _route(subnet, _SCOPE_UNIVERSE, _UNREACHABLE)
    if present:
        return Request(_NEWROUTE, body, f"route {subnet}", _CREATE_OR_REPLACE)
    return Request(_DELROUTE, body, f"route {subnet}", fine=frozenset({errno.ESRCH}))


def add_neighbour(index: int, address: str, mac: bytes, what: str) -> Request:
    body = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _NUD_PERMANENT, 0, 0)
    return Request(_NEWNEIGH, body + attr(1, socket.inet_aton(address)) + attr(2, mac), what, _CREATE_OR_REPLACE)


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


def _gen_none() -> bytes:
    return attr(_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))


def _route(destination: str, scope: int, kind: int) -> bytes:
    network = ipaddress.ip_network(destination)
    head = (socket.AF_INET, network.prefixlen, 0, 0, _TABLE_MAIN, _PROTO_STATIC, scope, kind, 0)
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
