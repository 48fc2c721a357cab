"""The networks of services, as the agent takes them."""

from __future__ import annotations

from typing import Any

import pytest

from agent.kit.errors import UserError
from agent.wire.messages import Membership
from orchestrator.compose.model import Stack
from orchestrator.decide.expand import expand
from orchestrator.decide.networks import memberships, settled


def model(declared: dict[str, Any] | None = None, **service: Any) -> Stack:
    services = {"web": {"image": "web:1", **service}}
    return Stack.model_validate({"name": "shop", "services": services, "networks": declared or {}})


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        pytest.param(model(), (), id="its stack's own"),
        pytest.param(model({"default": {"name": "shop_default"}}), (), id="its stack's own, said"),
        pytest.param(model({"default": {"name": "all"}}), (Membership(network="all"),), id="another default"),
        pytest.param(
            model({"default": {"name": "shop_default", "internal": True}}),
            (Membership(network="shop_default", internal=True),),
            id="internal",
        ),
        pytest.param(
            model(networks={"default": {"aliases": ["www"]}}),
            (Membership(network="shop_default", aliases=("www",)),),
            id="an alias",
        ),
        pytest.param(
            model({"n": {"name": "shop_n"}, "b": {"name": "a", "external": True}}, networks={"n": {}, "b": {}}),
            (Membership(network="a"), Membership(network="shop_n")),
            id="two, by name",
        ),
        pytest.param(model(network_mode="none"), (), id="none"),
    ],
)
def test_memberships(stack: Stack, expected: tuple[Membership, ...]) -> None:
    assert memberships(stack, "web") == expected
    assert expand(stack, {"web:1": "sha256:1"})["web"].container.networks == expected


def test_a_template_does_not_know_that_there_are_networks_until_it_uses_them() -> None:
    """Of a container that an earlier version made: an upgrade of gorae replaces none."""
    found = {
        expand(stack, {"web:1": "sha256:1"})["web"].template for stack in (model(), model(networks={"default": {}}))
    }
    assert found == {"c26a019fd17b0bb0"}
    assert expand(model(network_mode="none"), {"web:1": "sha256:1"})["web"].template not in found


def test_a_network_that_nobody_declared() -> None:
    with pytest.raises(UserError, match="cannot start shop/web: its network n is not declared") as caught:
        memberships(model(networks={"n": {}}), "web")
    assert caught.value.code == "network-undefined"


@pytest.mark.parametrize(
    ("other", "internal"),
    [
        pytest.param({"n": {"name": "back", "internal": True}}, True, id="declared so"),
        pytest.param({"n": {"name": "back"}}, False, id="declared"),
        pytest.param({"n": {"name": "other", "internal": True}}, False, id="another network"),
        pytest.param({"n": {"name": "back", "internal": True, "external": True}}, False, id="told by another guest"),
    ],
)
def test_an_external_network_is_internal_where_its_owner_says_so(other: dict[str, Any], internal: bool) -> None:
    guest = model({"b": {"name": "back", "external": True}, "own": {"name": "x", "internal": True}})
    found = settled(guest, [{}, {"networks": other}]).networks
    assert (found["b"].internal, found["own"].internal) == (internal, True)
    again = settled(guest.model_copy(update={"networks": found}), [])
    assert not again.networks["b"].internal, "asked again at each up"


def test_an_external_network_has_what_its_owner_says() -> None:
    guest = model({"b": {"name": "back", "external": True}})
    owner = {"n": {"name": "back", "ipv6": True, "subnets": [{"subnet": "172.28.0.0/16"}], "mtu": 1400}}
    found = settled(guest, [{"networks": owner}]).networks["b"]
    assert (found.external, found.ipv6, found.mtu, found.subnets[0].subnet) == (True, True, 1400, "172.28.0.0/16")
