"""Listeners and free ports, against real sockets in a namespace of the test's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from agent.kit.errors import Temporary
from agent.network import ports
from agent.wire.messages import Listener
from tests.support.netns import Namespace

pytestmark = pytest.mark.host
ME = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"


@pytest.fixture(autouse=True)
def alone(host: Namespace) -> Namespace:
    return host


def bound(family: int, kind: int, address: str, port: int) -> socket.socket:
    made = socket.socket(family, kind)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


def test_who_listens_where(sockets: list[socket.socket]) -> None:
    sockets += [
        bound(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8080),
        bound(socket.AF_INET6, socket.SOCK_STREAM, "::1", 8081),
        bound(socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0", 53),
    ]
    assert ports.listeners() == (
        Listener(protocol="tcp", address="127.0.0.1", port=8080, holder=ME),
        Listener(protocol="tcp", address="::1", port=8081, holder=ME),
        Listener(protocol="udp", address="0.0.0.0", port=53, holder=ME),
    )
    assert [one.holder for one in ports.listeners({53})] == ["", "", ME]
    assert [one.holder for one in ports.listeners(())] == ["", "", ""]


def test_a_connection_is_no_listener(sockets: list[socket.socket]) -> None:
    server = bound(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8080)
    client = socket.create_connection(("127.0.0.1", 8080))
    accepted, _ = server.accept()
    sockets += [server, client, accepted]
    datagram = bound(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", 5000)
    datagram.connect(("127.0.0.1", 5001))
    sockets.append(datagram)
    assert [(one.protocol, one.port) for one in ports.listeners()] == [("tcp", 8080)]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_free_port_is_neither_held_nor_taken(protocol: Literal["tcp", "udp"], sockets: list[socket.socket]) -> None:
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40003")
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    sockets.append(bound(socket.AF_INET, kind, "127.0.0.1", 40000))
    assert ports.free_port(protocol, "", {40001, 40002}) == 40003
    assert ports.free_port(protocol, "127.0.0.2", {40001, 40002, 40003}) == 40000, "held on another address only"
    with pytest.raises(Temporary, match="between 40000 and 40003") as caught:
        ports.free_port(protocol, "", {40001, 40002, 40003})
    assert caught.value.code == "no-free-port"


def test_of_a_range_the_first_that_is_free(sockets: list[socket.socket]) -> None:
    """A wildcard port is free on both families or not at all."""
    sockets += [
        bound(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8000),
        bound(socket.AF_INET6, socket.SOCK_STREAM, "::1", 8002),
    ]
    assert ports.free_port("tcp", "", {8001}, (8000, 8003)) == 8003
    assert ports.free_port("tcp", "127.0.0.1", {8001}, (8000, 8003)) == 8002
    with pytest.raises(Temporary, match="between 8000 and 8002") as caught:
        ports.free_port("tcp", "", {8001}, (8000, 8002))
    assert "range" in caught.value.hint


def test_the_kernels_format_of_addresses(tmp_path: Path) -> None:
    row = "   0: {} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n"
    (tmp_path / "tcp").write_text("header\n" + row.format("0100007F:1F90"))
    (tmp_path / "tcp6").write_text("header\n" + row.format("0000000000000000FFFF00000100007F:0016"))
    found = ports.listeners((), tmp_path)
    assert [(one.address, one.port) for one in found] == [("127.0.0.1", 8080), ("::ffff:127.0.0.1", 22)]
