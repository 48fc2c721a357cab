"""Queries put to servers of the outside: over as the client's came, from a port and under an id of their own each.

A socket per try, connected: the kernel takes the answers of that server only, and whoever would forge one has to guess
port and id (RFC 5452). When a server does not answer in time the next is asked as well; the first good answer wins.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from agent.resolver import codec
from agent.resolver.cache import Cache
from agent.resolver.loop import READ, WRITE, Loop, Timer
from agent.resolver.servers import Servers, family

STEP, TRIES = 1.5, 3  # seconds before the next server, tries: done before the client's usual 5 s are over
AT_ONCE, AT_ONCE_EACH = 512, 128  # queries under way, of all tasks and of one
_TRY_ANOTHER = frozenset({codec.SERVFAIL, codec.REFUSED, codec.NOTIMP})
Done = Callable[[bytes], None]


class Forwarder:
    def __init__(self, loop: Loop, servers: Servers, cache: Cache, *, port: int = 53, step: float = STEP) -> None:
        self.loop, self.servers, self.cache, self.port, self.step = loop, servers, cache, port, step
        self.under_way: dict[str, int] = {}  # task → queries
        self.total = 0

    def ask(self, query: codec.Query, task: str, own: tuple[str, ...], done: Done, *, tcp: bool = False) -> None:
        """`done` is called once, with an answer for the client: now if it is known or there is no room, else later."""
        now = time.monotonic()
        kept = self.cache.get(query, own, now)
        if kept is not None and (tcp or len(kept) <= query.room):
            done(kept)
        elif self.total >= AT_ONCE or self.under_way.get(task, 0) >= AT_ONCE_EACH:
            done(codec.respond(query, codec.SERVFAIL, ours=False))
        else:
            self.total += 1
            self.under_way[task] = self.under_way.get(task, 0) + 1
            _Forward(self, query, task, own, done, tcp).next()

    def ended(self, task: str) -> None:
        self.total -= 1
        self.under_way[task] -= 1
        if not self.under_way[task]:
            del self.under_way[task]


class _Forward:
    """One query until it is answered or given up."""

    def __init__(
        self, forwarder: Forwarder, query: codec.Query, task: str, own: tuple[str, ...], done: Done, tcp: bool
    ) -> None:
        self.forwarder, self.query, self.task, self.own, self.done, self.tcp = forwarder, query, task, own, done, tcp
        self.order = forwarder.servers.order(own, time.monotonic())
        self.left = max(TRIES, len(self.order)) if self.order else 0
        self.tries: list[_Try] = []
        self.timer: Timer | None = None
        self.last: bytes | None = None  # an answer that says the server could not
        self.over = False

    def next(self) -> None:
        """Ask the next server; none is left: give up."""
        if self.over:
            return
        if self.timer is not None:
            self.timer.cancel()
        while self.left:
            self.left -= 1
            server = self.order[len(self.tries) % len(self.order)]
            made = _Try(self, server)
            self.tries.append(made)
            if made.begin():
                self.timer = self.forwarder.loop.after(self.forwarder.step, lambda: self.late(self.tries[-1].server))
                return
            self.forwarder.servers.failed(server, time.monotonic())
        self.finish(self.last or codec.respond(self.query, codec.SERVFAIL, ours=False, tcp=self.tcp))

    def late(self, server: str) -> None:
        self.forwarder.servers.failed(server, time.monotonic())
        self.next()

    def failed(self, made: _Try) -> None:
        made.close()
        self.forwarder.servers.failed(made.server, time.monotonic())
        if made is self.tries[-1]:
            self.next()

    def answered(self, made: _Try, reply: codec.Reply) -> None:
        raw = codec.under(reply.raw, self.query.id)
        if reply.code in _TRY_ANOTHER and self.left:
            self.last = raw
            self.failed(made)
            return
        self.forwarder.servers.answered(made.server)
        self.forwarder.cache.put(self.query, self.own, reply, time.monotonic())
        self.finish(raw)

    def finish(self, raw: bytes) -> None:
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        for made in self.tries:
            made.close()
        self.forwarder.ended(self.task)
        self.done(raw)


class _Try:
    def __init__(self, forward: _Forward, server: str) -> None:
        self.forward, self.server = forward, server
        self.id = int.from_bytes(os.urandom(2), "big")
        self.socket: socket.socket | None = None
        self.out = self.read = b""

    def begin(self) -> bool:
        tcp, forwarder = self.forward.tcp, self.forward.forwarder
        message = codec.under(self.forward.query.raw, self.id)
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        host, _, zone = self.server.partition("%")
        try:
            self.socket = socket.socket(family(self.server) or socket.AF_INET, kind | socket.SOCK_NONBLOCK)
            scope = (0, socket.if_nametoindex(zone)) if zone else ()
            try:
                self.socket.connect((host, forwarder.port, *scope))
            except BlockingIOError:
                pass
            if not tcp:
                self.socket.send(message)
        except OSError:
            self.close()
            return False
        self.out = len(message).to_bytes(2, "big") + message if tcp else b""
        forwarder.loop.add(self.socket.fileno(), self.ready, WRITE if tcp else READ)
        return True

    def ready(self, events: int) -> None:
        if self.socket is None:
            return
        try:
            if self.out:
                self.out = self.out[self.socket.send(self.out) :]
                if not self.out:
                    self.forward.forwarder.loop.modify(self.socket.fileno(), READ)
                return
            data = self.socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self.forward.failed(self)
            return
        if self.forward.tcp:
            self.read += data
            length = int.from_bytes(self.read[:2], "big")
            if not data:
                self.forward.failed(self)
                return
            if len(self.read) < 2 + length or len(self.read) < 2:
                return
            data = self.read[2 : 2 + length]
        try:
            reply = codec.Reply(data, self.forward.query, self.id)
        except codec.Malformed:
            if self.forward.tcp:
                self.forward.failed(self)
            return  # over UDP perhaps a forged one: the true one may come yet
        self.forward.answered(self, reply)

    def close(self) -> None:
        if self.socket is not None:
            self.forward.forwarder.loop.remove(self.socket.fileno())
            self.socket.close()
            self.socket = None
