"""Every promise of the routed network, with real packets between namespaces."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.decide import nft_rules, nft_text
from agent.kit.errors import Permanent, Temporary, UserError
from agent.kit.pools import Slice
from agent.network import conntrack, links, nft
from agent.network.wire import link_name
from agent.ports import Attachment, Serving
from agent.wire.messages import PublishedPort
from tests.agent.network.conftest import CLIENT, LAN, WEB, World
from tests.support.netns import PATIENCE, Namespace, Talk, ask, outcome, run

pytestmark = pytest.mark.host
GATEWAY = "169.254.1.1"
ALONE = frozenset({"visits_default"})
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


# Who may talk to whom ------------------------------------------------------------------------------------------------


async def test_tasks_of_one_stack_talk_and_see_each_other(world: World) -> None:
    one, two = await world.task("one"), await world.task("two")
    assert await ask(one.space, two.address, WEB) == f"two sees {one.address}"
    assert await ask(one.space, one.address, WEB) == f"one sees {one.address}"


async def test_other_stacks_are_refused_at_once(world: World) -> None:
    mine, other = await world.task("mine"), await world.task("other", "shop")
    assert await outcome(mine.space, other.address, WEB) == "refused"
    assert await outcome(other.space, mine.address, WEB) == "refused"


async def test_two_tasks_talk_if_and_only_if_they_share_a_network(world: World) -> None:
    rooms = {
        "edge": await world.task("edge", "proxy", on=("proxy_default", "web")),
        "app": await world.task("app", "blog", on=("web", "blog_back")),
        "db": await world.task("db", "blog", on=("blog_back",)),
        "cron": await world.task("cron", "blog", on=("web", "blog_back")),
    }
    talk = {frozenset(pair.split()) for pair in ("edge app", "edge cron", "app db", "app cron", "db cron")}
    for one, client in rooms.items():
        for two, server in rooms.items():
            told = await outcome(client.space, server.address, WEB)
            expected = one == two or frozenset({one, two}) in talk
            assert told == (f"{two} sees {client.address}" if expected else "refused")


async def test_a_task_that_leaves_a_network_is_refused_there(world: World) -> None:
    one, two = await world.task("one", on=("a", "b")), await world.task("two", on=("b",))
    assert await ask(one.space, two.address, WEB)
    await world.network.attach(replace(one.attachment, networks=frozenset({"a"})))
    assert await outcome(one.space, two.address, WEB) == "refused"


async def test_from_an_internal_network_nothing_else_is_reached(world: World) -> None:
    """Its own network answers; the outside, other machines' names, the host and published ports are refused at once."""
    outside = world.machine()
    for port in (53, 443):
        await world.serve(outside, port, "internet")
    await world.serve(world.host, 5432, "database")
    inside, friend = [await world.task(name, on=("back",), outside=False) for name in ("inside", "friend")]
    both = await world.task("both", on=("back", "front"))
    web = await world.task("web", on=("front",))
    await world.publish(web)
    await world.publish(friend, 8081)
    assert await ask(inside.space, friend.address, WEB) == f"friend sees {inside.address}"
    assert await ask(both.space, inside.address, WEB) == f"inside sees {both.address}"
    assert await ask(both.space, CLIENT, 443) == f"internet sees {LAN}"
    for address, port in ((CLIENT, 443), (CLIENT, 53), (LAN, 5432), (LAN, 8080), (web.address, WEB)):
        assert await outcome(inside.space, address, port) == "refused"
    assert await ask(outside, LAN, 8081) == f"friend sees {CLIENT}", "what it publishes is open to the outside"
    assert await ask(world.host, inside.address, WEB) == f"inside sees {GATEWAY}"


async def test_a_task_without_networks_has_its_loopback_alone(world: World) -> None:
    room, peer = await world.task("room"), await world.task("peer")
    await world.network.attach(replace(room.attachment, networks=frozenset()))
    assert await ask(room.space, "127.0.0.1", WEB) == "room sees 127.0.0.1"
    assert await outcome(room.space, peer.address, WEB) == "unreachable"
    assert [line.split()[1] for line in room.space.run("ip", "-o", "link").splitlines()] == ["lo:"]


async def test_the_same_stack_name_in_another_instance_is_another_stack(world: World) -> None:
    mine = await world.task("mine")
    second = world.instance()
    other = await world.task("other", network=second)
    assert mine.stack == other.stack
    assert await outcome(mine.space, other.address, WEB) == "refused"
    assert await outcome(other.space, mine.address, WEB) == "refused"
    friend = await world.task("friend", network=second)
    assert await ask(friend.space, other.address, WEB), "one instance's table does not close the other's"


async def test_the_hosts_listeners_are_closed_to_tasks_and_tasks_open_to_the_host(world: World) -> None:
    world.machine()
    room = await world.task("room")
    await world.serve(world.host, 5432, "database")
    assert await ask(world.host, LAN, 5432) == f"database sees {LAN}"
    for address in (LAN, GATEWAY):
        assert await outcome(room.space, address, 5432) == "refused"
    assert await ask(world.host, room.address, WEB) == f"room sees {GATEWAY}"


@pytest.mark.parametrize("outside", [True, False], ids=["open", "internal"])
async def test_a_guest_of_the_host_reaches_its_listeners_at_the_gateway_alone(world: World, outside: bool) -> None:
    world.machine()
    guest, other = await world.task("guest", host=True, outside=outside), await world.task("other")
    await world.serve(world.host, 5432, "database")
    for network in (world.network, world.agent(world.id, world.slice)):  # a restarted agent reads it from the kernel
        await network.list()
        assert await ask(guest.space, GATEWAY, 5432) == f"database sees {guest.address}"
        assert await outcome(guest.space, LAN, 5432) == "refused"
        assert await outcome(other.space, GATEWAY, 5432) == "refused"


async def test_the_host_reaches_tasks_when_it_has_no_address_of_its_own(world: World) -> None:
    room = await world.task("room")
    run("ip", "address", "flush", "dev", "lo")
    assert await ask(world.host, room.address, WEB) == f"room sees {GATEWAY}"


async def test_what_goes_outside_carries_the_hosts_address(world: World) -> None:
    outside = world.machine()
    await world.serve(outside, 443, "internet")
    room = await world.task("room")
    assert await ask(room.space, CLIENT, 443) == f"internet sees {LAN}"


async def test_metadata_and_link_local_addresses_are_closed(world: World) -> None:
    outside = world.machine()
    outside.run("ip", "address", "add", "169.254.169.254/32", "dev", "eth0")
    run("ip", "route", "add", "169.254.169.254/32", "dev", "lan0")
    await world.serve(outside, 80, "metadata")
    room = await world.task("room")
    assert await ask(world.host, "169.254.169.254", 80) == f"metadata sees {LAN}"
    assert await outcome(room.space, "169.254.169.254", 80) == "refused"


async def test_a_machine_outside_cannot_route_to_a_task(world: World) -> None:
    outside = world.machine()
    room = await world.task("room")
    outside.run("ip", "route", "add", "10.181.0.0/16", "via", LAN)
    assert await outcome(outside, room.address, WEB) == "refused"


@pytest.mark.parametrize("forged", ["10.9.9.9", "10.181.8.17", CLIENT, "127.0.0.1"])
async def test_a_forged_source_gets_nowhere(world: World, forged: str) -> None:
    """Datagrams, because a connection with a forged source fails anyway; a genuine one follows on the same way."""
    outside = world.machine()
    liar, victim, friend = [await world.task(name) for name in ("liar", "victim", "friend")]
    assert victim.address == "10.181.8.17"
    _loopback_is_elsewhere(liar.space, GATEWAY)
    liar.space.run("ip", "address", "add", f"{forged}/32", "dev", "eth0")
    liars, genuine = world.udp(liar.space, forged), world.udp(liar.space, liar.address)
    for space, address in ((friend.space, friend.address), (outside, CLIENT)):
        if address != forged:  # that would be itself, not over the wire
            ear = world.udp(space, port=9)
            await _send(liars, b"forged", address, 9)
            await _send(genuine, b"genuine", address, 9)
            assert (await _heard(ear))[0] == b"genuine"


async def test_tasks_cannot_reach_the_hosts_loopback(world: World) -> None:
    ear = world.udp(world.host, "127.0.0.1", 6379)
    room = await world.task("room")
    _loopback_is_elsewhere(room.space, GATEWAY)
    await _send(world.udp(room.space, room.address), b"from a task", "127.0.0.1", 6379)
    await _send(world.udp(world.host), b"from the host", "127.0.0.1", 6379)
    assert (await _heard(ear))[0] == b"from the host"


async def test_no_ipv6_leads_out_of_a_task(world: World) -> None:
    outside, room = world.machine(), await world.task("room")
    link = f"g{world.id}0"
    assert "inet6" not in run("ip", "address", "show", "dev", link) + room.space.run("ip", "address", "show", "eth0")
    run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    ours, theirs = (":".join(f"{byte:02x}" for byte in mac) for mac in links.macs(room.address))
    for command in (
        f"address add fd00:7::1/64 dev {link} nodad",
        f"neighbour add fd00:7::2 lladdr {theirs} dev {link}",
        "address add fd00:8::1/64 dev lan0 nodad",
    ):
        run("ip", *command.split())
    outside.run("ip", "address", "add", "fd00:8::9/64", "dev", "eth0", "nodad")
    for command in (
        "address add fd00:7::2/64 dev eth0 nodad",
        f"neighbour add fd00:7::1 lladdr {ours} dev eth0",
        "route add default via fd00:7::1",
    ):
        room.space.run("ip", "-6", *command.split())
    ears = [world.udp(space, "::", 9, socket.AF_INET6) for space in (outside, world.host)]
    mouth = world.udp(room.space, "fd00:7::2", family=socket.AF_INET6)
    for ear, address in zip(ears, ("fd00:8::9", "fd00:7::1"), strict=True):
        await _send(mouth, b"from a task", address, 9)
        await _send(world.udp(world.host, "::", family=socket.AF_INET6), b"from the host", address, 9)
        assert (await _heard(ear))[0] == b"from the host"


async def _send(mouth: socket.socket, data: bytes, address: str, port: int) -> None:
    await asyncio.get_running_loop().sock_sendto(mouth, data, (address, port))


async def _heard(ear: socket.socket) -> tuple[bytes, str]:
    data, sender = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(ear, 99), PATIENCE)
    return data, sender[0]


def _loopback_is_elsewhere(space: Namespace, via: str) -> None:
    """Make a namespace send packets for and from 127/8 out of its eth0, as an attacker with root there would."""
    space.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    space.run("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
    space.run("ip", "route", "flush", "table", "local", "127.0.0.0/8")
    space.run("ip", "route", "del", "local", "127.0.0.1", "table", "local")
    space.run("ip", "route", "add", "127.0.0.1", "via", via, "dev", "eth0")


# Published ports ----------------------------------------------------------------------------------------------------


async def test_a_published_port_takes_turns_and_keeps_the_clients_address(world: World) -> None:
    outside = world.machine()
    for name in ("a", "b", "c"):
        await world.publish(await world.task(name))
    answers = Counter([await ask(outside, LAN, 8080) for _ in range(9)])
    assert answers == {f"{name} sees {CLIENT}": 3 for name in "abc"}


async def test_turns_are_fair_for_each_port_by_itself(world: World) -> None:
    outside = world.machine()
    for name in ("a", "b"):
        room = await world.task(name)
        ports = (PublishedPort(target=WEB, published=8080), PublishedPort(target=WEB, published=8081))
        await world.network.publish(name, Serving(room.address, "ready", ports))
    answers = [(await ask(outside, LAN, 8080), await ask(outside, LAN, 8081)) for _ in range(4)]
    assert len({first for first, _ in answers}) == 2
    assert len({second for _, second in answers}) == 2


async def test_more_tasks_than_any_fixed_number_of_slots_all_answer(world: World) -> None:
    outside = world.machine()
    for number in range(20):
        await world.publish(await world.task(f"t{number}"))
    assert len({await ask(outside, LAN, 8080) for _ in range(20)}) == 20


@pytest.mark.parametrize("rp_filter", [0, 1, 2], ids=["no-rp_filter", "strict-rp_filter", "loose-rp_filter"])
async def test_a_published_port_by_each_of_the_hosts_addresses(world: World, rp_filter: int) -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter").write_text(str(rp_filter))
    outside, web = world.machine(), await world.task("web")
    await world.publish(web)
    assert await ask(outside, LAN, 8080) == f"web sees {CLIENT}"
    assert await ask(world.host, LAN, 8080) == f"web sees {LAN}"
    assert await ask(world.host, "127.0.0.1", 8080) == f"web sees {GATEWAY}"
    assert await ask(web.space, LAN, 8080) == f"web sees {GATEWAY}"


async def test_curl_on_localhost(world: World) -> None:
    await world.publish(await world.task("web"))
    done = await asyncio.to_thread(
        subprocess.run, ["curl", "-s", "--http0.9", "-m", "5", "http://localhost:8080/"], capture_output=True, text=True
    )
    assert f"web sees {GATEWAY}" in done.stdout


async def test_tasks_of_any_stack_use_a_published_port_by_the_hosts_address(world: World) -> None:
    world.machine()
    web, other = await world.task("web"), await world.task("other", "shop")
    await world.publish(web)
    stranger = await world.task("stranger", network=world.instance())
    for client in (web, other):
        assert await ask(client.space, LAN, 8080) == f"web sees {GATEWAY}"
    assert (await ask(stranger.space, LAN, 8080)).startswith("web sees ")


async def test_without_a_ready_task_the_port_is_refused_at_once(world: World) -> None:
    outside = world.machine()
    web = await world.task("web")
    await world.publish(web)
    await world.leave(web)
    began = time.monotonic()
    for client, address in ((outside, LAN), (world.host, LAN), (world.host, "127.0.0.1"), (web.space, LAN)):
        assert await outcome(client, address, 8080) == "refused"
    assert time.monotonic() - began < 1


async def test_a_conversation_goes_on_after_its_task_left_the_port(world: World) -> None:
    outside = world.machine()
    old, new = await world.task("old"), await world.task("new")
    await world.publish(old)
    talk = await Talk.open(outside, LAN, 8080)
    assert await talk.ask() == f"old sees {CLIENT}"
    await world.publish(new)
    await world.leave(old)
    assert [await ask(outside, LAN, 8080) for _ in range(3)] == [f"new sees {CLIENT}"] * 3
    assert await talk.ask() == f"old sees {CLIENT}"
    await talk.close()


async def test_a_port_published_on_one_address_is_closed_on_the_others(world: World) -> None:
    outside = world.machine()
    run("ip", "address", "add", "192.0.2.2/24", "dev", "lan0")
    await world.publish(await world.task("web"), host_ip="192.0.2.2")
    assert await ask(outside, "192.0.2.2", 8080) == f"web sees {CLIENT}"
    assert await outcome(outside, LAN, 8080) == "refused"
    assert await outcome(world.host, "127.0.0.1", 8080) == "refused"


async def test_a_port_published_on_loopback_is_closed_to_the_neighbour_who_sends_to_127(world: World) -> None:
    outside = world.machine()
    web = await world.task("web")
    ear = world.udp(web.space, port=WEB)
    await world.publish(web, host_ip="127.0.0.1")
    assert await ask(world.host, "127.0.0.1", 8080) == f"web sees {GATEWAY}"
    assert await outcome(outside, LAN, 8080) == "refused"
    await world.publish(web, host_ip="127.0.0.1", protocol="udp")
    _loopback_is_elsewhere(outside, LAN)
    await _send(world.udp(outside, CLIENT), b"from a neighbour", "127.0.0.1", 8080)
    await _send(world.udp(world.host), b"from the host", "127.0.0.1", 8080)
    assert await _heard(ear) == (b"from the host", GATEWAY)


@pytest.mark.parametrize("many", [0, 5000], ids=["the-kernel-filters", "we-filter"])
async def test_udp_clients_of_a_task_that_is_gone_move_to_the_next(
    world: World, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "_MANY", many)
    outside = world.machine()
    rooms = [await world.task(name) for name in ("old", "new")]
    servers = [world.udp(room.space, port=WEB) for room in rooms]
    client, bystander = world.udp(outside), await Talk.open(world.host, rooms[1].address, WEB)
    await world.publish(rooms[0], 5353, protocol="udp")
    await _send(client, b"1", LAN, 5353)
    assert await _heard(servers[0]) == (b"1", CLIENT)
    await world.publish(rooms[1], 5353, protocol="udp")
    await world.network.detach("old")
    await _send(client, b"2", LAN, 5353)
    assert await _heard(servers[1]) == (b"2", CLIENT)
    assert await bystander.ask(), "other flows are not forgotten"
    await bystander.close()


async def test_a_task_that_many_have_asked_goes_without_a_word(world: World) -> None:
    outside, web = world.machine(), await world.task("web")
    await world.publish(web, 5353, protocol="udp")
    for _ in range(700):
        with outside.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"1", (LAN, 5353))
    before = _flows(web.address)
    await world.network.detach("web")
    assert before > 500 and _flows(web.address) == 0


def _flows(address: str) -> int:
    return Path("/proc/thread-self/net/nf_conntrack").read_text().count(f"src={address} ")


async def test_what_a_killed_agent_had_no_time_to_forget_the_next_one_does(world: World) -> None:
    outside = world.machine()
    rooms = [await world.task(name) for name in ("old", "new")]
    servers = [world.udp(room.space, port=WEB) for room in rooms]
    client, bystander = world.udp(outside), await Talk.open(world.host, rooms[1].address, WEB)
    await world.publish(rooms[0], 5353, protocol="udp")
    await _send(client, b"1", LAN, 5353)
    assert await _heard(servers[0]) == (b"1", CLIENT)
    await world.leave(rooms[0])
    await world.publish(rooms[1], 5353, protocol="udp")
    run("ip", "link", "delete", link_name(world.id, 0))  # as far as it came
    world.network = world.agent(world.id, world.slice)
    assert await world.network.list() == {"new"}
    await _send(client, b"2", LAN, 5353)
    assert await _heard(servers[1]) == (b"2", CLIENT)
    assert await bystander.ask(), "other flows are not forgotten"
    await bystander.close()


@pytest.mark.parametrize("host_ip", ["::", "2001:db8::1", "not-an-address", "1.2.3.4 accept"])
async def test_a_host_ip_that_cannot_be_served_is_refused(world: World, host_ip: str) -> None:
    web = await world.task("web")
    with pytest.raises(UserError, match="cannot publish port 8080") as caught:
        await world.publish(web, host_ip=host_ip)
    assert caught.value.code == "bad-host-ip"


# Virtual addresses ----------------------------------------------------------------------------------------------------


async def test_a_virtual_address_takes_turns_at_every_port_and_keeps_the_clients_address(world: World) -> None:
    client = await world.task("client")
    for name in ("a", "b", "c"):
        room = await world.task(name)
        virtual = await world.join(room)
        await world.serve(room.space, 5432, f"{name} at 5432")
    for port, extra in ((WEB, ""), (5432, " at 5432")):
        answers = Counter([await ask(client.space, virtual, port) for _ in range(9)])
        assert answers == {f"{name}{extra} sees {client.address}": 3 for name in "abc"}
    assert await outcome(client.space, virtual, 1) == "refused"


async def test_udp_and_echo_reach_a_virtual_address(world: World) -> None:
    client, web = await world.task("client"), await world.task("web")
    virtual = await world.join(web)
    ear, mouth = world.udp(web.space, port=9), world.udp(client.space)
    await _send(mouth, b"1", virtual, 9)
    data, sender = await asyncio.get_running_loop().sock_recvfrom(ear, 99)
    assert (data, sender[0]) == (b"1", client.address)
    await asyncio.get_running_loop().sock_sendto(ear, b"2", sender)
    assert await _heard(mouth) == (b"2", virtual)
    with client.space.inside():
        echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with echo:
        echo.setblocking(False)
        await _send(echo, bytes.fromhex("0800f7ff00000000"), virtual, 0)  # echo request, its checksum, id and number 0
        reply, sender = await _heard(echo)
        assert (reply[20], sender) == (0, virtual), "an echo reply"


async def test_a_task_reaches_itself_by_its_services_virtual_address(world: World) -> None:
    one = await world.task("one")
    virtual = await world.join(one)
    assert await ask(one.space, virtual, WEB) == f"one sees {GATEWAY}"
    two = await world.task("two")
    await world.join(two)
    answers = Counter([await ask(one.space, virtual, WEB) for _ in range(4)])
    assert answers == {f"one sees {GATEWAY}": 2, f"two sees {one.address}": 2}


async def test_at_a_virtual_address_the_same_holds_as_at_the_tasks_own(world: World) -> None:
    """Not even a service whose port is published is reached past its networks."""
    outside = world.machine()
    db = await world.task("db", on=("back",))
    port = PublishedPort(target=WEB, published=8080)
    virtual = world.slice.virtual(3)
    await world.network.publish("db", Serving(db.address, "ready", (port,), virtual))
    app = await world.task("app", on=("back", "front"))
    web, inside = await world.task("web", on=("front",)), await world.task("inside", on=("back",), outside=False)
    stranger = await world.task("stranger", network=world.instance())
    assert await ask(app.space, virtual, WEB) == f"db sees {app.address}"
    assert await ask(inside.space, virtual, WEB) == f"db sees {inside.address}"
    assert await outcome(web.space, virtual, WEB) == "refused"
    assert await ask(web.space, LAN, 8080) == f"db sees {GATEWAY}"
    assert await outcome(stranger.space, virtual, WEB) in ("refused", "unreachable")
    outside.run("ip", "route", "add", "10.181.0.0/16", "via", LAN)
    assert await outcome(outside, virtual, WEB) in ("refused", "unreachable")


async def test_those_that_run_answer_until_one_is_ready_and_without_any_it_is_refused_at_once(world: World) -> None:
    client, one, two = [await world.task(name) for name in ("client", "one", "two")]
    virtual = world.slice.virtual(0)
    began = time.monotonic()
    for space in (client.space, world.host):
        assert await outcome(space, virtual, WEB) == "refused"
    assert time.monotonic() - began < 0.5
    for room in (one, two):
        await world.join(room, ready=False)
    assert len({await ask(client.space, virtual, WEB) for _ in range(2)}) == 2
    await world.join(two)
    assert {await ask(client.space, virtual, WEB) for _ in range(3)} == {f"two sees {client.address}"}
    await world.leave(two)
    assert await ask(client.space, virtual, WEB) == f"one sees {client.address}"
    await world.leave(one)
    assert await outcome(client.space, virtual, WEB) == "refused"


async def test_the_host_reaches_virtual_addresses_and_nobody_else_does(world: World) -> None:
    one = await world.task("one")
    virtual = await world.join(one)
    assert await ask(world.host, virtual, WEB) == f"one sees {GATEWAY}"
    FORWARD.write_text("1")
    outside = world.machine()
    outside.run("ip", "route", "add", "10.181.0.0/16", "via", LAN)
    assert await outcome(outside, virtual, WEB) == "refused"


async def test_no_request_fails_when_an_endpoint_drains_and_goes(world: World) -> None:
    client, old, new = [await world.task(name) for name in ("client", "old", "new")]
    virtual = await world.join(old)
    talk = await Talk.open(client.space, virtual, WEB)
    assert await talk.ask() == f"old sees {client.address}"
    answers, enough = asyncio.Queue[str](), asyncio.Event()

    async def load() -> None:
        while not enough.is_set():  # to cancel what is in wait_for may do nothing (Python 3.11)
            await answers.put((await ask(client.space, virtual, WEB)).split()[0])

    async def heard(name: str, times: int) -> None:
        while times:
            times -= await answers.get() == name

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(load())
        await heard("old", 50)
        await world.join(new)
        await world.leave(old)
        assert await talk.ask() == f"old sees {client.address}", "what has begun goes on"
        await heard("new", 50)
        await talk.close()
        await world.network.detach("old")
        await heard("new", 50)
        enough.set()


async def test_udp_clients_stay_while_their_endpoint_drains_and_move_when_it_is_gone(world: World) -> None:
    """Also of a task that stays attached: stopped, or waiting to run again."""
    client, old, new = [await world.task(name) for name in ("client", "old", "new")]
    ears = {room.name: world.udp(room.space, port=9) for room in (old, new)}
    mouth, talk = world.udp(client.space), await Talk.open(client.space, old.address, WEB)
    virtual = await world.join(old)
    await _send(mouth, b"1", virtual, 9)
    assert await _heard(ears["old"]) == (b"1", client.address)
    await world.join(new)
    await world.leave(old)
    await _send(mouth, b"2", virtual, 9)
    assert await _heard(ears["old"]) == (b"2", client.address)
    await world.leave(old, "gone")
    await _send(mouth, b"3", virtual, 9)
    assert await _heard(ears["new"]) == (b"3", client.address)
    assert await talk.ask(), "connections end by themselves"
    await talk.close()


async def test_the_next_agent_knows_who_answers_at_virtual_addresses(world: World) -> None:
    client, one, two = [await world.task(name) for name in ("client", "one", "two")]
    virtual = await world.join(one)
    await world.join(two, ready=False)
    again = world.agent(world.id, world.slice)
    assert await again.list() == {"client", "one", "two"}
    assert {await ask(client.space, virtual, WEB) for _ in range(2)} == {f"one sees {client.address}"}
    await again.publish("one", Serving(one.address, "gone"))
    assert await ask(client.space, virtual, WEB) == f"two sees {client.address}"
    for room in (client, one, two):
        await again.detach(room.name)
    assert run("nft", "list", "tables") == ""


# The host stays what it was -------------------------------------------------------------------------------------------


def _host_state(world: World) -> str:
    """Links, addresses, routes that are not ours, and the tables."""
    ours = (f"g{world.id}", "10.181.")
    lines = run("ip", "-o", "-d", "link").splitlines() + run("ip", "-o", "address").splitlines()
    lines += run("ip", "route", "show", "table", "all").splitlines() + run("ip", "-6", "route").splitlines()
    return "\n".join(line for line in lines if not any(mark in line for mark in ours))


async def test_the_hosts_own_links_addresses_and_routes_never_change(world: World) -> None:
    world.machine()
    run("ip", "route", "add", "default", "via", CLIENT)
    before, inode = _host_state(world), Path("/proc/thread-self/ns/net").readlink()
    await asyncio.gather(*(world.task(f"t{n}") for n in range(1)), world.task("x", "shop"))
    assert _host_state(world) == before
    assert Path("/proc/thread-self/ns/net").readlink() == inode
    for task in await world.network.list():
        await world.network.detach(task)
    await world.network.close()
    assert _host_state(world) == before
    assert f"g{world.id}" not in run("ip", "link")
    assert "10.181" not in run("ip", "route")
    assert run("nft", "list", "ruleset") == ""
    assert [path.name for path in world.root.glob("forwarding.json")] == []


async def test_the_host_does_not_become_a_router(world: World) -> None:
    one, two = world.machine(), world.machine("198.51.100.1/24", "198.51.100.9/24", "lan1")
    one.run("ip", "route", "add", "default", "via", LAN)
    two.run("ip", "route", "add", "default", "via", "198.51.100.1")
    await world.serve(two, 443, "two")
    await world.task("room")
    assert FORWARD.read_text().strip() == "1"
    assert await outcome(one, "198.51.100.9", 443) == "silence"
    await world.network.detach("room")
    assert FORWARD.read_text().strip() == "0"


async def test_a_host_that_is_a_router_stays_one(world: World) -> None:
    FORWARD.write_text("1")
    one, two = world.machine(), world.machine("198.51.100.1/24", "198.51.100.9/24", "lan1")
    Path("/proc/sys/net/ipv4/conf/default/forwarding").write_text("0")  # a new link would not forward
    one.run("ip", "route", "add", "default", "via", LAN)
    two.run("ip", "route", "add", "default", "via", "198.51.100.1")
    await world.serve(two, 443, "two")
    await world.task("room")
    assert await ask(one, "198.51.100.9", 443) == f"two sees {CLIENT}"
    assert await ask(world.rooms["room"].space, "198.51.100.9", 443) == "two sees 198.51.100.1"
    await world.network.detach("room")
    assert FORWARD.read_text().strip() == "1"


async def test_forwarding_stays_while_another_instance_needs_it(world: World) -> None:
    first, second = world.network, world.instance()
    await world.task("a", network=second)
    await world.task("b", network=first)
    await first.detach("b")
    assert FORWARD.read_text().strip() == "1"
    await second.detach("a")
    assert FORWARD.read_text().strip() == "0"


async def test_an_address_that_is_no_tasks_is_refused_on_the_host(world: World) -> None:
    world.machine()
    run("ip", "route", "add", "default", "via", CLIENT)
    room = await world.task("room")
    nobody = world.slice.address(700)
    assert await outcome(world.host, nobody, WEB) == "unreachable"
    assert await outcome(room.space, nobody, WEB) == "unreachable"
    assert await outcome(room.space, "10.181.200.1", WEB) == "refused", "of another instance, if there were one"


async def test_both_ends_of_a_wire_know_each_other_without_asking(world: World) -> None:
    room = await world.task("room")
    assert f"{room.address} dev g{world.id}0 lladdr 02:67:0a:b5:08:10 PERMANENT" in run("ip", "neighbour")
    assert f"{GATEWAY} dev eth0 lladdr 06:67:0a:b5:08:10 PERMANENT" in room.space.run("ip", "neighbour")


async def test_the_tasks_mtu_is_the_uplinks(world: World) -> None:
    world.machine()
    run("ip", "link", "set", "lan0", "mtu", "1400")
    run("ip", "route", "add", "default", "via", CLIENT)
    room = await world.task("room")
    assert "mtu 1400" in room.space.run("ip", "link", "show", "eth0")


async def test_a_foreign_drop_policy_is_named(world: World) -> None:
    await world.task("room")
    assert (await world.network.surroundings()).troubles == ()
    run("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
    (trouble,) = (await world.network.surroundings()).troubles
    assert trouble.text.startswith("the nftables chain ip filter FORWARD drops what containers send outside, ")
    assert trouble.cure.startswith("iptables -I FORWARD -s 10.181.0.0/16 -j ACCEPT")


async def test_somebody_elses_route_into_our_addresses_is_named(world: World) -> None:
    world.machine()
    run("ip", "route", "add", "10.0.0.0/8", "via", CLIENT)
    await world.task("room")
    (trouble,) = (await world.network.surroundings()).troubles
    assert trouble.text.startswith("the host's route to 10.0.0.0/8 (link lan0) overlaps 10.181.0.0/16")


# Crashes, restarts and strangers --------------------------------------------------------------------------------------


async def test_the_next_agent_adopts_what_runs_without_a_gap(world: World) -> None:
    outside = world.machine()
    web, other = await world.task("web"), await world.task("other", "shop")
    await world.publish(web)
    talk = await Talk.open(outside, LAN, 8080)
    assert await talk.ask()
    links = run("ip", "-o", "link")

    table = run("nft", "-a", "list", "ruleset")
    again = world.agent(world.id, world.slice)
    assert await again.list() == {"web", "other"}
    assert run("nft", "-a", "list", "ruleset") == table, "a table that is in order is left alone, to the handles"
    assert await ask(outside, LAN, 8080) == f"web sees {CLIENT}", "published before anyone published again"
    assert await outcome(other.space, web.address, WEB) == "refused"
    await again.attach(web.attachment)
    await again.attach(web.attachment)
    assert run("ip", "-o", "link") == links
    assert await talk.ask() == f"web sees {CLIENT}"
    await talk.close()
    await again.publish("web", Serving(web.address, "draining"))
    assert await outcome(outside, LAN, 8080) == "refused"
    for task in ("web", "other", "never-was"):
        await again.detach(task)
    assert await again.list() == frozenset()
    assert run("nft", "list", "tables") == ""


async def test_the_next_agent_knows_every_network(world: World) -> None:
    outside = world.machine()
    await world.serve(outside, 443, "internet")
    inside = await world.task("inside", on=("back",), outside=False)
    both, web = await world.task("both", on=("back", "front")), await world.task("web", on=("front",))
    run("nft", "flush", "ruleset")

    again = world.agent(world.id, world.slice)
    assert await again.list() == {"inside", "both", "web"}
    assert await ask(both.space, inside.address, WEB) and await ask(both.space, web.address, WEB)
    assert await outcome(inside.space, web.address, WEB) == "refused"
    assert await outcome(inside.space, CLIENT, 443) == "refused"
    assert await ask(both.space, CLIENT, 443)
    for room in (inside, both, web):
        await again.detach(room.name)


async def test_a_link_of_an_older_version_is_on_its_stacks_own_network(world: World) -> None:
    one, two = await world.task("one"), await world.task("two")
    run("ip", "link", "set", "dev", f"g{world.id}0", "alias", f"one visits {one.address}")
    again = world.agent(world.id, world.slice)
    assert await again.list() == {"one", "two"}
    assert await ask(one.space, two.address, WEB)
    links = run("ip", "-o", "link")
    await again.attach(one.attachment)
    assert run("ip", "-o", "link").count("\n") == links.count("\n")
    for room in (one, two):
        await again.detach(room.name)


async def test_a_table_of_an_older_version_is_taken_up(world: World) -> None:
    outside, web = world.machine(), await world.task("web")
    await world.publish(web)
    run("nft", "delete", "set", "inet", f"gorae_{world.id}", "backends")
    again = world.agent(world.id, world.slice)
    assert await again.list() == {"web"}
    assert await ask(outside, LAN, 8080) == f"web sees {CLIENT}"
    await again.detach("web")


async def test_closing_with_tasks_leaves_them_their_network(world: World) -> None:
    outside = world.machine()
    await world.publish(await world.task("web"))
    await world.network.close()
    assert await ask(outside, LAN, 8080) == f"web sees {CLIENT}"
    assert await world.network.list() == {"web"}


async def test_a_pair_that_was_never_finished_is_swept(world: World) -> None:
    run("ip", "link", "add", f"g{world.id}7", "type", "veth", "peer", "name", f"g{world.id}8")
    assert await world.network.list() == frozenset()
    assert f"g{world.id}" not in run("ip", "link")


async def test_a_sandbox_made_anew_gets_a_new_wire(world: World) -> None:
    old = await world.task("web")
    fresh = Namespace()
    attachment = replace(old.attachment, net_ns=fresh.path)
    await world.network.attach(attachment)
    await world.serve(fresh, WEB, "fresh")
    assert await ask(world.host, old.address, WEB) == f"fresh sees {GATEWAY}"
    assert "eth0" not in old.space.run("ip", "link")
    fresh.close()


async def test_a_namespace_owned_by_a_users_namespace_is_wired_alike(world: World) -> None:
    command = ("unshare", "-U", "-n", "sh", "-c", "echo; exec sleep 60")
    sleeper = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert sleeper.stdout
    try:
        await sleeper.stdout.readline()
        path = Path(f"/proc/{sleeper.pid}/ns/net")
        await world.network.attach(Attachment("web", "visits", path, 0, world.slice.address(0), ALONE))
        said = run("nsenter", f"--net={path}", "ip", "-o", "address")
        assert f"eth0    inet {world.slice.address(0)}/32" in said
    finally:
        sleeper.kill()
        await sleeper.communicate()


def _nowhere(world: World) -> Attachment:
    return Attachment("web", "visits", Path("/nowhere"), 0, world.slice.address(0), ALONE)


async def test_a_missing_namespace_is_an_error_that_says_so(world: World) -> None:
    with pytest.raises(Temporary, match=r"cannot attach task web: .*No such file.*/nowhere") as caught:
        await world.network.attach(_nowhere(world))
    assert caught.value.code == "network-failed"
    await world.network.detach("web")
    assert run("nft", "list", "tables") == ""


async def test_a_change_repairs_a_table_that_others_changed(world: World) -> None:
    one = await world.task("one")
    run("nft", "delete", "table", "inet", f"gorae_{world.id}")
    two = await world.task("two")
    assert await ask(one.space, two.address, WEB) == f"two sees {one.address}"


async def test_a_flushed_ruleset_is_back_within_a_second(world: World) -> None:
    outside = world.machine()
    await world.publish(await world.task("web"))
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(world.network.watch())
        for _ in range(3):
            for _ in range(20):  # the watcher has nothing left to do but to listen
                await ask(outside, LAN, 8080)
            run("nft", "flush", "ruleset")
            until = time.monotonic() + 1
            while (answer := await outcome(outside, LAN, 8080)) == "refused":
                assert time.monotonic() < until
            assert answer == f"web sees {CLIENT}"
        watcher.cancel()
    assert await ask(outside, LAN, 8080) == f"web sees {CLIENT}"


@pytest.mark.parametrize(
    ("call", "trouble"),
    [
        ("commit", Permanent("cannot run nft: it is not installed", code="nft-missing")),
        ("table_present", OSError(errno.ENOBUFS, "No buffer space available")),
    ],
    ids=["changing", "looking"],
)
async def test_the_watch_goes_on_when_nft_is_gone_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str, trouble: Exception
) -> None:
    outside = world.machine()
    await world.publish(await world.task("web"))
    true, away = getattr(nft, call), asyncio.Event()

    def missing(text: str) -> None:
        loop.call_soon_threadsafe(away.set)
        monkeypatch.setattr(nft, call, true)
        raise trouble

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(world.network.watch())
        monkeypatch.setattr(nft, call, missing)
        run("nft", "flush", "ruleset")
        await asyncio.wait_for(away.wait(), PATIENCE)
        until = time.monotonic() + PATIENCE
        while await outcome(outside, LAN, 8080) == "refused":
            assert time.monotonic() < until
        watcher.cancel()


@pytest.mark.parametrize("name", ["", "..", "../x", "a b", "a\nb", "x" * 101])
async def test_what_is_no_name_is_refused(world: World, name: str) -> None:
    for call in (
        world.network.attach(replace(_nowhere(world), task=name)),
        world.network.attach(replace(_nowhere(world), stack=name)),
        world.network.detach(name),
        world.network.names(name, "web", "10.181.8.16", {}),
    ):
        with pytest.raises(Permanent, match="cannot use"):
            await call


def _cpu() -> float:
    """Seconds of processor, nft's included: a busy machine does not change them as it changes time."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


# Many ---------------------------------------------------------------------------------------------------------------


async def test_a_hundred_tasks_share_few_commits(world: World) -> None:
    monitor = await asyncio.create_subprocess_exec("nft", "monitor", stdout=subprocess.PIPE, limit=1 << 22)
    assert monitor.stdout
    spaces = [Namespace() for _ in range(121)]

    def attach(n: int) -> Awaitable[None]:
        on = frozenset({f"net{n % 7}", f"more{n % 5}"})
        return world.network.attach(Attachment(f"t{n}", "s", spaces[n].path, n, world.slice.address(n), on))

    try:
        await attach(100)  # the first one also makes the table
        began = _cpu()
        for n in range(101, 121):
            await attach(n)
        alone = (_cpu() - began) / 20
        run("nft", "add table ip ready")
        while b"ready" not in await monitor.stdout.readline():
            pass
        began = _cpu()
        await asyncio.gather(*map(attach, range(100)))
        together = (_cpu() - began) / 100
        run("nft", "delete table ip ready")
        commits = 0
        while b"delete table ip ready" not in (line := await monitor.stdout.readline()):
            commits += b"new generation" in line
        assert 1 <= commits <= 5
        assert together < alone, "2 ms of processor each, and 6 ms one after another, when this was written"
        assert len(await world.network.list()) == 121
        await asyncio.gather(*(world.network.detach(f"t{n}") for n in range(121)))
        assert run("nft", "list", "tables") == ""
    finally:
        monitor.kill()
        await monitor.communicate()
        for space in spaces:
            space.close()


def _ports(changed: int) -> nft_rules.Policy:
    served = {
        nft_rules.Served("tcp", 2000 + n, "0.0.0.0", f"10.181.{8 + n // 250}.{n % 250 + 1}", 80) for n in range(1000)
    }
    served.add(nft_rules.Served("tcp", 2500, "0.0.0.0", "10.181.8.1", changed))
    return _policy(served=frozenset(served))


def _services(changed: int) -> nft_rules.Policy:
    backends = {
        nft_rules.Backend(Slice(1).virtual(n), Slice(1).address(n if n != 500 else changed), True) for n in range(1000)
    }
    return _policy(backends=frozenset(backends))


def _policy(**more: Any) -> nft_rules.Policy:
    return nft_rules.Policy("abcd1234", Slice(1), **more)


@pytest.mark.parametrize("policy", [_ports, _services], ids=["ports", "services"])
def test_one_endpoint_among_a_thousand(host: Namespace, policy: Callable[[int], nft_rules.Policy]) -> None:
    before = nft_rules.ruleset(policy(81))
    nft.commit(nft_text.whole(before))
    replaced, changed = [], []
    for target in range(82, 92):  # the least of ten: others' work makes either slower
        began = _cpu()
        nft.commit(nft_text.whole(before))
        replaced.append(_cpu() - began)
        step = policy(target)
        began = _cpu()
        after = nft_rules.ruleset(step)
        nft.commit(nft_text.delta(before, after))
        changed.append(_cpu() - began)
        before = after
    assert min(changed) < min(replaced) * 0.8, "a ninth (ports) and a half (services) when this was written"
