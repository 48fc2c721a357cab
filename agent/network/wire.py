"""A task's wire: one veth pair, a /32 and perhaps a /128, made, adopted and removed with netlink. Blocking; all calls
from one thread.

The kernel keeps the truth: the host's end of a pair carries "TASK STACK ADDRESS NETWORK,NETWORK" as its alias: with
IPv6, that address after a comma, each with "/LENGTH" if a file named its subnet; the networks' ids, those with IPv6
marked "~"; a "!" after them if nothing else may be reached, a "+" if the host may. It is written last, so a pair
without an alias was never finished and nobody uses it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from agent.decide.networks import default
from agent.decide.nft_rules import Member, network_id
from agent.kit.pools import GATEWAY, Slice
from agent.network import links, netlink, routes
from agent.network.netlink import Netlink
from agent.ports import Attachment

_ETH = "eth0"
_ALIAS = 255
_LEAST_6 = 1280  # bytes, RFC 8200 §5: on a narrower link the kernel has no IPv6
_IPV6 = Path("/proc/sys/net/ipv6/conf")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def link_name(instance: str, index: int) -> str:
    """ "gINSTANCE" + the allocation's index in base 36: 11 characters of the 15 that are possible."""
    digits = ""
    while index or not digits:
        index, digit = divmod(index, 36)
        digits = _DIGITS[digit] + digits
    return f"g{instance}{digits}"


def alias(attachment: Attachment) -> str:
    """The record on a pair; `_record`, back. As much of the stack's name as fits is there for people."""
    addresses = ",".join(_written(one, attachment.subnets) for one in (attachment.address, attachment.address_6) if one)
    marks = {network_id(name): "~" if name in attachment.networks_6 else "" for name in attachment.networks}
    networks = ",".join(f"{network}{mark}" for network, mark in sorted(marks.items()))
    words = f" {addresses} {networks}{'' if attachment.outside else '!'}{'+' if attachment.host else ''}"
    return f"{attachment.task} {attachment.stack}"[: _ALIAS - len(words)] + words


def _written(address: str, subnets: Sequence[str]) -> str:
    """ "ADDRESS", or "ADDRESS/LENGTH" of one out of a subnet."""
    found = (network for network in map(ip_network, subnets) if ip_address(address) in network)
    return next((f"{address}/{network.prefixlen}" for network in found), address)


def seats(attachment: Attachment, link: str) -> tuple[Member, ...]:
    return _seats(link, alias(attachment).split()[2:])


def _seats(link: str, words: list[str]) -> tuple[Member, ...]:
    addresses, written = words
    host, written = written.endswith("+"), written.removesuffix("+")
    networks, outside = written.removesuffix("!").split(","), not written.endswith("!")
    found = []
    for one in addresses.split(","):
        address, length = one.partition("/")[::2]
        subnet = str(ip_network(one, strict=False)) if length else ""
        on = frozenset(name.removesuffix("~") for name in networks if ":" not in address or name.endswith("~"))
        found.append(Member(link, address, on, outside, host, subnet))
    return tuple(found)


def _record(link: links.Link) -> tuple[str, tuple[Member, ...]] | None:
    """(task, its place of each family) of a finished pair. One that an older version made is on its stack's own
    network."""
    words = link.alias.split()
    if len(words) == 3:
        return words[0], (Member(link.name, words[2], frozenset({network_id(default(words[1]))})),)
    return (words[0], _seats(link.name, words[2:])) if len(words) == 4 else None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _allow_ipv6(net_ns: int, name: str) -> None:
    """On both ends, whatever the host's default for new links is; no router is listened to in the task.
    OSError when the kernel has no IPv6."""
    if not _IPV6.exists():
        raise OSError(errno.EAFNOSUPPORT, "this host has no IPv6, which a network of its has")
    (_IPV6 / name / "disable_ipv6").write_text("0")
    with netlink.entered(net_ns):
        for key in ("accept_ra", "disable_ipv6"):
            (_IPV6 / _ETH / key).write_text("0")


class Wire:
    def __init__(self, instance: str, slice_: Slice) -> None:
        self._instance = instance
        self._slice = slice_
        self._socket: Netlink | None = None
        self._mtu = 0

    def present(self) -> dict[str, tuple[Member, ...]]:
        """Task → its places, of every finished pair of this instance."""
        return dict(record for link in self._ours() if (record := _record(link)))

    def tidy(self) -> None:
        """Delete pairs that were never finished."""
        self.remove([link.name for link in self._ours() if _record(link) is None])

    def prepare(self) -> None:
        """Before the first pair: addresses of the subnet that are no task's are refused here; the uplink's MTU is
        read."""
        self._lead(self._slice.subnet, self._slice.virtual_nets[0])
        found = [links.find(self._host, name) for name in routes.uplinks()]
        self._mtu = min((link.mtu for link in found if link), default=1500)

    def prepare_6(self) -> None:
        self._lead(self._slice.subnet_6, self._slice.virtual_nets[1])

    def _lead(self, subnet: str, virtuals: str) -> None:
        loopback = links.find(self._host, "lo")
        requests = [links.add_virtual_route(virtuals, loopback.index)] if loopback else []
        self._host.request(links.refuse_route(subnet), *requests)

    def withdraw(self) -> None:
        slice_ = self._slice
        self._host.request(*map(links.remove_route, (slice_.subnet, slice_.subnet_6, *slice_.virtual_nets)))

    def connect(self, attachment: Attachment, name: str) -> None:
        """Everything between the task's eth0 and the host's routing table, or what of it is missing. OSError."""
        ends = ours, theirs = links.macs(attachment.address, attachment.mac)
        mtu = max(attachment.mtu or self._mtu, _LEAST_6 if attachment.address_6 else 0)
        with _opened(attachment.net_ns) as net_ns, Netlink.inside(net_ns) as inside:
            host, task = self._pair(inside, net_ns, name, ends, mtu)
            loopback = links.find(inside, "lo")
            # The host's end first: the kernel makes the end that comes up last ready to send at once, the other a
            # moment later, and a SYN lost in that moment costs the task a second.
            self._host.request(
                *links.set_up_host(host.index, name),
                # The gateway is an address of the host on each pair, so that the host has a source address towards
                # its tasks even before it has any other (a machine that boots without its network).
                links.add_address(host.index, GATEWAY, f"address {GATEWAY} on {name}", local_only=True),
                links.add_neighbour(host.index, attachment.address, theirs, f"neighbour {attachment.address}"),
                links.add_route(f"{attachment.address}/32", f"route {attachment.address}", index=host.index),
            )
            inside.request(
                *(links.set_up(loopback.index, "lo") if loopback else []),
                *links.set_up(task.index, f"{_ETH} of {attachment.task}"),
                links.add_address(task.index, attachment.address, f"address {attachment.address}"),
                links.add_neighbour(task.index, GATEWAY, ours, f"neighbour {GATEWAY}"),
                links.add_route(f"{GATEWAY}/32", f"route {GATEWAY}", index=task.index),
                links.add_route("0.0.0.0/0", "default route", index=task.index, via=GATEWAY),
            )
            if address := attachment.address_6:
                _allow_ipv6(net_ns, name)
                gateway = self._slice.gateway_6
                self._host.request(
                    links.add_address(host.index, gateway, f"address {gateway} on {name}", local_only=True),
                    links.add_neighbour(host.index, address, theirs, f"neighbour {address}"),
                    links.add_route(f"{address}/128", f"route {address}", index=host.index),
                )
                inside.request(
                    links.add_address(task.index, address, f"address {address}"),
                    links.add_neighbour(task.index, gateway, ours, f"neighbour {gateway}"),
                    links.add_route(f"{gateway}/128", f"route {gateway}", index=task.index),
                    links.add_route("::/0", "default route of IPv6", index=task.index, via=gateway),
                )
        self._host.request(links.set_alias(host.index, alias(attachment), name))
        links.find(self._host, name)  # asked for its state, the kernel (6.8 on) first finishes what is pending for it

    def isolate(self, net_ns: Path) -> None:
        """Its loopback, and no pair (one that an earlier life of the namespace had is gone with its host end)."""
        with _opened(net_ns) as fd, Netlink.inside(fd) as inside:
            if loopback := links.find(inside, "lo"):
                inside.request(*links.set_up(loopback.index, "lo"))

    def remove(self, names: Collection[str]) -> None:
        """Delete pairs by their host end; gone is success."""
        if len(names) <= 1:
            self._host.request(*(links.delete(name) for name in names))
            return
        indexes = [link.index for link in self._ours() if link.name in names]
        if indexes:
            self._host.request(*links.delete_all(indexes))

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    @property
    def _host(self) -> Netlink:
        if self._socket is None:
            self._socket = Netlink()
        return self._socket

    def _ours(self) -> list[links.Link]:
        return list(links.dump(self._host, f"g{self._instance}"))

    def _pair(
        self, inside: Netlink, net_ns: int, name: str, ends: tuple[bytes, bytes], mtu: int
    ) -> tuple[links.Link, links.Link]:
        """Both ends. One that is there is kept if its ends belong together; else (the sandbox was made anew)
        replaced."""
        for _ in range(2):
            try:
                self._host.request(links.create_pair(name, _ETH, net_ns, ends, mtu))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            host, task = links.find(self._host, name), links.find(inside, _ETH)
            if host and task and host.peer == task.index and task.peer == host.index:
                return host, task
            self._host.request(links.delete(name))
            inside.request(links.delete(_ETH))
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), f"link {name}")
