"""A host in a namespace of the test's own, with our network on it, tasks made at will and another machine on its
wire."""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from agent.kit.ids import instance_id
from agent.kit.layout import Layout
from agent.kit.pools import Slice
from agent.network.network import RoutedNetwork
from agent.ports import Attachment, Serving
from agent.wire.messages import PublishedPort
from tests.support.netns import Namespace, machine, moved, serving

LAN, CLIENT = "192.0.2.1", "192.0.2.9"
WEB = 80


@dataclass
class Room:
    """One attached task: its namespace, where a server says its name on port 80."""

    name: str
    stack: str
    space: Namespace
    address: str
    attachment: Attachment

    @property
    def address_6(self) -> str:
        return self.attachment.address_6


class World:
    def __init__(self, host: Namespace, root: Path) -> None:
        self.host = host
        self.root = root
        self.resolv = root / "resolv.conf"
        self.resolv.write_text("nameserver 192.0.2.9\n")
        self.stack = AsyncExitStack()
        self.rooms: dict[str, Room] = {}
        self.instances: list[str] = []
        self.slices: dict[RoutedNetwork, Slice] = {}
        self.network = self.instance()
        self.id, self.slice = self.instances[-1], Slice(1)

    def instance(self) -> RoutedNetwork:
        self.instances.append(instance_id())
        return self.agent(self.instances[-1], Slice(len(self.instances)))

    def agent(self, instance: str, slice_: Slice) -> RoutedNetwork:
        """An agent (again, after a crash) of an instance."""
        registry = self.root / "forwarding.json"
        network = RoutedNetwork(Layout.at(self.root), instance, slice_, registry=registry, resolv=self.resolv)
        self.slices[network] = slice_
        self.stack.push_async_callback(network.close)
        return network

    async def task(
        self,
        name: str,
        stack: str = "visits",
        network: RoutedNetwork | None = None,
        *,
        on: tuple[str, ...] = (),
        outside: bool = True,
        host: bool = False,
        on_6: tuple[str, ...] = (),
    ) -> Room:
        """`on`: its networks, the stack's default one if none is given; `on_6`: those of them with IPv6. `host`: it may
        reach the host."""
        space = Namespace()
        self.stack.callback(space.close)
        index, network = len(self.rooms), network or self.network
        address, networks = self.slices[network].address(index), frozenset(on or {f"{stack}_default"})
        address_6 = self.slices[network].twin(address) if on_6 else ""
        attachment = Attachment(
            name, stack, space.path, index, address, networks, outside, host, address_6, frozenset(on_6)
        )
        await network.attach(attachment)
        room = self.rooms[name] = Room(name, stack, space, attachment.address, attachment)
        await self.serve(space, WEB, name)
        if on_6:
            await self.serve(space, WEB, name, "::")
        return room

    async def publish(
        self, room: Room, published: int = 8080, host_ip: str = "", protocol: str = "tcp", target: int = WEB
    ) -> None:
        port = PublishedPort.model_validate(
            {"target": target, "published": published, "protocol": protocol, "host_ip": host_ip}
        )
        await self.network.publish(room.name, Serving(room.address, "ready", (port,)))

    async def join(self, room: Room, number: int = 0, *, ready: bool = True) -> str:
        """Let it answer at a virtual address, which is returned."""
        virtual = self.slice.virtual(number)
        await self.network.publish(room.name, Serving(room.address, "ready" if ready else "running", (), virtual))
        return virtual

    async def leave(self, room: Room, state: Literal["draining", "gone"] = "draining") -> None:
        await self.network.publish(room.name, Serving(room.address, state))

    def machine(self, host_address: str = f"{LAN}/24", address: str = f"{CLIENT}/24", link: str = "lan0") -> Namespace:
        space = machine(host_address, address, link)
        self.stack.callback(space.close)
        return space

    async def serve(self, space: Namespace, port: int, says: str, address: str = "0.0.0.0") -> None:
        await self.stack.enter_async_context(serving(space, address, port, says))

    def udp(
        self, space: Namespace, address: str = "0.0.0.0", port: int = 0, family: int = socket.AF_INET
    ) -> socket.socket:
        made = space.socket(socket.SOCK_DGRAM, family)
        made.bind((address, port))
        self.stack.callback(made.close)
        return made


@pytest.fixture
def host() -> Iterator[Namespace]:
    with moved() as space:
        yield space


@pytest.fixture
def root() -> Iterator[Path]:
    path = Path(f"/tmp/g-{secrets.token_hex(4)}")
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def world(host: Namespace, root: Path) -> AsyncIterator[World]:
    made = World(host, root)
    async with made.stack:
        yield made
