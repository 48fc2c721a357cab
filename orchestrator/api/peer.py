"""The HTTP protocol of the API's socket: as uvicorn's, and it knows who is at the other end (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import asyncio
import socket
import struct

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestrator.applying import Peer

_UCRED = struct.Struct("iII")  # pid, uid, gid


class PeerProtocol(H11Protocol):
    """Puts `peer` into the state of every request of the connection, and `connection`, its socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        self.app_state = {**self.app_state, "peer": Peer(uid=uid, gid=gid, pid=pid), "connection": connection}


def peer(request: Request) -> Peer:
    """Who sent the request. AttributeError outside of PeerProtocol: no change without a name."""
    found = request.state.peer
    assert isinstance(found, Peer)
    return found
