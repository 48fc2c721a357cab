"""The tasks' side of the resolver: a pair of sockets in each task's network namespace, and what is answered on them.

The socket a query comes in by says which task asks, and no container can reach another's. An answer leaves by the same
socket to the address the query came from: it cannot get out of that namespace.
"""

from __future__ import annotations

import socket

from agent.resolver import codec
from agent.resolver.forward import Done, Forwarder
from agent.resolver.loop import READ, WRITE, Loop, Timer
from agent.resolver.zone import Asker, Zone

BURST = 32  # datagrams of one task before it is another's turn
CONNECTIONS = 16  # of one task, over TCP; one more closes the oldest
CONNECTIONS_ALL = 1024  # of all; one more is closed at once
IDLE = 10.0  # seconds, RFC 7766 §6.2.3
QUERY = 4096  # bytes of one query over TCP
BACKLOG = 1 << 18  # bytes a client has not taken yet


class Server:
    """`tasks`: who is served."""

    def __init__(self, loop: Loop, forwarder: Forwarder) -> None:
        self.loop, self.forwarder = loop, forwarder
        self.zone = Zone()
        self.tasks: dict[str, Room] = {}
        self.connections = 0

    def serve(self, task: str, space: str, udp: socket.socket, tcp: socket.socket) -> None:
        self.drop(task)
        self.tasks[task] = Room(self, task, space, udp, tcp)

    def drop(self, task: str) -> None:
        room = self.tasks.pop(task, None)
        if room is not None:
            room.close()

    def asker(self, task: str) -> Asker:
        return self.zone.askers.get(task) or Asker()


class Room:
    """One task. `space`: which namespace its sockets are in."""

    def __init__(self, server: Server, task: str, space: str, udp: socket.socket, tcp: socket.socket) -> None:
        self.server, self.task, self.space, self.udp, self.tcp = server, task, space, udp, tcp
        self.turn = 0
        self.clients: dict[Client, None] = {}
        self.closed = False
        for each, call in ((udp, self._datagrams), (tcp, self._accept)):
            each.setblocking(False)
            server.loop.add(each.fileno(), call)

    def close(self) -> None:
        self.closed = True
        for client in list(self.clients):
            client.close()
        for each in (self.udp, self.tcp):
            self.server.loop.remove(each.fileno())
            each.close()

    def _datagrams(self, events: int) -> None:
        for _ in range(BURST):
            try:
                raw, address = self.udp.recvfrom(65535)
            except OSError:  # nothing more; or an earlier answer met a closed port
                return
            self.handle(raw, self._sender(address), tcp=False)
            if self.closed:
                return

    def _sender(self, address: tuple[str, int]) -> Done:
        def send(answer: bytes) -> None:
            if not self.closed:
                try:
                    self.udp.sendto(answer, address)
                except OSError:
                    pass  # the asker is gone, or its buffer full: it asks again

        return send

    def handle(self, raw: bytes, done: Done, *, tcp: bool) -> bool:
        """Answer one query; False when it was none."""
        try:
            query = codec.Query(raw)
        except codec.Malformed:
            return False
        if query.refusal:
            done(codec.respond(query, query.refusal, ours=False, tcp=tcp))
            return True
        self.turn += 1
        asker = self.server.asker(self.task)
        answer = asker.answer(query, self.turn, tcp=tcp)
        if answer is None and not asker.outside:
            answer = codec.respond(query, codec.NXDOMAIN, tcp=tcp)
        if answer is not None:
            done(answer)
        else:
            self.server.forwarder.ask(query, self.task, asker.servers, done, tcp=tcp)
        return True

    def _accept(self, events: int) -> None:
        try:
            made, _ = self.tcp.accept()
        except OSError:
            return
        if self.server.connections >= CONNECTIONS_ALL:
            made.close()
            return
        made.setblocking(False)
        while len(self.clients) >= CONNECTIONS:
            next(iter(self.clients)).close()
        self.clients[Client(self, made)] = None


class Client:
    """One connection: messages of two bytes' length each (RFC 1035 §4.2.2); answers in the order they become known."""

    def __init__(self, room: Room, connection: socket.socket) -> None:
        self.room, self.connection = room, connection
        self.read = self.out = b""
        self.closed = False
        room.server.connections += 1
        self.timer: Timer = room.server.loop.after(IDLE, self.close)
        room.server.loop.add(connection.fileno(), self._ready)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.timer.cancel()
            self.room.server.connections -= 1
            self.room.clients.pop(self, None)
            self.room.server.loop.remove(self.connection.fileno())
            self.connection.close()

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE and self.out:
                self._flush()
            if not events & ~WRITE:
                return
            data = self.connection.recv(QUERY)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.timer.cancel()
        self.timer = self.room.server.loop.after(IDLE, self.close)
        self.read += data
        while not self.closed and len(self.read) >= 2:
            length = int.from_bytes(self.read[:2], "big")
            if length > QUERY:
                self.close()
                return
            if len(self.read) < 2 + length:
                return
            raw, self.read = self.read[2 : 2 + length], self.read[2 + length :]
            if not self.room.handle(raw, self._answer, tcp=True):
                self.close()

    def _answer(self, answer: bytes) -> None:
        if self.closed:
            return
        self.out += len(answer).to_bytes(2, "big") + answer
        try:
            self._flush()
        except OSError:
            self.close()

    def _flush(self) -> None:
        try:
            self.out = self.out[self.connection.send(self.out) :]
        except BlockingIOError:
            pass
        if len(self.out) > BACKLOG:
            self.close()
            return
        self.room.server.loop.modify(self.connection.fileno(), READ | WRITE if self.out else READ)
