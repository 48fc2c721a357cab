"""Counts the connections that a task still answers, as the kernel tracks them (ctnetlink): what draining waits for.

UDP is left out: it has no end but silence. Numbers: include/uapi/linux/netfilter/nfnetlink_conntrack.h and
nf_conntrack_tcp.h.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from agent.kit.errors import Temporary
from agent.network import conntrack
from agent.network.coalesce import Coalesced
from agent.network.netlink import NETFILTER, Netlink, attrs

_PROTOINFO, _TCP, _STATE = 4, 1, 1
_OVER = frozenset({6, 7, 8})  # LAST_ACK, TIME_WAIT, CLOSE: nothing more is said


class TrackedFlows:
    """ports.Flows. Walking the kernel's table costs about 9 ms however few flows there are: one walk serves all who ask
    meanwhile."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "flows")
        self._asked: set[str] = set()
        self._open: dict[str, int] = {}
        self._walk = Coalesced(self._run)

    async def open(self, address: str) -> int:
        """Temporary flows-unknown."""
        self._asked.add(address)
        await self._walk()
        return self._open.pop(address, 0)

    async def _run(self) -> None:
        asked, self._asked = self._asked, set()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, answered, asked)
        except OSError as error:
            self._asked |= asked  # also theirs who wait for the next walk
            raise Temporary(f"cannot count connections: {error}", code="flows-unknown") from error
        self._open.update({address: found[address] for address in asked})

    def close(self) -> None:
        self._thread.shutdown()


def answered(addresses: Collection[str]) -> Counter[str]:
    """How many TCP connections that others began each of `addresses` answers. Blocking."""
    if not conntrack.tracked():
        return Counter()
    wanted = {ipaddress.ip_address(address).packed: address for address in addresses}
    with Netlink(NETFILTER) as netlink:
        servers = (_server(body) for body in conntrack.dump(netlink, conntrack.ANY_FAMILY))
        return Counter(wanted[server] for server in servers if server in wanted)


def _server(body: bytes) -> bytes:
    """Who answers a TCP connection that is open; b"" for anything else."""
    state = dict(attrs(conntrack.part(body, _PROTOINFO).get(_TCP, b""))).get(_STATE)
    if state is None or state[0] in _OVER:
        return b""
    return conntrack.ip(body, conntrack.REPLY, conntrack.SOURCES)
