"""IPv6 of the routed network, with real packets between namespaces: what holds for IPv4 holds for it, and nothing of it
is where nobody asked for it (test_network.py: test_no_ipv6_leads_out_of_a_task)."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from agent.kit.errors import Temporary, UserError
from agent.network import forwarding, wire
from agent.ports import Attachment, Serving
from agent.wire.messages import PublishedPort
from tests.agent.network.conftest import WEB, Room, World
from tests.support import netns
from tests.support.netns import PATIENCE, SILENCE, Namespace, ask, run

pytestmark = pytest.mark.host
LAN_6, CLIENT_6 = "2001:db8::1", "2001:db8::9"
VISITS = ("visits_default",)


async def outcome(space: Namespace, address: str, port: int) -> str:
    """A machine outside finds its neighbours by asking, and a busy one is slow at it."""
    return await netns.outcome(space, address, port, patience=3 * SILENCE)


def outside(world: World) -> Namespace:
    space = world.machine(f"{LAN_6}/64", f"{CLIENT_6}/64")
    space.run("ip", "-6", "route", "add", "fd67:6f72:6165::/48", "via", LAN_6)
    return space


async def dual(world: World, name: str, *on: str, stack: str = "visits", inside: bool = False) -> Room:
    networks = on or (f"{stack}_default",)
    return await world.task(name, stack, on=networks, on_6=networks, outside=not inside)


async def test_tasks_talk_in_both_families_and_see_each_other(world: World) -> None:
    one, two = await dual(world, "one"), await dual(world, "two")
    assert two.address_6 == "fd67:6f72:6165:1::11"
    assert await ask(one.space, two.address_6, WEB) == f"two sees {one.address_6}"
    assert await ask(one.space, two.address, WEB) == f"two sees {one.address}"
    assert await ask(world.host, two.address_6, WEB) == "two sees fd67:6f72:6165:1::1"


async def test_two_tasks_talk_if_and_only_if_they_share_a_network_that_has_it(world: World) -> None:
    both = await world.task("both", on=("six", "four"), on_6=("six",))
    six, four = await world.task("six", on=("six",), on_6=("six",)), await world.task("four", on=("four",))
    also = await world.task("also", on=("four", "other"), on_6=("other",))
    stranger = await dual(world, "stranger", stack="shop")
    assert await outcome(both.space, six.address_6, WEB) == f"six sees {both.address_6}"
    assert await outcome(both.space, four.address, WEB) == f"four sees {both.address}"
    assert await outcome(four.space, six.address_6, WEB) == "unreachable"
    for near, far in ((both, also), (stranger, six), (six, stranger)):
        assert await outcome(near.space, far.address_6, WEB) == "refused"


async def test_a_way_out_that_is_too_narrow_for_ipv6_keeps_nobody_from_it(world: World) -> None:
    world.machine()
    run("ip", "link", "set", "lan0", "mtu", "1000")
    run("ip", "route", "add", "default", "dev", "lan0")
    one, two, plain = await dual(world, "one"), await dual(world, "two"), await world.task("plain")
    assert await ask(one.space, two.address_6, WEB) == f"two sees {one.address_6}"
    assert "mtu 1280" in one.space.run("ip", "link", "show", "eth0")
    assert "mtu 1000" in plain.space.run("ip", "link", "show", "eth0")


async def test_on_a_host_without_ipv6_only_who_wants_it_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forwarding, "IPV6", tmp_path / "forwarding")
    monkeypatch.setattr(wire, "_IPV6", tmp_path / "conf")
    network = world.instance()
    one = await world.task("one", network=network)
    with pytest.raises(Temporary, match=r"cannot attach task six: .*this host has no IPv6"):
        await world.task("six", network=network, on=VISITS, on_6=VISITS)
    two = await world.task("two", network=network)
    assert await ask(one.space, two.address, WEB) == f"two sees {one.address}"
    assert (await network.surroundings()).sysctls == ("net.ipv4.ip_forward: 0 → 1",)
    for name in ("one", "two", "six"):
        await network.detach(name)
    assert await network.list() == frozenset()


async def test_the_hosts_listeners_and_metadata_addresses_are_closed(world: World) -> None:
    lan, room = outside(world), await dual(world, "room")
    await world.serve(world.host, 9000, "host", "::")
    assert await outcome(world.host, LAN_6, 9000) == f"host sees {LAN_6}"
    for address in (LAN_6, "fd67:6f72:6165:1::1"):
        assert await outcome(room.space, address, 9000) == "refused"
    run("ip", "-6", "route", "add", "fd00:ec2::254", "via", CLIENT_6)
    lan.run("ip", "address", "add", "fd00:ec2::254/128", "dev", "eth0", "nodad")
    await world.serve(lan, WEB, "metadata", "::")
    assert await outcome(world.host, "fd00:ec2::254", WEB) == f"metadata sees {LAN_6}"
    assert await outcome(room.space, "fd00:ec2::254", WEB) == "refused"


async def test_what_goes_outside_carries_the_hosts_address_unless_internal(world: World) -> None:
    lan, room = outside(world), await dual(world, "room")
    inner = await dual(world, "inner", "back", inside=True)
    peer = await dual(world, "peer", "back", inside=True)
    await world.serve(lan, WEB, "outside", "::")
    assert await ask(room.space, CLIENT_6, WEB) == f"outside sees {LAN_6}"
    assert await outcome(inner.space, CLIENT_6, WEB) == "refused"
    assert await outcome(inner.space, peer.address_6, WEB) == f"peer sees {inner.address_6}"


async def test_a_machine_outside_cannot_route_to_a_task_nor_through_the_host(world: World) -> None:
    lan, room = outside(world), await dual(world, "room")
    assert await outcome(lan, room.address_6, WEB) == "refused"
    other = world.machine("2001:db8:2::1/64", "2001:db8:2::9/64", "lan1")
    other.run("ip", "-6", "route", "add", "default", "via", "2001:db8:2::1")
    lan.run("ip", "-6", "route", "add", "2001:db8:2::/64", "via", LAN_6)
    await world.serve(other, WEB, "other", "::")
    assert await outcome(world.host, "2001:db8:2::9", WEB) == "other sees 2001:db8:2::1", "they know each other"
    assert await netns.outcome(lan, "2001:db8:2::9", WEB) == "silence"


async def test_a_host_that_is_a_router_of_ipv6_stays_one(world: World) -> None:
    forwarding.IPV6.write_text("1")
    lan = outside(world)
    await dual(world, "room")
    other = world.machine("2001:db8:2::1/64", "2001:db8:2::9/64", "lan1")
    other.run("ip", "-6", "route", "add", "default", "via", "2001:db8:2::1")
    lan.run("ip", "-6", "route", "add", "2001:db8:2::/64", "via", LAN_6)
    await world.serve(other, WEB, "other", "::")
    assert await outcome(world.host, "2001:db8:2::9", WEB) == "other sees 2001:db8:2::1", "they know each other"
    assert await outcome(lan, "2001:db8:2::9", WEB) == f"other sees {CLIENT_6}"
    await world.network.detach("room")
    assert forwarding.IPV6.read_text().strip() == "1"


@pytest.mark.parametrize("forged", ["2001:db8:9::9", "fd67:6f72:6165:1::11", "fe80::2"])
async def test_a_forged_source_gets_nowhere(world: World, forged: str) -> None:
    liar, _, friend = [await dual(world, name) for name in ("liar", "victim", "friend")]
    liar.space.run("ip", "address", "add", f"{forged}/128", "dev", "eth0", "nodad")
    liars = liar.space.socket(socket.SOCK_DGRAM, socket.AF_INET6)
    with liar.space.inside():
        scope = socket.if_nametoindex("eth0") if forged.startswith("fe80") else 0
    liars.bind((forged, 0, 0, scope))
    world.stack.callback(liars.close)
    genuine = world.udp(liar.space, liar.address_6, family=socket.AF_INET6)
    ear = world.udp(friend.space, "::", 9, socket.AF_INET6)
    loop = asyncio.get_running_loop()
    for mouth, data in ((liars, b"forged"), (genuine, b"genuine")):
        await loop.sock_sendto(mouth, data, (friend.address_6, 9))
    heard, sender = await asyncio.wait_for(loop.sock_recvfrom(ear, 99), PATIENCE)
    assert (heard, sender[0]) == (b"genuine", liar.address_6)


async def test_a_published_port_answers_in_both_families(world: World) -> None:
    lan, one, two = outside(world), await dual(world, "one"), await dual(world, "two")
    for room in (one, two):
        await world.publish(room)
    seen = {await ask(lan, LAN_6, 8080) for _ in range(4)}
    assert seen == {f"one sees {CLIENT_6}", f"two sees {CLIENT_6}"}
    assert {(await ask(world.host, LAN_6, 8080)).split()[0] for _ in range(2)} == {"one", "two"}
    assert (await ask(one.space, LAN_6, 8080)).endswith("sees fd67:6f72:6165:1::1")
    for room in (one, two):
        await world.leave(room)
    assert await outcome(lan, LAN_6, 8080) == "refused"


async def test_a_port_published_on_one_address_is_closed_on_the_others(world: World) -> None:
    lan, room = outside(world), await dual(world, "room")
    run("ip", "address", "add", "2001:db8::2/128", "dev", "lan0", "nodad")
    await world.publish(room, host_ip="2001:db8::2")
    assert await outcome(lan, "2001:db8::2", 8080) == f"room sees {CLIENT_6}"
    assert await outcome(lan, LAN_6, 8080) == "refused"


async def test_a_port_on_an_address_of_a_family_that_the_task_has_not_is_refused(world: World) -> None:
    room = await world.task("room")
    port = PublishedPort(target=WEB, published=8080, host_ip=LAN_6)
    with pytest.raises(UserError, match="cannot publish port 8080 on 2001:db8::1: the container has no IPv6"):
        await world.network.publish("room", Serving(room.address, "ready", (port,)))


async def test_a_virtual_address_has_a_twin_for_tcp_udp_and_echo(world: World) -> None:
    client, one, two = [await dual(world, name) for name in ("client", "one", "two")]
    virtual = {world.slice.twin(await world.join(room)) for room in (one, two)}
    assert virtual == {world.slice.twin(world.slice.virtual(0))}
    (vip,) = virtual
    assert (await ask(world.host, vip, WEB)).endswith("sees fd67:6f72:6165:1::1")
    assert {await ask(client.space, vip, WEB) for _ in range(4)} == {
        f"one sees {client.address_6}",
        f"two sees {client.address_6}",
    }
    with client.space.inside():
        echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with echo:
        echo.setblocking(False)
        await asyncio.get_running_loop().sock_sendto(echo, bytes.fromhex("8000000000010001"), (vip, 0))
        reply, sender = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(echo, 99), PATIENCE)
        assert (reply[0], sender[0]) == (129, vip), "an echo reply"
    assert await outcome(one.space, vip, WEB) in ("one sees fd67:6f72:6165:1::1", f"two sees {one.address_6}")
    await world.leave(two)
    assert await outcome(one.space, vip, WEB) == "one sees fd67:6f72:6165:1::1", "by hairpin"
    await world.leave(one)
    assert await outcome(client.space, vip, WEB) == "refused"


async def test_udp_clients_move_when_their_endpoint_is_gone(world: World) -> None:
    client, one, two = [await dual(world, name) for name in ("client", "one", "two")]
    ears = {room.name: world.udp(room.space, "::", 9, socket.AF_INET6) for room in (one, two)}
    mouth = world.udp(client.space, client.address_6, family=socket.AF_INET6)
    vip = world.slice.twin(await world.join(one))
    loop = asyncio.get_running_loop()
    await loop.sock_sendto(mouth, b"first", (vip, 9))
    assert await asyncio.wait_for(loop.sock_recv(ears["one"], 99), PATIENCE) == b"first"
    await world.join(two)
    await world.leave(one, "gone")
    await loop.sock_sendto(mouth, b"second", (vip, 9))
    assert await asyncio.wait_for(loop.sock_recv(ears["two"], 99), PATIENCE) == b"second"


async def test_the_next_agent_takes_up_both_families(world: World) -> None:
    lan, room, peer = (
        outside(world),
        await dual(world, "room"),
        await world.task("peer", on=("x", *VISITS), on_6=VISITS),
    )
    port = PublishedPort(target=WEB, published=8080)
    virtual = world.slice.virtual(0)
    await world.network.publish("room", Serving(room.address, "ready", (port,), virtual))
    vip = world.slice.twin(virtual)
    world.network = world.agent(world.id, world.slice)
    assert await world.network.list() == {"room", "peer"}
    await world.network.attach(peer.attachment)  # as it is: nothing of it is lost
    assert await ask(lan, LAN_6, 8080) == f"room sees {CLIENT_6}"
    assert await ask(peer.space, vip, WEB) == f"room sees {peer.address_6}"


async def test_nothing_of_it_is_left_after_the_last_task(world: World) -> None:
    before = run("ip", "-6", "route"), run("ip", "-6", "-o", "address")
    await dual(world, "room")
    assert "unreachable fd67:6f72:6165:1::/64" in run("ip", "-6", "route")
    assert forwarding.IPV6.read_text().strip() == "1"
    await world.network.detach("room")
    assert (run("ip", "-6", "route"), run("ip", "-6", "-o", "address")) == before
    assert forwarding.IPV6.read_text().strip() == "0"


async def test_a_flushed_ruleset_is_back_within_a_second(world: World) -> None:
    lan = outside(world)
    await world.publish(await dual(world, "web"))
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(world.network.watch())
        for _ in range(20):  # the watcher has nothing left to do but to listen
            await ask(lan, LAN_6, 8080)
        run("nft", "flush", "ruleset")
        until = time.monotonic() + 1
        while (answer := await outcome(lan, LAN_6, 8080)) == "refused":
            assert time.monotonic() < until
        assert answer == f"web sees {CLIENT_6}"
        watcher.cancel()


async def test_a_task_takes_no_router_and_no_address_from_anybody(world: World) -> None:
    """Also where new links of the host have no IPv6 by default."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    room = await dual(world, "room")
    assert room.space.run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"
    listed = room.space.run("ip", "-6", "-o", "address", "show", "dev", "eth0")
    assert [line.split()[3] for line in listed.splitlines()] == [f"{room.address_6}/128"]
    assert "tentative" not in listed
    assert await ask(world.host, room.address_6, WEB) == "room sees fd67:6f72:6165:1::1"


async def test_what_is_asked_of_a_neighbour_is_answered(world: World) -> None:
    """Both ends know each other; who forgets may ask."""
    room = await dual(world, "room")
    link = f"g{world.id}0"
    run("ip", "-6", "neighbour", "del", room.address_6, "dev", link)
    assert await ask(world.host, room.address_6, WEB) == "room sees fd67:6f72:6165:1::1"


async def test_of_a_subnet_that_a_file_names_nothing_is_outside(world: World) -> None:
    """Also not for the next agent: a password for a container that is away must not go to the world."""
    lan = outside(world)
    subnets = ("172.28.0.0/24", "2001:db8:28::/64")
    attachments = []
    for index, (address, address_6) in enumerate((("172.28.0.9", "2001:db8:28::9"), ("172.28.0.10", "2001:db8:28::a"))):
        space = Namespace()
        world.stack.callback(space.close)
        one = Attachment(f"t{index}", "s", space.path, index, address, frozenset({"n"}), address_6=address_6,
                         networks_6=frozenset({"n"}), subnets=subnets)  # fmt: skip
        await world.network.attach(one)
        await world.serve(space, WEB, f"t{index}", "::")
        attachments.append((space, one))
    (here, _), (_, peer) = attachments
    run("ip", "address", "add", "192.0.2.1/24", "dev", "lan0")
    run("ip", "route", "add", "default", "via", "192.0.2.9")
    run("ip", "-6", "route", "add", "default", "via", CLIENT_6)
    lan.run("ip", "address", "add", "192.0.2.9/24", "dev", "eth0")
    lan.run("ip", "address", "add", "172.28.0.77/32", "dev", "lo")
    lan.run("ip", "address", "add", "2001:db8:28::77/128", "dev", "lo", "nodad")
    await world.serve(lan, WEB, "outside", "::")
    await world.serve(lan, WEB, "outside")
    for _ in range(2):
        assert await outcome(here, peer.address_6, WEB) == "t1 sees 2001:db8:28::9"
        assert await outcome(here, CLIENT_6, WEB) == f"outside sees {LAN_6}"
        assert await outcome(here, "192.0.2.9", WEB) == "outside sees 192.0.2.1"
        for away in ("2001:db8:28::77", "172.28.0.77"):
            assert await outcome(here, away, WEB) == "refused"
        world.network = world.agent(world.id, world.slice)
        await world.network.list()


async def test_somebody_elses_route_into_our_addresses_is_named(world: World) -> None:
    outside(world)
    run("ip", "-6", "route", "add", "fd67:6f72:6165:7::/64", "via", CLIENT_6)
    await dual(world, "room")
    (trouble,) = (await world.network.surroundings()).troubles
    wanted = "the host's route to fd67:6f72:6165:7::/64 (link lan0) overlaps fd67:6f72:6165::/48"
    assert trouble.text.startswith(wanted)
