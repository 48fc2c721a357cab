"""What the resolver knows by itself: the names of each task's networks, as agent/decide/zone.py wrote them. Pure.

Only A, AAAA and PTR have records; of a name that is there, every other kind is "no such record", never the outside's.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

from agent.resolver import codec

TTL = 1  # seconds: looking up again costs microseconds, a stale address a failed request
_Table = dict[str, Sequence[str]]
_Packed = dict[str, tuple[list[bytes], list[bytes]]]  # name → its A data, its AAAA data


class Asker:
    """What one task may see. `servers`: whom to ask what is not here; () means the host's. `outside`: whether to ask at
    all."""

    __slots__ = ("names", "outside", "own", "pointers", "servers")

    def __init__(
        self,
        own: _Packed | None = None,
        names: _Packed | None = None,
        pointers: dict[str, bytes] | None = None,
        outside: bool = True,
        servers: tuple[str, ...] = (),
    ) -> None:
        self.own, self.names, self.pointers = own or {}, names or {}, pointers or {}
        self.outside, self.servers = outside, servers

    def answer(self, query: codec.Query, turn: int, *, tcp: bool = False) -> bytes | None:
        """None: the name is not ours. `turn`: which of several addresses comes first."""
        found = self.own.get(query.name) or self.names.get(query.name)
        kind = query.kind
        if found is None:
            pointer = self.pointers.get(query.name)
            if pointer is None:
                return None
            records = [pointer] if kind in (codec.PTR, codec.ANY) else []
            kind = codec.PTR
        else:
            records = found[kind == codec.AAAA] if kind in (codec.A, codec.AAAA, codec.ANY) else []
            kind = codec.A if kind == codec.ANY else kind
        if query.klass != codec.IN:
            records = []
        if len(records) > 1:
            first = turn % len(records)
            records = (records[first:] + records[:first])[: codec.ADDRESSES]
        made = b"".join([codec.answer(kind, data, TTL) for data in records])
        return codec.respond(query, codec.NOERROR, made, len(records), tcp=tcp)


class Zone:
    """`askers`: task → what it sees. A task that is not listed sees the outside."""

    def __init__(self, text: str = "{}") -> None:
        """ValueError, KeyError, TypeError for a document that is none of ours."""
        document = json.loads(text)
        views = [(_packed(view["names"]), _pointers(view["pointers"])) for view in document.get("views", ())]
        self.askers: dict[str, Asker] = {}
        for task, seen in document.get("tasks", {}).items():
            names, pointers = views[seen["view"]]
            servers = tuple(map(str, seen["servers"]))
            self.askers[task] = Asker(_packed(seen["own"]), names, pointers, bool(seen["outside"]), servers)


def _packed(table: _Table) -> _Packed:
    return {
        name.lower(): (
            [socket.inet_aton(address) for address in addresses if ":" not in address],
            [socket.inet_pton(socket.AF_INET6, address) for address in addresses if ":" in address],
        )
        for name, addresses in table.items()
    }


def _pointers(table: dict[str, str]) -> dict[str, bytes]:
    """address → name, as "reversed address.in-addr.arpa" → the name's wire form."""
    return {reverse(address): codec.encode_name(name) for address, name in table.items()}


def reverse(address: str) -> str:
    """RFC 1035 §3.5, RFC 3596 §2.5."""
    if ":" not in address:
        return ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    return ".".join(reversed(socket.inet_pton(socket.AF_INET6, address).hex())) + ".ip6.arpa"
