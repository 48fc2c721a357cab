"""Which virtual address a service gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import UserError
from agent.kit.pools import VIRTUALS
from orchestrator.decide.virtual import allot, networked

_names = st.sampled_from([f"s{n}" for n in range(20)])
_numbers = st.integers(0, VIRTUALS - 1)


@given(
    st.sets(_names).map(lambda names: tuple(sorted(names))),
    st.lists(st.tuples(_names, _numbers), unique_by=(lambda p: p[0], lambda p: p[1])).map(dict),
    st.sets(_numbers),
)
def test_each_keeps_its_own_and_nobody_has_anothers(
    services: tuple[str, ...], before: dict[str, int], taken: set[int]
) -> None:
    taken -= set(before.values())
    found = allot("shop", services, before, taken)
    assert found.keys() == set(services)
    assert len(set(found.values())) == len(found)
    assert taken.isdisjoint(found.values())
    assert all(found[service] == before[service] for service in services if service in before)
    assert allot("shop", services, found, taken) == found, "asked again, nothing changes"


def test_what_comes_again_gets_what_it_had() -> None:
    first = allot("shop", ("web",), {}, set())
    assert allot("shop", ("web",), {}, {number for number in range(VIRTUALS) if number != first["web"]}) == first
    assert allot("blog", ("web",), {}, set()) != first


def test_when_all_are_taken_it_says_so() -> None:
    last = set(range(VIRTUALS)) - {5}
    assert allot("shop", ("web",), {}, last) == {"web": 5}
    with pytest.raises(UserError, match="cannot start shop/web: all 1008 virtual addresses are taken") as caught:
        allot("shop", ("web", "worker"), {"worker": 5}, last)
    assert caught.value.code == "no-virtual-address"


def test_a_service_without_a_network_gets_none() -> None:
    model = {"services": {"b": {}, "a": {"networks": {}}, "job": {"network_mode": "none"}}}
    assert networked(model) == ("a", "b")
