"""Slices: stable, apart from each other, and never lost or given out twice."""

from __future__ import annotations

import ipaddress
import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import UserError
from agent.kit.pools import ADDRESS_POOL, SLICES, TASKS, UID_POOL, UID_RANGE, Slice, claim, release

_indexes = st.integers(0, TASKS - 1)
_numbers = st.integers(0, SLICES - 1)


@given(_numbers, _indexes)
def test_an_address_lies_in_its_slice_and_its_slice_in_the_pool(number: int, index: int) -> None:
    address, subnet = ipaddress.ip_address(Slice(number).address(index)), ipaddress.ip_network(Slice(number).subnet)
    assert address in subnet
    assert ipaddress.ip_network(ADDRESS_POOL).supernet_of(subnet)  # type: ignore[arg-type]
    assert address not in (subnet.network_address, subnet.broadcast_address)


@given(_numbers, _indexes, _numbers, _indexes)
def test_no_two_tasks_share_an_address_or_an_id(one: int, i: int, two: int, j: int) -> None:
    same = (one, i) == (two, j)
    assert (Slice(one).address(i) == Slice(two).address(j)) is same
    assert (abs(Slice(one).uid_base(i) - Slice(two).uid_base(j)) < UID_RANGE) is same


def test_ids_stay_within_their_pool() -> None:
    assert Slice(0).uid_base(0) == UID_POOL
    assert Slice(SLICES - 1).uid_base(TASKS - 1) + UID_RANGE < 2**32 - 1


@pytest.mark.parametrize("index", [-1, TASKS])
def test_an_index_outside_is_a_bug(index: int) -> None:
    with pytest.raises(ValueError, match="allocation index"):
        Slice(0).address(index)
    with pytest.raises(ValueError, match="allocation index"):
        Slice(0).uid_base(index)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "pools.json"


def test_an_instance_keeps_its_slice(tmp_path: Path, registry: Path) -> None:
    assert [claim(name, tmp_path, registry).number for name in ("a", "b", "a", "c", "b")] == [0, 1, 0, 2, 1]


def test_a_released_slice_and_one_whose_root_is_gone_are_free(tmp_path: Path, registry: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    claim("a", gone, registry)
    claim("b", tmp_path, registry)
    claim("c", tmp_path, registry)
    gone.rmdir()
    release("b", registry)
    release("b", registry)
    assert [claim(name, tmp_path, registry).number for name in ("d", "e")] == [1, 3]


def test_a_root_that_is_gone_may_come_back_and_its_slice_goes_last(tmp_path: Path, registry: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    claim("a", gone, registry)
    gone.rmdir()
    assert [claim(f"i{number}", tmp_path, registry).number for number in range(SLICES)] == [*range(1, SLICES), 0]


def test_a_copy_of_a_root_is_not_the_instance(tmp_path: Path, registry: Path) -> None:
    original, copy, moved = (tmp_path / name for name in ("original", "copy", "moved"))
    for root in (original, copy):
        root.mkdir()
        (root / "instance").write_text("0badcafe\n")
    claim("0badcafe", original, registry)
    with pytest.raises(UserError, match=f"{copy} is a copy of {original}") as caught:
        claim("0badcafe", copy, registry)
    assert caught.value.code == "instance-copied"
    link = tmp_path / "link"
    link.symlink_to(original)
    assert claim("0badcafe", link, registry) == claim("0badcafe", original, registry)
    original.rename(moved)
    assert claim("0badcafe", moved, registry).number == 0, "one that was moved is"


def test_when_all_are_taken_it_says_so(tmp_path: Path, registry: Path) -> None:
    for number in range(SLICES):
        claim(f"i{number}", tmp_path, registry)
    with pytest.raises(UserError, match=f"all {SLICES} slices") as caught:
        claim("one more", tmp_path, registry)
    assert caught.value.code == "no-slice"
    assert claim("i7", tmp_path, registry).number == 7


@pytest.mark.parametrize("text", ["", "{", "[]", '{"0": 1}', '{"x": {"instance": "a", "root": "/"}}'])
def test_a_damaged_registry_is_not_begun_anew(tmp_path: Path, registry: Path, text: str) -> None:
    registry.parent.mkdir()
    registry.write_text(text)
    for _ in range(2):
        with pytest.raises(UserError, match="cannot read") as caught:
            claim("a", tmp_path, registry)
    assert caught.value.code == "bad-registry"
    assert registry.read_text() == text


def _claim(name: str, root: Path, registry: Path) -> int:
    return claim(name, root, registry).number


def test_claims_at_the_same_time_differ(tmp_path: Path, registry: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        numbers = pool.starmap(_claim, [(f"i{n}", tmp_path, registry) for n in range(12)])
    assert sorted(numbers) == list(range(12))
    assert len(json.loads(registry.read_text())) == 12


def test_every_address_has_a_twin() -> None:
    slice_ = Slice(1)
    assert slice_.twin(slice_.address(0)) == "fd67:6f72:6165:1::10"
    assert slice_.twin(slice_.virtual(0)) == "fd67:6f72:6165:1::410"
    assert slice_.virtuals_6 == "fd67:6f72:6165:1::410-fd67:6f72:6165:1::7ff"
    assert slice_.virtual_nets == ("10.181.12.0/22", "fd67:6f72:6165:1::400/118")
    with pytest.raises(ValueError, match="is not in"):
        slice_.twin("10.181.16.0")


def test_another_pool_is_taken_up_unless_tasks_have_addresses(tmp_path: Path, registry: Path) -> None:
    assert claim("a", tmp_path, registry).subnet == "10.181.0.0/21"
    assert claim("a", tmp_path, registry, pool="10.77.0.0/16").subnet == "10.77.0.0/21"
    assert claim("a", tmp_path, registry, pool="10.77.0.0/16", held=True).subnet == "10.77.0.0/21"
    with pytest.raises(
        UserError, match=r"cannot use 10\.181\.0\.0/16 as the pool .*: containers have addresses of 10\.77"
    ):
        claim("a", tmp_path, registry, held=True)


def test_a_slice_keeps_clear_of_the_hosts_own_routes(tmp_path: Path, registry: Path) -> None:
    routes = ["10.181.0.0/24", "fd67:6f72:6165:1::/64", "192.0.2.0/24"]
    assert claim("a", tmp_path, registry, routes=routes).number == 2
    assert claim("a", tmp_path, registry, held=True, routes=["10.181.16.0/24"]).number == 2, "what runs goes on"
    with pytest.raises(UserError, match=r"addresses of 10\.181\.16\.0/21: the host has a route to 10\.181\.16\.0/24"):
        claim("a", tmp_path, registry, routes=["10.181.16.0/24"])
    with pytest.raises(
        UserError, match=r"addresses of 10\.181\.0\.0/16: the host has a route to 10\.0\.0\.0/8"
    ) as error:
        claim("b", tmp_path, registry, routes=["10.0.0.0/8"])
    assert "[network] pool" in error.value.hint
    assert claim("b", tmp_path, registry, pool="172.20.0.0/16", routes=["10.0.0.0/8"]).subnet == "172.20.0.0/21"
