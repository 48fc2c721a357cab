"""Published ports on ::1, which the agent answers itself: with programs of the host against real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections import Counter
from pathlib import Path

import pytest

from agent.host import RealHost
from agent.kit.layout import Layout
from agent.kit.pools import GATEWAY
from agent.network import relay
from agent.wire.messages import Listener
from tests.agent.network.conftest import CLIENT, LAN, WEB, World
from tests.support.netns import PATIENCE, Talk, ask, outcome, run

pytestmark = pytest.mark.host


async def test_a_published_port_answers_on_the_ipv6_loopback_in_turn(world: World) -> None:
    rooms = [await world.task(name) for name in ("a", "b")]
    for room in rooms:
        await world.publish(room)
    answers = Counter([await ask(world.host, "::1", 8080) for _ in range(4)])
    assert answers == {f"{name} sees {GATEWAY}": 2 for name in "ab"}
    await world.leave(rooms[0])
    assert {await ask(world.host, "::1", 8080) for _ in range(3)} == {f"b sees {GATEWAY}"}
    await world.leave(rooms[1])
    assert await outcome(world.host, "::1", 8080) == "refused"
    assert world.network.doors() == frozenset()


async def test_also_where_the_task_has_ipv6(world: World) -> None:
    web = await world.task("web", on=("visits_default",), on_6=("visits_default",))
    await world.publish(web)
    assert await ask(world.host, "::1", 8080) == f"web sees {GATEWAY}"


async def test_only_where_it_is_published_there(world: World) -> None:
    world.machine()
    web = await world.task("web")
    await world.publish(web, host_ip=LAN)
    assert await outcome(world.host, "::1", 8080) == "refused"
    await world.publish(web, host_ip="0.0.0.0")
    assert await outcome(world.host, "::1", 8080) == "refused", "IPv4 was asked for"
    await world.publish(web, host_ip="::1")
    assert await ask(world.host, "::1", 8080) == f"web sees {GATEWAY}"
    assert await outcome(world.host, "127.0.0.1", 8080) == "refused"
    await world.network.detach("web")
    assert await outcome(world.host, "::1", 8080) == "refused"


async def test_nobody_outside_gets_there(world: World) -> None:
    outside = world.machine("2001:db8::1/64", "2001:db8::9/64")
    await world.publish(await world.task("web"))
    assert await outcome(outside, "2001:db8::1", 8080) == "refused"


async def test_a_conversation_goes_on_after_its_task_left_the_port(world: World) -> None:
    old, new = await world.task("old"), await world.task("new")
    await world.publish(old)
    talk = await Talk.open(world.host, "::1", 8080)
    assert await talk.ask() == f"old sees {GATEWAY}"
    await world.publish(new)
    await world.leave(old)
    assert await ask(world.host, "::1", 8080) == f"new sees {GATEWAY}"
    assert await talk.ask() == f"old sees {GATEWAY}"
    await talk.close()


async def test_much_in_both_directions_and_an_end_that_is_no_hang_up(world: World) -> None:
    """The client says that it has no more to say, and is answered after that."""
    room = await world.task("digest")

    async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = await reader.read()
        writer.write(hashlib.sha256(heard).digest() + heard[::-1])
        await writer.drain()
        writer.close()

    listener = room.space.socket()
    listener.bind((room.address, 81))
    await world.stack.enter_async_context(await asyncio.start_server(digest, sock=listener))
    await world.publish(room, target=81)
    said = bytes(range(256)) * 20_000
    reader, writer = await asyncio.open_connection("::1", 8080)
    writer.write(said)
    writer.write_eof()
    heard = await asyncio.wait_for(reader.read(), PATIENCE)
    assert heard == hashlib.sha256(said).digest() + said[::-1]
    writer.close()


async def _said(ear: socket.socket) -> tuple[bytes, tuple[str, int]]:
    data, client = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(ear, 100), PATIENCE)
    return data, client


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_udp_on_loopback_is_answered_from_where_it_was_asked(world: World, address: str) -> None:
    loop = asyncio.get_running_loop()
    rooms = [await world.task(name) for name in ("one", "two")]
    ears = [world.udp(room.space, port=WEB) for room in rooms]
    await world.publish(rooms[0], protocol="udp")
    client = world.udp(world.host, address, family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    for number in (b"1", b"2"):
        await loop.sock_sendto(client, number, (address, 8080))
        data, behind = await _said(ears[0])
        assert (data, behind[0]) == (number, GATEWAY)
        await loop.sock_sendto(ears[0], b"answer " + number, behind)
        data, where = await _said(client)
        assert (data, where[:2]) == (b"answer " + number, (address, 8080))
    await world.publish(rooms[1], protocol="udp")
    await world.leave(rooms[0], "gone")
    await loop.sock_sendto(client, b"3", (address, 8080))
    assert (await _said(ears[1]))[0] == b"3"


async def test_no_more_than_so_many_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MOST", 2)
    await world.publish(await world.task("web"))
    talks = [await Talk.open(world.host, "::1", 8080) for _ in range(2)]
    assert [await talk.ask() for talk in talks] == [f"web sees {GATEWAY}"] * 2
    assert await outcome(world.host, "::1", 8080) in ("", "unreachable")
    for talk in talks:
        await talk.close()
    assert await ask(world.host, "127.0.0.1", 8080) == f"web sees {GATEWAY}"


async def test_who_has_the_port_there_hinders_nothing_else(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.serve(world.host, 8080, "stranger", "::1")
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            await world.publish(await world.task(name))
    assert await ask(world.host, "::1", 8080) == "stranger sees ::1"
    assert (await ask(world.host, "127.0.0.1", 8080)).endswith(f"sees {GATEWAY}")
    assert [record.message for record in caplog.records if "::1" in record.message] == [
        "cannot serve tcp port 8080 on ::1: Address already in use"
    ]


async def test_a_host_without_ipv6(world: World) -> None:
    outside = world.machine()
    run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    await world.publish(await world.task("web"))
    assert await ask(world.host, "127.0.0.1", 8080) == f"web sees {GATEWAY}"
    assert await ask(outside, LAN, 8080) == f"web sees {CLIENT}"


async def test_our_own_listening_is_no_foreign_listener(world: World, tmp_path: Path) -> None:
    await world.publish(await world.task("web"))
    await world.serve(world.host, 8081, "stranger", "::1")
    host = RealHost(Layout.at(tmp_path), world.slice, world.network.doors)
    found = await host.listeners()
    assert [(one.address, one.port) for one in found] == [("::1", 8081)]
    (known,) = await host.listeners((Listener(protocol="tcp", address="::1", port=8081, holder="known"),))
    assert known.holder == "known"
