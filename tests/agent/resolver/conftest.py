"""A resolver in a thread of the test, on loopback sockets; servers of the outside that answer as told."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from agent.resolver.cache import Cache
from agent.resolver.forward import Forwarder
from agent.resolver.loop import Loop
from agent.resolver.server import Server
from agent.resolver.servers import Servers
from agent.resolver.zone import Zone

PATIENCE = 5.0
Answer = Callable[[dns.message.Message], dns.message.Message | bytes | None]


def records(*texts: str, code: int = 0) -> Answer:
    """An outside's answer: "NAME TTL IN TYPE DATA" each."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        made = dns.message.make_response(query)
        made.set_rcode(dns.rcode.Rcode(code))
        for text in texts:
            made.answer.append(dns.rrset.from_text(*text.split(" ", 4)))
        return made

    return answer


def pair(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port; 0: one that is free for both."""
    while True:
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((address, port))
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
            continue
        tcp.listen()
        return udp, tcp


class Outside:
    """A name server on one address, UDP and TCP. `asked`: every query, with the client's port and over what."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.answer: Answer = records("example.org. 60 IN A 192.0.2.80")
        self.asked: list[tuple[str, int, dns.message.Message]] = []
        self.udp, self.tcp = pair(address, port)
        self.port = self.udp.getsockname()[1]
        for work in (self._datagrams, self._connections):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """Its ports are closed ports from now on."""
        for each in (self.udp, self.tcp):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()

    def _reply(self, over: str, raw: bytes, port: int) -> bytes | None:
        query = dns.message.from_wire(raw)
        self.asked.append((over, port, query))
        made = self.answer(query)
        return made.to_wire() if isinstance(made, dns.message.Message) else made

    def _datagrams(self) -> None:
        try:
            while True:
                raw, client = self.udp.recvfrom(65535)
                if not raw:  # shut down
                    return
                if (made := self._reply("udp", raw, client[1])) is not None:
                    self.udp.sendto(made, client)
        except OSError:
            return

    def _connections(self) -> None:
        try:
            while True:
                connection, client = self.tcp.accept()
                with connection, suppress(ConnectionError):
                    length = int.from_bytes(connection.recv(2), "big")
                    if (made := self._reply("tcp", connection.recv(length), client[1])) is not None:
                        connection.sendall(len(made).to_bytes(2, "big") + made)
        except OSError:
            return


class Bench:
    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._stack = stack
        self.resolv = root / "resolv.conf"
        self.loop, self.cache = Loop(), Cache()
        self.outside = self.another("127.0.0.1", 0)
        self.resolv.write_text("nameserver 127.0.0.1\n")
        self.forwarder = Forwarder(self.loop, Servers(str(self.resolv)), self.cache, port=self.outside.port, step=0.5)
        self.server = Server(self.loop, self.forwarder)
        self.addresses: dict[str, tuple[str, int]] = {}
        self._wake, self._heard = os.pipe()
        self.calls: list[Callable[[], Any]] = []
        self.loop.add(self._wake, self._run_calls)
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            self.loop.run_once()

    def _run_calls(self, events: int) -> None:
        os.read(self._wake, 1)
        self.calls.pop(0)()

    def inside(self, call: Callable[[], Any]) -> Any:
        """`call()` in the resolver's own thread; its result."""
        done, result = threading.Event(), []

        def run() -> None:
            result.append(call())
            done.set()

        self.calls.append(run)
        os.write(self._heard, b"x")
        assert done.wait(PATIENCE)
        return result[0]

    def close(self) -> None:
        self.inside(lambda: setattr(self, "_over", True))
        self._thread.join(PATIENCE)
        while self.forwarder.total:  # each has its end
            self.loop.run_once()
        for task in list(self.server.tasks):
            self.server.drop(task)
        self.loop.close()
        os.close(self._wake)
        os.close(self._heard)

    def another(self, address: str, port: int | None = None) -> Outside:
        made = Outside(address, self.outside.port if port is None else port)
        self._stack.callback(made.close)
        return made

    def task(self, name: str) -> None:
        udp, tcp = pair("127.0.0.1", 0)
        self.addresses[name] = udp.getsockname()
        self.inside(lambda: self.server.serve(name, "1:1", udp, tcp))

    def zone(self, names: dict[str, list[str]], **tasks: dict[str, Any]) -> None:
        """`tasks`: what differs from "sees the names and the outside"."""
        seen = {"view": 0, "own": {}, "outside": True, "servers": []}
        document = {
            "views": [{"names": names, "pointers": {a: name for name, all_ in names.items() for a in all_}}],
            "tasks": {task: {**seen, **differs} for task, differs in tasks.items()},
        }
        self.inside(lambda: setattr(self.server, "zone", Zone(json.dumps(document))))

    def ask(
        self, name: str, kind: str = "A", task: str = "web", tcp: bool = False, **options: Any
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)
        address, port = self.addresses[task]
        send = dns.query.tcp if tcp else dns.query.udp
        return send(query, address, port=port, timeout=PATIENCE)

    def look_up(self, name: str, kind: str = "A", task: str = "web", **options: Any) -> list[str] | str:
        """Data in order, or the code of an answer that has none, "NODATA" for an empty one."""
        found = self.ask(name, kind, task, **options)
        if found.rcode():
            return dns.rcode.to_text(found.rcode())
        data = [str(item) for rrset in found.answer for item in rrset]
        return data or "NODATA"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        made = Bench(tmp_path, stack)
        made.start()
        made.task("web")
        yield made
        made.close()
