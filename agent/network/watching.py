"""Notices that someone else deleted our nftables table, from the kernel's own notifications (nfnetlink, group
nftables).

Not by `nft monitor`: it prints thousands of lines when a ruleset is flushed. It reads only the message's type and the
table's name; whoever listens asks the kernel what is there now.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

from agent.network.netlink import NETFILTER, attrs, messages

_GROUP = 7  # NFNLGRP_NFTABLES
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_DELTABLE = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE


async def deletions(table: str) -> AsyncIterator[None]:
    """Yields after each burst of notifications in which `table` may have been deleted (or some were lost)."""
    loop = asyncio.get_running_loop()
    wake = asyncio.Event()
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETFILTER)
    try:
        listener.bind((0, 0))  # without an address of its own it would count as the kernel, who hears no notifications
        listener.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        loop.add_reader(listener.fileno(), wake.set)
        yield  # it may have happened before we listened
        while True:
            await wake.wait()
            wake.clear()
            if _drain(listener, table.encode() + b"\0"):
                yield
    finally:
        loop.remove_reader(listener.fileno())
        listener.close()


def _drain(listener: socket.socket, name: bytes) -> bool:
    seen = False
    while True:
        try:
            data = listener.recv(1 << 16)
        except BlockingIOError:
            return seen
        except OSError:  # ENOBUFS: more came than the socket holds
            seen = True
            continue
        for kind, _, body in messages(data):
            if kind == _DELTABLE and any(key == 1 and value == name for key, value in attrs(body[4:])):
                seen = True
