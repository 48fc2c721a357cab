"""What agent and resolver say to each other over a SOCK_SEQPACKET socket: one JSON object a packet, with descriptors.

    resolver → agent, at the start   {"task", "space"} + udp, tcp   each task it serves
                                     {"ready": true}
    agent → resolver                 {"task", "space"} + udp, tcp   serve this task
                                     {"drop": TASK}                 no longer
                                     {"zone": true} + file          read these names from now on

Both keep the sockets, so that the death of either loses none, nor a query that waits in one. `space` names the network
namespace they are in: a sandbox that was made anew has another.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence

_PACKET, _DESCRIPTORS = 4096, 4


def send(connection: socket.socket, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
    """OSError when the other is gone or takes nothing within the socket's timeout."""
    socket.send_fds(connection, [json.dumps(message).encode()], list(descriptors))


def receive(connection: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """The next message and its descriptors, which are the caller's to close; None at the end. OSError."""
    data, descriptors, flags, _ = socket.recv_fds(connection, _PACKET, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if not isinstance(message, dict) or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError("not a message")
    return message, descriptors
