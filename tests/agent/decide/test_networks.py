"""Who is on which network, and which names are found there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from agent.decide import networks
from agent.wire.messages import NETWORKS, ContainerSpec, Membership, Task


def on(*names: str, mode: str = "", internal: bool = False) -> ContainerSpec:
    """ "front=a,b": on front, with the aliases a and b."""
    memberships = []
    for name in names:
        network, _, aliases = name.partition("=")
        memberships.append({"network": network, "aliases": aliases.split(",") if aliases else (), "internal": internal})
    return ContainerSpec.model_validate(
        {"image": "i", "image_id": "sha256:0", "networks": memberships, "network_mode": mode}
    )


def task(service: str, container: ContainerSpec, slot: int = 1) -> Task:
    return Task(id=f"{service}{slot}", service=service, slot=slot, template="t", container=container)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param(on(), ["shop_default"], id="silent"),
        pytest.param(on("a", "b=x"), ["a", "b"], id="named"),
        pytest.param(on(mode="none"), [], id="none"),
    ],
)
def test_memberships(container: ContainerSpec, expected: list[str]) -> None:
    assert [membership.network for membership in networks.memberships("shop", container)] == expected


def test_the_outside_is_reached_unless_every_network_is_internal() -> None:
    inside, outside = on("a", "b", internal=True).networks, on("c").networks
    assert not networks.reaches_outside(inside)
    assert networks.reaches_outside(inside + outside)
    assert not networks.reaches_outside(())


def test_more_networks_than_a_link_has_room_for_are_refused() -> None:
    on(*(f"n{n}" for n in range(NETWORKS)))
    with pytest.raises(ValidationError):
        on(*(f"n{n}" for n in range(NETWORKS + 1)))


def test_an_older_spec_is_on_its_stacks_own_network() -> None:
    old = ContainerSpec.model_validate_json('{"image": "i", "image_id": "sha256:0"}')
    assert networks.memberships("shop", old) == (Membership(network="shop_default"),)


def test_names_are_those_of_each_network() -> None:
    tasks = [
        task("web", on("front=www", "back")),
        task("web", on("front=www", "back"), 2),
        task("db", on("back=sql,store")),
        task("cache", on("back=store")),
        task("job", on(mode="none")),
    ]
    addresses = {"web": ("10.0.0.1", "10.0.0.2"), "db": ("10.0.0.3",), "cache": ("10.0.0.4",), "job": ("10.0.0.5",)}
    web = ("10.0.0.1", "10.0.0.2")
    assert networks.names("shop", tasks, addresses) == {
        "front": {"web": web, "www": web},
        "back": {
            "web": web,
            "db": ("10.0.0.3",),
            "sql": ("10.0.0.3",),
            "store": ("10.0.0.3", "10.0.0.4"),
            "cache": ("10.0.0.4",),
        },
    }


@dataclass(frozen=True)
class View:
    stack: str
    tables: list[dict[str, dict[str, tuple[str, ...]]]]
    found: dict[str, tuple[str, ...]]


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(View("a", [], {}), id="no network"),
        pytest.param(View("a", [{"a": {"web": ("1",)}}], {"web": ("1",)}), id="its own"),
        pytest.param(
            View("a", [{"a": {"web": ("1",)}}, {"a": {"web": ("1",), "db": ("2",)}}], {"web": ("1",), "db": ("2",)}),
            id="the same on two networks",
        ),
        pytest.param(View("a", [{"b": {"db": ("2",)}}], {"db": ("2",)}), id="a neighbour's"),
        pytest.param(
            View("a", [{"b": {"db": ("2",)}}, {"a": {"db": ("1",)}}], {"db": ("1",)}), id="its own hides a neighbour's"
        ),
        pytest.param(View("a", [{"c": {"db": ("3",)}, "b": {"db": ("2",)}}], {"db": ("2", "3")}), id="two neighbours'"),
        pytest.param(
            View(
                "a",
                [{"b": {"DB": ("2",), "Db.n": ("2",)}, "a": {"db": ("1",), "db.N": ("1",)}}],
                {"db": ("1",), "db.N": ("1",)},
            ),
            id="however a neighbour writes it",
        ),
        pytest.param(
            View("a", [{"b": {"LocalHost": ("2",), "ip6-localhost": ("2",), "x": ("2",)}}], {"x": ("2",)}),
            id="nobody else is localhost",
        ),
    ],
)
def test_what_a_task_finds(view: View) -> None:
    assert networks.seen_from(view.stack, view.tables) == view.found
