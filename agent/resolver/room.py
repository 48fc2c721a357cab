"""A task's two sockets for look-ups, and the redirection that brings 127.0.0.11:53 to them. Blocking; runs as root.

The sockets listen on a high port, so that the task itself may run a name server on *:53. Ports are rewritten on the way
out of the task's sockets, in a table of the task's own namespace, without connection tracking: a container that asks
ten thousand times a second would fill the tracking table in half a minute. A container has no CAP_NET_ADMIN and cannot
change the table; it goes with the namespace.

Messages to nf_tables are made here (linux/netfilter/nf_tables.h): a process of nft(8) per task would cost milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

from agent.network.netlink import NETFILTER, NLM_F_CREATE, NLM_F_EXCL, Netlink, Request, attr, entered

ADDRESS, PORT = "127.0.0.11", 61053  # above every port the kernel picks by itself
_SUBSYSTEM, _FAMILY = 10, 2  # NFNL_SUBSYS_NFTABLES, NFPROTO_IPV4
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_APPEND, _NESTED = 0x800, 0x8000
_OUTPUT, _RAW = 3, -300  # NF_INET_LOCAL_OUT, the priority before connection tracking
_TABLE, _CHAIN, _REGISTER = "gorae", "names", 8
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_SOURCE, _DESTINATION = (12, 0), (16, 2)  # where address (in the IPv4 header) and port stand
_CHECKSUM = {socket.IPPROTO_TCP: 16, socket.IPPROTO_UDP: 6}
_L4PROTO = 16  # NFT_META_L4PROTO


def identity(net_ns: Path) -> str:
    """Which namespace a path is. OSError."""
    status = net_ns.stat()
    return f"{status.st_dev}:{status.st_ino}"


def opened(net_ns: Path) -> tuple[socket.socket, socket.socket]:
    """(udp, tcp) inside the namespace, where its look-ups arrive. OSError, EADDRINUSE if the container sits there."""
    fd = os.open(net_ns, os.O_RDONLY | os.O_CLOEXEC)
    made: list[socket.socket] = []
    try:
        with entered(fd):
            made += (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
            netlink = Netlink(NETFILTER)
        with netlink:
            udp, tcp = made
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may still be dying
            for each in made:
                each.bind((ADDRESS, PORT))
            tcp.listen(64)
            try:
                netlink.transaction(_SUBSYSTEM, redirection())
            except OSError as error:
                if error.errno != errno.EEXIST:  # there since an earlier time, perhaps of another version
                    raise
                netlink.transaction(_SUBSYSTEM, redirection(again=True))
        return udp, tcp
    except BaseException:
        for each in made:
            each.close()
        raise
    finally:
        os.close(fd)


def redirection(*, again: bool = False) -> list[Request]:
    """The table: to ADDRESS:53 becomes to PORT, from ADDRESS:PORT becomes from 53. `again`: in place of one that is
    there, which costs a grace period of the kernel; else EEXIST."""
    name = attr(1, _TABLE)
    hook = _nest(4, _number(1, _OUTPUT), _number(2, _RAW & 0xFFFFFFFF))
    chain = _request(_NEWCHAIN, attr(1, _TABLE) + attr(3, _CHAIN) + hook + attr(7, "filter"), NLM_F_CREATE)
    table = _request(_NEWTABLE, name, NLM_F_CREATE if again else NLM_F_CREATE | NLM_F_EXCL)
    before = [table, _request(_DELTABLE, name)] if again else []
    rules = [
        _rule(protocol, place, old, new)
        for protocol in _CHECKSUM
        for place, old, new in ((_DESTINATION, 53, PORT), (_SOURCE, PORT, 53))
    ]
    return [*before, table, chain, *rules]


def _rule(protocol: int, place: tuple[int, int], old: int, new: int) -> Request:
    address, port = place
    expressions = (
        _load(_NETWORK_HEADER, address, 4),
        _equals(socket.inet_aton(ADDRESS)),
        _expression("meta", _number(1, _REGISTER), _number(2, _L4PROTO)),
        _equals(bytes([protocol])),
        _load(_TRANSPORT_HEADER, port, 2),
        _equals(struct.pack(">H", old)),
        _expression("immediate", _number(1, _REGISTER), _nest(2, attr(1, struct.pack(">H", new)))),
        _expression(
            "payload",
            _number(5, _REGISTER),
            _number(2, _TRANSPORT_HEADER),
            _number(3, port),
            _number(4, 2),
            _number(6, 1),  # NFT_PAYLOAD_CSUM_INET
            _number(7, _CHECKSUM[protocol]),
        ),
    )
    body = attr(1, _TABLE) + attr(2, _CHAIN) + _nest(4, *expressions)
    return _request(_NEWRULE, body, NLM_F_CREATE | _APPEND)


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, length))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0), _nest(3, attr(1, value)))


def _expression(name: str, *data: bytes) -> bytes:
    return _nest(1, attr(1, name), _nest(2, *data))


def _nest(kind: int, *inside: bytes) -> bytes:
    return attr(kind | _NESTED, b"".join(inside))


def _number(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value))


def _request(kind: int, body: bytes, flags: int = 0) -> Request:
    head = struct.pack(">BBH", _FAMILY, 0, 0)
    return Request(_SUBSYSTEM << 8 | kind, head + body, "the redirection of look-ups", flags)
