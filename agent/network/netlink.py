"""Our own small netlink(7): one socket, requests with acknowledgements, dumps. No policy here.

Why not a library: the general ones cost tens of megabytes. Why not `ip`: a fork per call costs more than the call.
A socket stays in the network namespace it was opened in, so all work inside a task's namespace goes through a socket
made by `inside`, which enters and leaves within one call of one thread: nothing else may ever run in a foreign
namespace (a library once edited the host's eth0 that way).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.kit import syscalls

ROUTE, NETFILTER = 0, 12  # NETLINK_ROUTE, NETLINK_NETFILTER
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 16, 17  # NFNL_MSG_BATCH_*
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, seq, port
_ATTR = struct.Struct("=HH")  # struct nlattr: length, type
_TIMEOUT = 10.0  # seconds; the kernel answers within the call, so this only ends a wait that would be for ever
_NESTED = 0x3FFF  # mask off NLA_F_NESTED and NLA_F_NET_BYTEORDER


@dataclass(frozen=True, slots=True)
class Request:
    """One message. `what` names the object in an error; an errno in `fine` counts as success."""

    kind: int
    body: bytes
    what: str
    flags: int = 0
    fine: frozenset[int] = frozenset()


def attr(kind: int, value: bytes | str | int) -> bytes:
    """One struct nlattr, padded. An int is a host-order u32, a str ends with NUL."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return _ATTR.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attrs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute in `data`; stops at the first malformed one."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, at)
        if length < 4:
            return
        yield kind & _NESTED, data[at + 4 : at + length]
        at += length + (-length % 4)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, seq, body) of each message in one datagram."""
    at = 0
    while at + 16 <= len(data):
        length, kind, _, seq, _ = _HEADER.unpack_from(data, at)
        if length < 16:
            return
        yield kind, seq, data[at + 16 : at + length]
        at += length + (-length % 4)


@contextmanager
def entered(net_ns: int) -> Iterator[None]:
    """The calling thread is in the network namespace behind the descriptor `net_ns`: for making sockets and writing
    sysctls, no more.

    It is back in its own at the end; if it cannot get back, the process ends: to go on in a container's namespace would
    be worse than any crash.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(net_ns, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            try:
                syscalls.setns(home, syscalls.CLONE_NEWNET)
            except OSError:
                os.abort()
    finally:
        os.close(home)


class Netlink:
    """A socket of one netlink protocol in the caller's network namespace. Use from one thread at a time."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_TIMEOUT)
        self._seq = 0

    @classmethod
    def inside(cls, net_ns: int, protocol: int = ROUTE) -> Netlink:
        """A socket in the namespace behind the descriptor `net_ns`."""
        with entered(net_ns):
            return cls(protocol)

    def request(self, *requests: Request) -> None:
        """Send all in one datagram, in order, and read every acknowledgement. The kernel goes on after a failed
        message; the first failure is raised as OSError with its `what`."""
        if not requests:
            return
        first, frame = self._seq + 1, bytearray()
        for request in requests:
            self._seq += 1
            flags = NLM_F_REQUEST | NLM_F_ACK | request.flags
            frame += _HEADER.pack(16 + len(request.body), request.kind, flags, self._seq, 0) + request.body
            frame += b"\0" * (-len(frame) % 4)
        self._socket.send(frame)
        failures: dict[int, OSError] = {}
        waiting = set(range(first, self._seq + 1))
        while waiting:
            for kind, seq, body in messages(self._socket.recv(65536)):
                if kind == _NLMSG_ERROR and seq in waiting:
                    waiting.discard(seq)
                    request = requests[seq - first]
                    code = -struct.unpack_from("=i", body)[0]
                    if code and code not in request.fine:
                        failures[seq] = OSError(code, os.strerror(code), request.what)
        if failures:
            raise failures[min(failures)]

    def transaction(self, subsystem: int, requests: Sequence[Request]) -> None:
        """All of `requests` or none (nfnetlink's batches). OSError for the first that the kernel refuses."""
        first = self._seq + 1
        marker = struct.pack(">BBH", 0, 0, subsystem)
        frame = bytearray()
        for request in (Request(_BATCH_BEGIN, marker, ""), *requests, Request(_BATCH_END, marker, "")):
            self._seq += 1
            # Whether the marks are acknowledged depends on the kernel; what is refused is told without being asked.
            flags = NLM_F_REQUEST | request.flags | (NLM_F_ACK if request is requests[-1] else 0)
            frame += _HEADER.pack(16 + len(request.body), request.kind, flags, self._seq, 0) + request.body
            frame += b"\0" * (-len(frame) % 4)
        self._socket.send(frame)
        while True:
            for kind, seq, body in messages(self._socket.recv(65536)):
                if kind == _NLMSG_ERROR and seq >= first:
                    code = -struct.unpack_from("=i", body)[0]
                    if code:
                        what = requests[seq - first - 1].what if 0 < seq - first <= len(requests) else "a batch"
                        raise OSError(code, os.strerror(code), what)
                    if seq - first == len(requests):
                        return

    def query(self, kind: int, body: bytes, what: str, flags: int = 0) -> Iterator[tuple[int, bytes]]:
        """(type, body) of each answer: one object, or with NLM_F_DUMP all of them. OSError with `what`, e.g. ENODEV."""
        self._seq += 1
        head = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, self._seq, 0)
        self._socket.send(head + body)
        while True:
            for answer, seq, content in messages(self._socket.recv(1 << 18)):
                if seq != self._seq:
                    continue
                if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                    code = -struct.unpack_from("=i", content)[0] if len(content) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code), what)
                    return
                yield answer, content

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
