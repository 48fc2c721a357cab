"""Which assignments are obeyed, and what is kept of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide import accept
from agent.decide.diff import (
    Observed,
    adopted,
    dump_stranger,
    free_index,
    load_stranger,
    observed,
    orphans,
)
from agent.decide.record import dump
from agent.kit.errors import UserError
from agent.kit.pools import TASKS
from agent.ports import Found
from agent.wire.messages import Mount
from tests.agent.decide.make import BOOT, NOW, PROCESS, assignment, record, task


@pytest.mark.parametrize(
    ("offered", "bound", "held", "expected"),
    [
        pytest.param(assignment(), None, None, "accept", id="the first store wins"),
        pytest.param(assignment(), "S1", None, "accept", id="the first of a stack"),
        pytest.param(assignment(), "S0", None, "unknown-store", id="another store"),
        pytest.param(assignment(generation=2), "S1", assignment(generation=1), "accept", id="newer"),
        pytest.param(assignment(generation=1), "S1", assignment(generation=1), "stale", id="the same"),
        pytest.param(assignment(generation=1), "S1", assignment(generation=2), "stale", id="older"),
        pytest.param(
            assignment(generation=1),
            "S1",
            assignment(generation=9, store="S0"),
            "accept",
            id="of the store that took over",
        ),
    ],
)
def test_judge(offered: object, bound: str | None, held: object, expected: str) -> None:
    assert accept.judge(offered, bound, held) == expected  # type: ignore[arg-type]


def payload(*tasks: object, **fields: object) -> bytes:
    return assignment(*tasks, **fields).model_dump_json().encode()  # type: ignore[arg-type]


ON_NET = payload(
    task(
        container={
            "networks": [{"network": "n", "subnets": [{"subnet": "10.9.0.0/24"}], "addresses": ["10.9.0.7"]}],
            "naming": {"hosts": {"printer": ["192.0.2.9"]}},
        }
    )
)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"\xff", "Invalid JSON", id="no text"),
        pytest.param(b"[]", "should be an object", id="no object"),
        pytest.param(b'{"model": {"x": "\\ud800"}}', "Invalid JSON", id="half a character"),
        pytest.param(b'{"model": {"x": ' + b"[" * 10**5, "recursion", id="endless nesting"),
        pytest.param(payload(stack="other"), "it names the stack 'other'", id="another stack"),
        pytest.param(payload(store=""), "it names no store", id="no store"),
        pytest.param(payload(task("../x")), "malformed", id="an id that is a path"),
        pytest.param(payload(task("t1\n")), "malformed", id="an id with a line"),
        pytest.param(payload(task("t1"), task("t1", slot=2)), "used twice", id="an id twice"),
        pytest.param(payload(task("t1"), task("t2")), "2 tasks claim slot 1 of web", id="a slot twice"),
        pytest.param(
            payload(task("t1", beside="t0"), task("t2")), "2 tasks claim slot 1", id="a slot twice, beside another"
        ),
        pytest.param(
            payload(task("t1", beside="t2"), task("t2", beside="t1")), "2 tasks claim slot", id="each beside the other"
        ),
        pytest.param(
            payload(task("t1"), task("t2", beside="t1"), task("t3", beside="t1")),
            "3 tasks claim slot 1",
            id="a slot three times",
        ),
        pytest.param(payload(task(beside="../t0")), "'../t0' is no task id", id="beside a path"),
        pytest.param(payload(task(service="../web")), "no place in a service", id="a service that is a path"),
        pytest.param(payload(task(slot=0)), "no place in a service", id="slot 0"),
        pytest.param(payload(task(container={"hostname": "a b"})), "no hostname", id="a hostname with a blank"),
        pytest.param(ON_NET.replace(b"10.9.0.0/24", b"anywhere"), "IPv4 or IPv6 network", id="a subnet that is none"),
        pytest.param(ON_NET.replace(b"10.9.0.7", b"10.9.0"), "IPv4 or IPv6 address", id="an address that is none"),
        pytest.param(ON_NET.replace(b"192.0.2.9", b"..."), "IPv4 or IPv6 address", id="a host without an address"),
    ],
)
def test_what_is_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        accept.parse(raw, "shop")
    assert problem in caught.value.message and caught.value.message.startswith("cannot obey the assignment of shop")


def test_an_old_task_and_the_new_one_beside_it_share_a_slot() -> None:
    tasks = (task("t1"), task("t2", beside="t1"))
    assert accept.parse(payload(*tasks), "shop").tasks == tasks


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nothing_on_the_bus_can_raise_anything_else(raw: bytes) -> None:
    with pytest.raises(UserError):
        accept.parse(raw, "shop")


def test_a_good_one_comes_through() -> None:
    made = assignment(task("t1"), task("t2", slot=2), task("d1", "db"))
    assert accept.parse(made.model_dump_json().encode(), "shop") == made


def test_a_tombstone_keeps_what_it_buries() -> None:
    before = assignment(task(), model={"volumes": {}})
    tombstone = assignment(generation=2, removed=True)
    held = accept.held_after(tombstone, before)
    assert held.removed and held.generation == 2 and held.tasks == before.tasks and held.model == before.model
    assert accept.held_after(tombstone, None) == tombstone
    assert accept.held_after(before, tombstone) == before


def test_which_volumes_are_the_stacks_own() -> None:
    model = {"volumes": {"a": {"name": "shop_a"}, "b": {"name": "mine"}, "c": {"name": "theirs", "external": True}}}
    assert accept.volumes(assignment(model=model)) == ("mine", "shop_a")
    mounts = tuple(Mount(kind="volume", target="/x", source=name) for name in ("shop_a", "other_b", "plain"))
    assert accept.volumes(assignment(task(container={"mounts": mounts}))) == ("shop_a",)


# What is on the host ------------------------------------------------------------------------------------------------


def test_orphans_and_strangers() -> None:
    seen = observed(
        [Found("t1", 1, PROCESS, None), Found("t2", 1, None, None)],
        sandboxes=["t1", "t3"],
        rootfs=["t4"],
        mounts=[],
        network=["t5"],
    )
    strangers = {"t2": "shop", "t4": "lost"}
    assert orphans(["t1", "t9"], seen, strangers, {"shop"}) == ("t2", "t3", "t5")
    assert orphans(["t1"], seen, {}, set()) == ("t2", "t3", "t4", "t5"), "a journal that is whole accounts for all"


def test_strangers_are_journalled_as_such() -> None:
    assert load_stranger(dump_stranger("shop")) == "shop"
    for other in (dump(record()), "[]", "{", "{}", '{"stranger": 1}'):
        assert load_stranger(other) is None


def test_what_is_seen_of_one_task() -> None:
    seen = observed(
        [Found("t1", 2, None, None), Found("t1", 1, None, None)], sandboxes=[], rootfs=[], mounts=["t1"], network=[]
    )
    assert [f.attempt for f in seen.seen("t1").attempts] == [1, 2] and seen.seen("t1").leftovers
    assert not Observed().seen("t1").leftovers


@pytest.mark.parametrize(
    ("state", "attempt", "alive", "expected"),
    [
        ("pending", 0, 3, 3),
        ("running", 2, 3, 3),
        ("running", 3, 3, None),
        ("starting", 3, 3, None),
        ("backoff", 1, 2, 2),
        ("running", 3, None, None),
    ],
)
def test_adoption_of_what_the_journal_does_not_know(
    state: str, attempt: int, alive: int | None, expected: int | None
) -> None:
    attempts = () if alive is None else (Found("t1", alive, PROCESS, None), Found("t1", 1, None, None))
    found = adopted(record(state=state, attempt=attempt), attempts, BOOT, NOW)
    assert (found.attempt if found else None) == expected
    assert found is None or (found.state, found.process) == ("running", PROCESS)


@given(st.sets(st.integers(0, TASKS - 1)), st.integers(0, TASKS - 1))
def test_a_free_index_is_free_and_the_next_one(taken: set[int], start: int) -> None:
    found = free_index(taken, start)
    assert found is not None and found not in taken
    assert all(i % TASKS in taken for i in range(start, start + (found - start) % TASKS))


def test_no_index_is_left() -> None:
    assert free_index(set(range(TASKS)), 5) is None
