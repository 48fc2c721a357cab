"""Which address of each family a task gets."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide.addresses import chosen, pick
from agent.kit.errors import UserError
from agent.wire.messages import Membership, Subnet
from tests.agent.decide.make import task

OWN, TWIN = "10.181.8.20", "fd67:6f72:6165:1::14"
V4, V6 = Subnet(subnet="172.28.0.0/24"), Subnet(subnet="2001:db8::/64")


def on(network: str = "a", **fields: Any) -> Membership:
    return Membership(network=network, **fields)


@pytest.mark.parametrize(
    ("networks", "taken", "expected"),
    [
        ((), (), (OWN, "")),
        ((on(),), (), (OWN, "")),
        ((on(ipv6=True),), (), (OWN, TWIN)),
        ((on("a"), on("b", ipv6=True)), (), (OWN, TWIN)),
        ((on(subnets=(V4,)),), (), ("172.28.0.6", "")),
        ((on(subnets=(V4,)),), ("172.28.0.6", "172.28.0.7"), ("172.28.0.8", "")),
        ((on(subnets=(V4,), addresses=("172.28.0.9",)),), ("172.28.0.9",), ("172.28.0.9", "")),
        ((on(subnets=(V4, V6), ipv6=True),), (), ("172.28.0.6", "2001:db8::6")),
        ((on(subnets=(V6,), addresses=("2001:db8::9",), ipv6=True),), (), (OWN, "2001:db8::9")),
        ((on("b", subnets=(V4,)), on("a", addresses=("172.29.0.2",))), (), ("172.29.0.2", "")),
        ((on(subnets=(Subnet(subnet="172.28.0.0/24", among="172.28.0.128/25"),)),), (), ("172.28.0.134", "")),
        ((on(subnets=(Subnet(subnet="172.28.0.0/24", reserved=("172.28.0.6",)),)),), (), ("172.28.0.7", "")),
    ],
    ids=[
        "no network",
        "plain",
        "with IPv6",
        "IPv6 on one of two",
        "out of a subnet",
        "the next free one",
        "chosen",
        "out of two subnets",
        "chosen in one family",
        "chosen on another network",
        "out of a part",
        "not a reserved one",
    ],
)
def test_what_a_task_gets(networks: tuple[Membership, ...], taken: tuple[str, ...], expected: tuple[str, str]) -> None:
    assert pick(networks, 4, OWN, TWIN, frozenset(taken)) == expected


def test_a_full_subnet_says_so() -> None:
    small = on("back", subnets=(Subnet(subnet="172.28.0.0/30"),))
    assert pick([small], 0, OWN, TWIN, frozenset()) == ("172.28.0.2", "")
    with pytest.raises(UserError, match=r"cannot give out an address: 172\.28\.0\.0/30 of network back is full"):
        pick([small], 0, OWN, TWIN, frozenset({"172.28.0.2"}))


@given(st.sets(st.integers(0, 1023), min_size=1, max_size=60))
def test_no_two_tasks_get_the_same(indexes: set[int]) -> None:
    taken: set[str] = set()
    for index in indexes:
        address, _ = pick([on(subnets=(Subnet(subnet="172.28.0.0/26"),))], index, OWN, TWIN, taken)
        assert address not in taken and ipaddress.ip_address(address) in ipaddress.ip_network("172.28.0.0/26")
        taken.add(address)


def test_what_files_chose() -> None:
    container = {"networks": [{"network": "a", "addresses": ["172.28.0.9", "2001:db8::9"]}, {"network": "b"}]}
    assert chosen([task(container=container), task()]) == {"172.28.0.9", "2001:db8::9"}
