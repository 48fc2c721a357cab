"""Beside other firewalls: what they really do to our packets, what we say of it, and that the cure we name is one."""

from __future__ import annotations

import shlex

import pytest

from tests.agent.network.conftest import CLIENT, LAN, WEB, World
from tests.support.netns import Namespace, outcome, run
from tests.support.surface import surface

pytestmark = pytest.mark.host
DOCKER = """
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -A DOCKER-USER -j RETURN
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
"""
UFW = """
iptables -P INPUT DROP
iptables -P FORWARD DROP
iptables -N ufw-before-forward
iptables -N ufw-user-forward
iptables -N ufw-user-input
iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -j ufw-user-input
iptables -A FORWARD -j ufw-before-forward
iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A ufw-before-forward -j ufw-user-forward
"""
FIREWALLD = """
nft add table inet firewalld
nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'
nft add chain inet firewalld filter_FORWARD_POLICIES
nft add chain inet firewalld filter_FWD_trusted
nft add rule inet firewalld filter_FWD_trusted accept
nft add rule inet firewalld filter_FORWARD ct state '{ established, related }' accept
nft add rule inet firewalld filter_FORWARD ct status dnat accept
nft add rule inet firewalld filter_FORWARD iifname lo accept
nft add rule inet firewalld filter_FORWARD jump filter_FORWARD_POLICIES
nft add rule inet firewalld filter_FORWARD ct state invalid drop
nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
"""
OWN = """
nft add table inet mine
nft add chain inet mine gate '{ type filter hook forward priority 0; policy drop; }'
nft add rule inet mine gate ct state vmap '{ established : accept, related : accept, invalid : drop }'
"""
OUT, IN, BETWEEN = "what containers send outside", "what comes to published ports", "what containers say to each other"
# What these programs do when they are told what the cure says; they themselves are not at hand.
TOLD = {
    "ufw route allow from 10.181.0.0/16": "iptables -A ufw-user-forward -s 10.181.0.0/16 -j ACCEPT",
    "ufw route allow to 10.181.0.0/16": "iptables -A ufw-user-forward -d 10.181.0.0/16 -j ACCEPT",
    "firewall-cmd --permanent --zone=trusted --add-source=10.181.0.0/16": (
        "nft add rule inet firewalld filter_FORWARD_POLICIES ip saddr 10.181.0.0/16 goto filter_FWD_trusted"
    ),
    "firewall-cmd --reload": "true",
}


def _type(lines: str) -> None:
    for line in filter(None, lines.splitlines()):
        run(*shlex.split(line))


async def _flows(world: World, outside: Namespace) -> dict[str, bool]:
    """What really goes through."""
    one, two = world.rooms["one"], world.rooms["two"]
    return {
        OUT: await outcome(one.space, CLIENT, 443) == f"outside sees {LAN}",
        IN: await outcome(outside, LAN, 8080) == f"one sees {CLIENT}",
        BETWEEN: await outcome(one.space, two.address, WEB) == f"two sees {one.address}",
    }


@pytest.mark.parametrize(
    ("rules", "chain", "lost", "firewalls"),
    [
        pytest.param("", "", [], (), id="nobody"),
        pytest.param(DOCKER, "ip filter FORWARD", [OUT, IN, BETWEEN], (), id="docker"),
        pytest.param(UFW, "ip filter FORWARD", [OUT, IN, BETWEEN], ("ufw",), id="ufw"),
        pytest.param(DOCKER + UFW, "ip filter FORWARD", [OUT, IN, BETWEEN], ("ufw",), id="docker and ufw"),
        pytest.param(FIREWALLD, "inet firewalld filter_FORWARD", [OUT, BETWEEN], ("firewalld",), id="firewalld"),
        pytest.param(OWN, "inet mine gate", [OUT, IN, BETWEEN], (), id="rules of the owner's"),
        pytest.param("iptables -A FORWARD -j REJECT", "ip filter FORWARD", [OUT, IN, BETWEEN], (), id="a last reject"),
        pytest.param("iptables -A FORWARD -i docker0 -j DROP", "", [], (), id="a drop that is not ours"),
    ],
)
async def test_what_is_lost_is_named_and_the_cure_is_one(
    world: World, rules: str, chain: str, lost: list[str], firewalls: tuple[str, ...]
) -> None:
    outside = world.machine()
    run("ip", "route", "add", "default", "via", CLIENT)
    await world.serve(outside, 443, "outside")
    await world.publish(await world.task("one"))
    await world.task("two")
    _type(rules)
    found = await world.network.surroundings()
    assert await _flows(world, outside) == {what: what not in lost for what in (OUT, IN, BETWEEN)}
    assert found.firewalls == firewalls
    if not lost:
        assert found.troubles == ()
        return
    (trouble,) = found.troubles
    assert trouble.text.startswith(f"the nftables chain {chain} drops {lost[0]}")
    assert all(what in trouble.text for what in lost) and (IN in trouble.text) == (IN in lost)
    for command in trouble.cure.split("; "):
        run(*shlex.split(TOLD.get(command, command)))
    assert (await world.network.surroundings()).troubles == ()
    assert all((await _flows(world, outside)).values())


async def test_ipv6_is_looked_at_when_a_task_has_it(world: World) -> None:
    run("ip6tables", "-P", "FORWARD", "DROP")
    await world.task("plain")
    assert (await world.network.surroundings()).troubles == ()
    await world.task("dual", on=("visits_default",), on_6=("visits_default",))
    (trouble,) = (await world.network.surroundings()).troubles
    assert trouble.text.startswith("the nftables chain ip6 filter FORWARD drops")
    for command in trouble.cure.split("; "):
        run(*shlex.split(command))
    assert (await world.network.surroundings()).troubles == ()


async def test_sysctls_are_named_while_they_are_changed(world: World) -> None:
    assert (await world.network.surroundings()).sysctls == ()
    await world.task("room")
    assert (await world.network.surroundings()).sysctls == ("net.ipv4.ip_forward: 0 → 1",)
    await world.task("dual", on=("visits_default",), on_6=("visits_default",))
    assert (await world.network.surroundings()).sysctls == (
        "net.ipv4.ip_forward: 0 → 1",
        "net.ipv6.conf.all.forwarding: 0 → 1",
    )
    for name in ("room", "dual"):
        await world.network.detach(name)
    assert (await world.network.surroundings()).sysctls == ()


@pytest.mark.parametrize("hardened", [False, True], ids=["as it comes", "hardened"])
async def test_the_host_is_as_before_after_published_ports(world: World, hardened: bool) -> None:
    """Its links, addresses, routes, sysctls, and the rules of others."""
    run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")  # else addresses of its own change by themselves
    outside = world.machine()
    run("ip", "route", "add", "default", "via", CLIENT)
    _type(DOCKER + FIREWALLD)
    if hardened:
        for name in ("all.accept_redirects=0", "all.rp_filter=1", "lan0.forwarding=1", "default.forwarding=1"):
            run("sysctl", "-qw", f"net.ipv4.conf.{name}")
        run("sysctl", "-qw", "net.ipv6.conf.lan0.forwarding=1")
    before = surface()
    assert "FORWARD" in before["nftables"] and "accept_redirects" in before["sysctls"]
    one = await world.task("one", on=("visits_default",), on_6=("visits_default",))
    await world.publish(one)
    await world.publish(await world.task("two"), protocol="udp", host_ip="127.0.0.1")
    assert await outcome(world.host, "127.0.0.1", 8080) == "one sees 169.254.1.1"
    during = surface()
    changed = {name for name in before if before[name] != during[name]}
    assert changed <= {"sysctls", "routes"}, "of routes, those to all routers of a link, which are the kernel's"
    await outcome(outside, LAN, 8080)
    for name in ("one", "two"):
        await world.network.detach(name)
    await world.network.close()
    after = surface()
    for name, text in before.items():
        assert after[name] == text, name
