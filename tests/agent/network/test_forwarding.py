"""ip_forward is lent, not taken: through crashes, reboots and other instances."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.network.forwarding import IPV6, Forwarding, deafened
from tests.support.netns import PATIENCE, Namespace, machine, run

pytestmark = pytest.mark.host
SYSCTL = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture(autouse=True)
def alone(host: Namespace) -> Namespace:
    return host


def everyone(_: str) -> bool:
    return True


def nobody(_: str) -> bool:
    return False


def value() -> str:
    return SYSCTL.read_text().strip()


@pytest.mark.parametrize("before", ["0", "1"])
def test_it_is_as_before_afterwards(tmp_path: Path, before: str) -> None:
    SYSCTL.write_text(before)
    one = Forwarding("one", tmp_path / "f.json")
    assert [one.require(), one.require()] == [before == "1"] * 2
    assert value() == "1"
    one.release(everyone)
    assert value() == before
    assert not (tmp_path / "f.json").exists()
    one.release(everyone)
    assert value() == before


def test_a_host_without_ipv6_forwards_none(tmp_path: Path) -> None:
    one = Forwarding("one", tmp_path / "f.json", tmp_path / "proc/sys/net/ipv6/conf/all/forwarding")
    assert not one.require() and one.changes() == []
    one.release(everyone)
    assert not (tmp_path / "f.json").exists()


def test_the_last_instance_puts_it_back(tmp_path: Path) -> None:
    one, two = (Forwarding(name, tmp_path / "f.json") for name in ("one", "two"))
    assert [one.require(), two.require()] == [False, False], "the second sees what was before the first"
    one.release(everyone)
    assert value() == "1"
    two.release(everyone)
    assert value() == "0"


def test_an_instance_that_died_without_a_word_does_not_keep_it(tmp_path: Path) -> None:
    Forwarding("dead", tmp_path / "f.json").require()
    one = Forwarding("one", tmp_path / "f.json")
    assert one.require() is False
    one.release(nobody)
    assert value() == "0"


def test_an_agent_that_died_in_between_still_knows_what_was_before(tmp_path: Path) -> None:
    Forwarding("one", tmp_path / "f.json").require()
    again = Forwarding("one", tmp_path / "f.json")
    assert again.require() is False
    again.release(everyone)
    assert value() == "0"


def test_someone_elses_zero_is_respected(tmp_path: Path) -> None:
    one = Forwarding("one", tmp_path / "f.json")
    one.require()
    SYSCTL.write_text("0")
    one.release(everyone)
    assert value() == "0"


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"boot": "another", "before": "1", "instances": ["one"]})])
def test_a_torn_or_old_registry_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    one = Forwarding("one", tmp_path / "f.json")
    assert one.require() is False
    one.release(everyone)
    assert value() == "0"


def _advertise(router: Namespace) -> None:
    """A router's word (RFC 4861, 4.2): it is a default router for half an hour."""
    with router.inside(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as mouth:
        mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex("eth0")
        mouth.bind(("fe80::9", 0, 0, index))
        mouth.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))


def _default() -> bool:
    return "proto ra" in run("ip", "-6", "route", "show", "default")


def _until_default() -> None:
    until = time.monotonic() + PATIENCE
    while not _default():
        assert time.monotonic() < until, "the router's word was not heard"
        time.sleep(0.01)


@pytest.fixture
def router() -> Iterator[Namespace]:
    space = machine("2001:db8::1/64", "2001:db8::9/64")
    try:
        space.run("ip", "address", "add", "fe80::9/64", "dev", "eth0", "nodad")
        _advertise(space)
        _until_default()
        yield space
    finally:
        space.close()


def test_a_host_that_forwards_ipv6_goes_on_listening_to_its_router(tmp_path: Path, router: Namespace) -> None:
    accept = Path("/proc/sys/net/ipv6/conf/lan0/accept_ra")
    one, two = (Forwarding(name, tmp_path / "f.json", IPV6) for name in ("one", "two"))
    assert (one.require(), two.require()) == (False, False)
    assert _default(), "the route it had stays"
    assert accept.read_text().strip() == "2"
    run("ip", "-6", "route", "del", "default")
    _advertise(router)
    _until_default()
    one.release(everyone)
    assert accept.read_text().strip() == "2"
    two.release(everyone)
    assert accept.read_text().strip() == "1"
    assert IPV6.read_text().strip() == "0"
    assert _default()


def test_what_somebody_else_said_of_a_router_meanwhile_stays(tmp_path: Path, router: Namespace) -> None:
    accept = Path("/proc/sys/net/ipv6/conf/lan0/accept_ra")
    one = Forwarding("one", tmp_path / "f.json", IPV6)
    one.require()
    accept.write_text("0")
    one.release(everyone)
    assert accept.read_text().strip() == "0"


def test_a_link_that_went_away_meanwhile(tmp_path: Path, router: Namespace) -> None:
    one = Forwarding("one", tmp_path / "f.json", IPV6)
    one.require()
    run("ip", "link", "del", "lan0")
    one.release(everyone)
    assert IPV6.read_text().strip() == "0"


@pytest.mark.parametrize(
    ("flags", "accept", "found"),
    [
        pytest.param("00450003", "1", ["eth0"], id="a router's default route"),
        pytest.param("00040001", "1", ["eth0"], id="a prefix that a router announced"),
        pytest.param("00450003", "2", [], id="listens in any case"),
        pytest.param("00450003", "0", [], id="a program listens in the kernel's place"),
        pytest.param("00000003", "1", [], id="a route that somebody wrote"),
    ],
)
def test_which_links_would_not_hear_their_router(flags: str, accept: str, found: list[str]) -> None:
    row = f"{'0' * 32} 00 {'0' * 32} 00 {'fe80' + '0' * 28} 00000400 00000001 00000000 {flags}     eth0\n"
    assert deafened(row, lambda _: accept) == found
