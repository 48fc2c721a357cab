"""Addresses and subnets that a file chose: who has them already."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.messages import ContainerSpec, HostStatus, Membership, Route, Subnet, Task, TaskStatus
from orchestrator.decide.addresses import conflicts

BACK = Subnet(subnet="172.28.0.0/16", reserved=("172.28.0.1",))
SIX = Subnet(subnet="2001:db8::/64")


def on(*addresses: str, network: str = "shop_back", subnets: tuple[Subnet, ...] = (BACK,)) -> Membership:
    return Membership(network=network, subnets=subnets, addresses=addresses, ipv6=SIX in subnets)


def task(*networks: Membership, service: str = "db", slot: int = 1) -> Task:
    spec = ContainerSpec(image="x", image_id="sha256:1", networks=networks)
    return Task(id=f"{service}{slot}", service=service, slot=slot, template="t", container=spec)


def host(*routes: tuple[str, str], pool: str = "10.181.0.0/16") -> HostStatus:
    return HostStatus(
        instance="abcd1234", bound_store_id=None, journal_id="j", epoch=1, seq=1, version="1", boot_id="b", kernel="6",
        cgroup="v2", cpus=1, memory=1, routes=tuple(Route(network=n, link=link) for n, link in routes), pool=pool,
    )  # fmt: skip


def refused(tasks: list[Task], **more: Any) -> list[str]:
    given: dict[str, Any] = {"before": (), "others": {}, "host": host(), "reported": {}} | more
    return [refusal.message.removeprefix("cannot start shop/") for refusal in conflicts("shop", tasks, **given)]


GIVE = "db: cannot give it {} on network shop_back: {}"
SUBNET = "db: the subnet 172.28.0.0/16 of network shop_back overlaps {}"
OTHER = task(on("172.28.0.9", network="shared"), service="web")
REPORT = TaskStatus(id="web1", service="web", slot=1, template="t", state="running", address="172.28.0.10")


@pytest.mark.parametrize(
    ("tasks", "more", "expected"),
    [
        ([task(on("172.28.0.10"))], {}, []),
        ([task(on("172.28.0.10", "2001:db8::a", subnets=(BACK, SIX)))], {}, []),
        ([task(on("10.9.9.9"))], {}, [GIVE.format("10.9.9.9", "it is in no subnet of the network")]),
        ([task(on("172.28.0.1"))], {}, [GIVE.format("172.28.0.1", "its ipam keeps that address for something else")]),
        (
            [task(on("172.28.255.255"))],
            {},
            [GIVE.format("172.28.255.255", "that is no address of a container in 172.28.0.0/16")],
        ),
        (
            [task(on("172.28.0.10"), slot=slot) for slot in (1, 2)],
            {},
            [GIVE.format("172.28.0.10", "the service has 2 replicas, and an address belongs to one")],
        ),
        (
            [task(on("172.28.0.10"), on("172.29.0.5", network="x", subnets=(Subnet(subnet="172.29.0.0/16"),)))],
            {},
            [
                GIVE.format(
                    "172.28.0.10", "the file chose 172.28.0.10 and 172.29.0.5, and a container has one IPv4 address"
                ),
                "db: cannot give it 172.29.0.5 on network x: the file chose 172.28.0.10 and 172.29.0.5, and a container "
                "has one IPv4 address",
            ],
        ),
        (
            [task(on("172.28.0.10")), task(on("172.28.0.10"), service="web")],
            {},
            [
                GIVE.format("172.28.0.10", "services db and web both want it"),
                "web: cannot give it 172.28.0.10 on network shop_back: services db and web both want it",
            ],
        ),
        (
            [task(on("172.28.0.9", network="shared"))],
            {"others": {"blog": [OTHER]}},
            ["db: cannot give it 172.28.0.9 on network shared: it is held by stack blog (service web)"],
        ),
        (
            [task(on("172.28.0.10", network="shared"))],
            {"others": {"blog": [task(on(network="shared"), service="web")]}, "reported": {"web1": REPORT}},
            ["db: cannot give it 172.28.0.10 on network shared: it is held by stack blog (service web)"],
        ),
        ([task(on())], {"others": {"blog": [OTHER]}}, [SUBNET.format("172.28.0.0/16 of network shared (stack blog)")]),
        (
            [task(on())],
            {"host": host(("172.28.5.0/24", "tun0"))},
            [SUBNET.format("the host's route to 172.28.5.0/24 (link tun0)")],
        ),
        (
            [task(on())],
            {"host": host(pool="172.28.0.0/16")},
            [SUBNET.format("172.28.0.0/16, which gorae gives out addresses of")],
        ),
        ([task(on())], {"before": [task(on())], "host": host(("172.28.5.0/24", "tun0"))}, []),
        (
            [task(on("172.28.0.10"), slot=slot) for slot in (1, 2)],
            {"before": [task(on("172.28.0.10"))]},
            [GIVE.format("172.28.0.10", "the service has 2 replicas, and an address belongs to one")],
        ),
        ([task(on())], {"host": None}, []),
    ],
    ids=[
        "free",
        "free in both families",
        "in no subnet",
        "reserved",
        "broadcast",
        "replicas",
        "two of a family",
        "twice in the stack",
        "chosen by another stack",
        "given to another stack",
        "subnet of another network",
        "route of the host",
        "the pool",
        "held already",
        "held by one, now by two",
        "nothing known of the host",
    ],
)
def test_who_has_it(tasks: list[Task], more: dict[str, Any], expected: list[str]) -> None:
    assert refused(tasks, **more) == expected


@pytest.mark.parametrize(
    "subnet",
    [
        "0.0.0.0/0",
        "127.0.0.0/24",
        "169.254.169.0/24",
        "224.1.0.0/16",
        "255.255.255.0/24",
        "::/64",
        "fe80::/64",
        "ff02::/64",
    ],
)
def test_what_can_be_no_containers_address(subnet: str) -> None:
    found = refused([task(on(subnets=(Subnet(subnet=subnet),)))])
    assert len(found) == 1 and found[0].startswith(f"db: the subnet {subnet} of network shop_back overlaps ")
