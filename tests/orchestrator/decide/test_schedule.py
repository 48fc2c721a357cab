from __future__ import annotations

from typing import Any

import pytest

from agent.wire.messages import HostStatus, Listener, PublishedPort, Task, TaskStatus
from orchestrator.decide.expand import expand
from orchestrator.decide.schedule import admit, fits
from tests.orchestrator.decide.test_plan import act, up
from tests.support.orchestrating import stack

GIB = 1 << 30


def host(*listeners: Listener) -> HostStatus:
    return HostStatus(
        instance="0badcafe",
        bound_store_id=None,
        journal_id="j",
        epoch=1,
        seq=1,
        version="0",
        boot_id="b",
        kernel="6.1",
        cgroup="v2",
        cpus=2,
        memory=4 * GIB,
        listeners=listeners,
    )


def tasks(name: str = "shop", **services: Any) -> tuple[Task, ...]:
    return up(stack(name, **{key: {"image": "i:1", **value} for key, value in services.items()})).tasks


def port(published: int | None, **more: Any) -> dict[str, Any]:
    return {"ports": [{"target": 80, "published": published, **more}]}


WEB = tasks(web=port(8080))
VISITS = tasks("visits", web={**port(8080), "replicas": 3})
REDIS = Listener(protocol="tcp", address="0.0.0.0", port=8080, holder="redis-server (pid 7)")


@pytest.mark.parametrize(
    ("wanted", "current", "others", "listeners", "refusals"),
    [
        pytest.param(WEB, (), {}, (), [], id="free"),
        pytest.param(
            WEB,
            (),
            {"visits": VISITS},
            (),
            ["port-taken: cannot start shop/web: port 8080 is held by stack visits (service web)"],
            id="another stack's",
        ),
        pytest.param(WEB, (), {"visits": act("stop", VISITS).tasks}, (), [], id="another stack's, stopped"),
        pytest.param(
            WEB,
            (),
            {"visits": act("pause", VISITS).tasks},
            (),
            ["port-taken: cannot start shop/web: port 8080 is held by stack visits (service web)"],
            id="another stack's, paused",
        ),
        pytest.param(act("stop", WEB).tasks, (), {"visits": VISITS}, (), [], id="we are stopped"),
        pytest.param(
            WEB,
            (),
            {},
            (REDIS,),
            ["port-in-use: cannot start shop/web: port 8080 is in use by redis-server (pid 7)"],
            id="a foreign listener",
        ),
        pytest.param(
            WEB,
            (),
            {},
            (REDIS.model_copy(update={"holder": "", "address": "127.0.0.1"}),),
            ["port-in-use: cannot start shop/web: port 8080 is in use by another program"],
            id="an unknown listener on one address",
        ),
        pytest.param(WEB, (), {}, (REDIS.model_copy(update={"protocol": "udp"}),), [], id="udp is another port"),
        pytest.param(WEB, WEB, {}, (REDIS,), [], id="a port we hold already is not asked for again"),
        pytest.param(
            tasks(web=port(8080, host_ip="127.0.0.1")),
            (),
            {"visits": tasks("visits", web=port(8080, host_ip="10.0.0.1"))},
            (REDIS.model_copy(update={"address": "10.0.0.2"}),),
            [],
            id="different addresses",
        ),
        pytest.param(tasks(web=port(None)), (), {"visits": VISITS}, (REDIS,), [], id="any port will do"),
        pytest.param(
            tasks(web=port(53, protocol="udp"), api=port(53, protocol="udp")),
            (),
            {},
            (),
            ["port-conflict: cannot start shop/web: port 53/udp is also published by service api of the same stack"],
            id="twice in one stack",
        ),
        pytest.param(tasks(web={**port(8080), "replicas": 4}), (), {}, (), [], id="replicas share a port"),
        *(
            pytest.param(
                tasks(web=port(8080, host_ip=ours)),
                (),
                {"visits": tasks("visits", web=port(8080, host_ip=theirs))},
                (),
                ["port-taken: cannot start shop/web: port 8080 is held by stack visits (service web)"] if held else [],
                id=f"{ours or 'anywhere'} beside {theirs or 'anywhere'}",
            )
            for ours, theirs, held in (
                ("127.0.0.1", "", True),
                ("", "10.0.0.1", True),
                ("10.0.0.1", "0.0.0.0", True),
                ("::1", "", True),
                ("::1", "0.0.0.0", False),
                ("::1", "127.0.0.1", False),
                ("127.0.0.1", "127.0.0.2", False),
            )
        ),
        *(
            pytest.param(
                tasks(web=port(8080, host_ip=ours)),
                (),
                {},
                (REDIS.model_copy(update={"address": theirs}),),
                ["port-in-use: cannot start shop/web: port 8080 is in use by redis-server (pid 7)"] if held else [],
                id=f"{ours or 'anywhere'} beside a listener on {theirs}",
            )
            for ours, theirs, held in (
                ("10.0.0.1", "::", True),  # it may take IPv4 as well
                ("", "::1", True),
                ("127.0.0.1", "::ffff:127.0.0.1", True),
                ("127.0.0.1", "::1", False),
                ("10.0.0.1", "127.0.0.1", False),
            )
        ),
        *(
            pytest.param(
                tasks(web=port(published, host_ip=address)),
                (),
                {},
                (),
                [f"bad-address: cannot start shop/web: cannot publish 80 on {address}: {why}"],
                id=f"on {address}",
            )
            for published, address, why in (
                (8080, "2001:db8::1", "no network of the service has enable_ipv6"),
                (None, "::", "no network of the service has enable_ipv6"),
                (8080, "localhost", "that is no address"),
                (8080, "1.2.3", "that is no address"),
                (8080, "::ffff:127.0.0.1", "write it as 127.0.0.1"),
                (8080, "fe80::1%eth0", "an address of one link alone"),
            )
        ),
    ],
)
def test_ports(
    wanted: tuple[Task, ...],
    current: tuple[Task, ...],
    others: dict[str, tuple[Task, ...]],
    listeners: tuple[Listener, ...],
    refusals: list[str],
) -> None:
    found = admit("shop", wanted, current, others, host(*listeners))
    assert [f"{refusal.code}: {refusal.message}" for refusal in found] == refusals
    assert all(refusal.hint and refusal.error().code == refusal.code for refusal in found)


def test_ports_that_the_agent_picked_are_held() -> None:
    """Also those of services beside it in the stack."""
    visits, both = tasks("visits", web=port(None)), tasks("shop", web=port(8080), api=port(None))
    api = next(task for task in both if task.service == "api")
    for others, task in (({"visits": visits}, visits[0]), ({}, api)):
        picked = PublishedPort(target=80, published=8080)
        status = TaskStatus(id=task.id, service=task.service, slot=1, template="t", state="running", ports=(picked,))
        mine = tuple(t for t in both if t.service == "web" or not others)
        found = admit("shop", mine, (), others, host(), {task.id: status})
        assert [refusal.code for refusal in found] == ["port-taken" if others else "port-conflict"]
        assert task.service in found[0].message


def reserve(memory: float = 0, cpus: float = 0, replicas: int = 1) -> dict[str, Any]:
    resources = {"memory_reservation": int(memory * GIB) or None, "cpus_reservation": cpus or None}
    return {"resources": resources, "replicas": replicas}


@pytest.mark.parametrize(
    ("wanted", "current", "others", "refusals"),
    [
        pytest.param(tasks(db=reserve(4)), (), {}, [], id="all of it"),
        pytest.param(
            tasks(db=reserve(1, replicas=3), web=reserve(1.5)),
            (),
            {},
            [
                "memory-short: cannot start shop/web: it reserves 1.5 GiB of memory, "
                "and 1 GiB of 4 GiB are not reserved yet"
            ],
            id="the service that does not fit is named",
        ),
        pytest.param(
            tasks(db=reserve(2)),
            (),
            {"visits": tasks("visits", db=reserve(3))},
            [
                "memory-short: cannot start shop/db: it reserves 2 GiB of memory, "
                "and 1 GiB of 4 GiB are not reserved yet"
            ],
            id="other stacks count",
        ),
        pytest.param(tasks(db=reserve(5)), tasks(db=reserve(6)), {}, [], id="a stack that is over may become smaller"),
        pytest.param(
            tasks(db=reserve(cpus=1.5, replicas=2)),
            (),
            {},
            ["cpu-short: cannot start shop/db: it reserves 3 cpus, and 2 of 2 are not reserved yet"],
            id="cpus",
        ),
    ],
)
def test_capacity(
    wanted: tuple[Task, ...], current: tuple[Task, ...], others: dict[str, tuple[Task, ...]], refusals: list[str]
) -> None:
    found = admit("shop", wanted, current, others, host())
    assert [f"{refusal.code}: {refusal.message}" for refusal in found] == refusals


@pytest.mark.parametrize(
    ("replicas", "environment", "current", "others", "refused"),
    [
        pytest.param((1000, 24), "", (), {}, None, id="as many as there are addresses"),
        pytest.param(
            (1000, 25),
            "",
            (),
            {},
            "no-room: cannot start shop/a: the stack wants 1025 containers, and 1024 of 1024 are free",
            id="one more",
        ),
        pytest.param(
            (1000, 24),
            "",
            (),
            {"visits": VISITS},
            "no-room: cannot start shop/a: the stack wants 1024 containers, and 1021 of 1024 are free",
            id="other stacks count",
        ),
        pytest.param((1, 0), "", WEB, {"visits": VISITS * 1024}, None, id="what does not grow is not judged"),
        pytest.param((16, 0), "x" * 1_000_000, (), {}, None, id="15 MiB"),
        pytest.param(
            (2, 17),
            "x" * 1_000_000,
            (),
            {},
            "stack-too-large: cannot start shop/b: what its 17 containers are given comes to 16.2 MiB, "
            "and a stack may have 16 MiB",
            id="more than a message holds",
        ),
        pytest.param((0, 0), "x" * 1_000_000, (), {}, None, id="nothing at all"),
    ],
)
def test_how_many_fit(
    replicas: tuple[int, int],
    environment: str,
    current: tuple[Task, ...],
    others: dict[str, tuple[Task, ...]],
    refused: str | None,
) -> None:
    model = stack(
        **{
            name: {"image": "i", "replicas": count, "environment": {"E": environment}}
            for name, count in zip("ab", replicas, strict=True)
        }
    )
    refusal = fits("shop", expand(model, {"i": "sha256:i"}), current, others)
    assert (refusal and f"{refusal.code}: {refusal.message}") == refused


def test_without_a_host_the_stacks_are_still_compared() -> None:
    assert [r.code for r in admit("shop", WEB, (), {"visits": VISITS}, None)] == ["port-taken"]
