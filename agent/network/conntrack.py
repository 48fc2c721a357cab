"""Forgets tracked flows of an address that is no task's any more, or at which nothing runs (ctnetlink). Blocking.

Why: a client that keeps sending UDP to a published port keeps its flow alive, and with it the translation to a task
that is gone; and a new task that gets the old address must not inherit "established" flows.
Numbers: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable
from pathlib import Path

from agent.network.netlink import NETFILTER, NLM_F_DUMP, Netlink, Request, attr, attrs

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
ANY_FAMILY = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
_TUPLE_ORIG, REPLY, _ID, _FILTER = 1, 2, 12, 25
_TUPLE_IP, SOURCES, _TARGETS = 1, (1, 3), (2, 4)  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; CTA_IP_V4_DST, CTA_IP_V6_DST
_TUPLE_PROTO, _PROTO_NUM = 2, 1
_NO_END = frozenset({socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6})  # flows that only silence ends
_F_SOURCE = 1  # CTA_FILTER_F_CTA_IP_SRC
_FLAGS = {_TUPLE_ORIG: 1, REPLY: 2}  # CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS
_MANY, _BATCH = 5000, 100  # each answer to a request takes a kilobyte of a socket that has 208
_GONE = frozenset({errno.ENOENT})
_NESTED = 0x8000


def forget(addresses: Collection[str], silent: Collection[str] = ()) -> None:
    """Delete every flow that one of `addresses` began or answers, and of `silent` ones those that were translated to
    them and that only silence ends (UDP, echo): the next datagram finds another task. Walking the kernel's table costs
    about 9 ms however few flows there are, so forget many together; one alone, on a busy host, is filtered by the
    kernel (since 5.8)."""
    count = tracked()
    if not (addresses or silent) or not count:
        return
    gone, mute = (frozenset(ipaddress.ip_address(one).packed for one in some) for some in (addresses, silent))
    with Netlink(NETFILTER) as netlink:
        if count > _MANY and len(gone | mute) == 1:
            bodies = [body for side in _FLAGS for body in dump(netlink, _filter(side, min(gone | mute)))]
        else:
            bodies = dump(netlink, ANY_FAMILY)
        _delete(netlink, (body for body in bodies if gone & _senders(body) or _translated(body) & mute))


def forget_strays(subnets: Collection[str], kept: Collection[str]) -> None:
    """Delete every flow that an address of `subnets` which is not in `kept` began or answers: whoever took its task
    away was killed before the flows were forgotten. A client that takes the same port again would be sent there for as
    long as the kernel remembers."""
    if not tracked():
        return
    nets = [ipaddress.ip_network(one) for one in subnets]
    own = frozenset(ipaddress.ip_address(one).packed for one in kept)

    def strays(body: bytes) -> bool:
        senders = (ipaddress.ip_address(one) for one in _senders(body) - own if one)
        return any(sender in net for sender in senders for net in nets)

    with Netlink(NETFILTER) as netlink:
        _delete(netlink, filter(strays, dump(netlink, ANY_FAMILY)))


def _delete(netlink: Netlink, bodies: Iterable[bytes]) -> None:
    requests = [Request(_DELETE, flow, "flow", fine=_GONE) for flow in sorted({_identity(body) for body in bodies})]
    for at in range(0, len(requests), _BATCH):
        netlink.request(*requests[at : at + _BATCH])


def tracked() -> int:
    """How many flows the kernel knows."""
    try:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    except FileNotFoundError:
        return 0  # connection tracking was never loaded


def dump(netlink: Netlink, wanted: bytes) -> list[bytes]:
    """The flows that are wanted, each as its message's body."""
    return [body for _, body in netlink.query(_GET, wanted, "flows", NLM_F_DUMP)]


def _filter(side: int, source: bytes) -> bytes:
    """With the family's head."""
    family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
    wanted = attr(side | _NESTED, attr(_TUPLE_IP | _NESTED, attr(SOURCES[family == socket.AF_INET6], source)))
    return struct.pack("=BBH", family, 0, 0) + wanted + attr(_FILTER | _NESTED, attr(_FLAGS[side], _F_SOURCE))


def _senders(body: bytes) -> frozenset[bytes]:
    """The source of each direction."""
    return frozenset(ip(body, side, SOURCES) for side in _FLAGS)


def _translated(body: bytes) -> frozenset[bytes]:
    """Who answers a flow without an end that was sent to another address."""
    answers = ip(body, REPLY, SOURCES)
    protocol = dict(attrs(part(body, _TUPLE_ORIG).get(_TUPLE_PROTO, b""))).get(_PROTO_NUM, b"\0")
    endless = protocol[0] in _NO_END and ip(body, _TUPLE_ORIG, _TARGETS) != answers
    return frozenset({answers} if endless else ())


def ip(body: bytes, side: int, keys: tuple[int, int]) -> bytes:
    """An address of one direction, of whichever family; b"" when there is none."""
    found = dict(attrs(part(body, side).get(_TUPLE_IP, b"")))
    return found.get(keys[0]) or found.get(keys[1], b"")


def part(body: bytes, key: int) -> dict[int, bytes]:
    """A nested attribute of a flow."""
    return dict(attrs(dict(attrs(body[4:])).get(key, b"")))


def _identity(body: bytes) -> bytes:
    """What names one flow: its family, its original tuple and its id (another may have taken the tuple meanwhile)."""
    parts = {key: value for key, value in attrs(body[4:]) if key in (_TUPLE_ORIG, _ID)}
    return body[:4] + attr(_TUPLE_ORIG | _NESTED, parts[_TUPLE_ORIG]) + (attr(_ID, parts[_ID]) if _ID in parts else b"")
