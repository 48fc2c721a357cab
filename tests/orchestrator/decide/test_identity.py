"""Whose assignments are obeyed, as a table; and what is taken over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.wire.messages import Assignment, ContainerSpec, Online, Report, StackStatus, Task
from orchestrator.decide.identity import Adopt, Bound, Rename, Seen, Wait, adopted, judge, renamed, take_over
from orchestrator.decide.records import Counter, Identity, StackRecord
from tests.orchestrator.decide.test_schedule import host

OURS = Identity("ours", settled=True)
NEW = Identity("ours")
COUNTERS = {"shop": Counter(3, 1)}
CURSORS = {host().journal_id: 40}
UP = Online(online=True, epoch=1)


def seen(
    bound: str | None,
    *reports: tuple[str, int],
    online: Online | None = UP,
    told: dict[str, int] | None = None,
    status: StackStatus | None = None,
    epoch: int = 1,
    acknowledged: int = 0,
) -> Seen:
    return Seen(
        online=online,
        host=host().model_copy(
            update={"bound_store_id": bound, "stacks": told or {}, "epoch": epoch, "acknowledged": acknowledged}
        ),
        statuses={status.stack: status} if status else {},
        reports={name: report(name, generation, bound or "") for name, generation in reports},
    )


def report(name: str, generation: int, bound: str) -> Report:
    return Report(bound_store_id=bound, assignment=assignment(name, generation, bound))


def assignment(name: str, generation: int, store: str = "old") -> Assignment:
    return Assignment(store_id=store, stack=name, generation=generation, revision=1, model={"name": name})


def status(generation: int, store: str = "ours", name: str = "shop") -> StackStatus:
    return StackStatus(store_id=store, stack=name, observed_generation=generation, epoch=1, seq=1)


@pytest.mark.parametrize(
    ("identity", "what", "verdict"),
    [
        pytest.param(OURS, Seen(), "Wait the agent is away", id="nothing yet"),
        pytest.param(OURS, seen("ours", online=Online(online=False, epoch=1)), "Wait the agent is away", id="offline"),
        pytest.param(
            OURS, seen("ours", epoch=7), "Wait the agent has not described its host yet", id="of an earlier start"
        ),
        pytest.param(OURS, seen("ours", told={"shop": 3}), "Bound", id="ours"),
        pytest.param(OURS, seen("ours", acknowledged=40), "Bound", id="ours, all events taken"),
        pytest.param(
            OURS,
            seen("ours", acknowledged=41),
            "Rename the agent's events were taken over up to 41, this database has them to 40",
            id="restored, and the stack that changed is gone",
        ),
        pytest.param(OURS, seen("ours", told={"shop": 2}), "Bound", id="ours, the agent is behind"),
        pytest.param(OURS, seen("ours"), "Bound", id="ours, the agent has nothing"),
        pytest.param(NEW, seen(None), "Bound", id="an agent that obeys nobody"),
        pytest.param(replace(OURS, adopts=("old",)), seen("old", told={"x": 9}), "Bound", id="taken over already"),
        pytest.param(
            OURS,
            seen("ours", told={"shop": 4}),
            "Rename the agent has generation 4 of stack shop, this database only 3",
            id="the agent is ahead",
        ),
        pytest.param(
            OURS,
            seen("ours", told={"blog": 1}),
            "Rename the agent has generation 1 of stack blog, this database only 0",
            id="a stack nobody told us of",
        ),
        pytest.param(
            OURS,
            seen("ours", status=status(5)),
            "Rename the agent has generation 5 of stack shop, this database only 3",
            id="a status is ahead",
        ),
        pytest.param(OURS, seen("ours", status=status(9, "old")), "Bound", id="another store's status proves nothing"),
        pytest.param(
            OURS,
            seen("later"),
            "Rename the agent obeys store later, which came after this database's ours",
            id="settled, but somebody came after",
        ),
        pytest.param(
            NEW, seen("old", told={"shop": 3}), "Wait the agent has not reported stack shop yet", id="no report"
        ),
        pytest.param(
            NEW,
            seen("old", ("shop", 2), told={"shop": 3}),
            "Wait the agent has not reported stack shop yet",
            id="an outdated report",
        ),
        pytest.param(
            NEW,
            seen("old", ("shop", 3), ("gone", 1), told={"shop": 3}),
            "Adopt shop",
            id="complete; a stale report is left out",
        ),
        pytest.param(NEW, seen("old"), "Adopt ", id="another store, nothing runs"),
    ],
)
def test_judge(identity: Identity, what: Seen, verdict: str) -> None:
    found = judge(identity, COUNTERS, CURSORS, what)
    text = type(found).__name__
    if isinstance(found, Wait | Rename):
        text += f" {found.why}"
    if isinstance(found, Adopt):
        text += " " + " ".join(a.stack for a in found.assignments)
    assert text == verdict


def test_bound_is_a_value() -> None:
    assert judge(OURS, COUNTERS, CURSORS, seen("ours")) == Bound()


def record(name: str, generation: int, **more: bool) -> StackRecord:
    return StackRecord(name, generation, 1, {"name": name}, (), 0.0, **more)


@pytest.mark.parametrize(
    ("former", "ours", "told", "changed"),
    [
        ((), {}, {"shop": 3}, {"shop": (3, False)}),
        (("old",), {"shop": 2}, {"shop": 3}, {"shop": (3, False)}),
        (("old",), {"shop": 4}, {"shop": 3}, {}),
        ((), {"shop": 4}, {"shop": 3}, {"shop": (3, False)}),
        (("old",), {"shop": 2, "gone": 1}, {"shop": 2}, {"shop": (2, False), "gone": (1, True)}),
    ],
    ids=["a new database", "newer wins", "ours is newer", "another line: what runs wins", "what does not run is held"],
)
def test_take_over(
    former: tuple[str, ...], ours: dict[str, int], told: dict[str, int], changed: dict[str, tuple[int, bool]]
) -> None:
    found = take_over(
        {name: record(name, generation) for name, generation in ours.items()},
        Identity("new", former=former),
        Adopt("old", tuple(assignment(name, generation) for name, generation in told.items())),
        7.0,
    )
    assert {name: (r.generation, r.held) for name, r in found.items()} == changed


def test_what_is_held_is_not_held_again() -> None:
    assert take_over({"gone": record("gone", 1, held=True)}, Identity("new"), Adopt("old", ()), 7.0) == {}


def test_identities_remember() -> None:
    fresh = renamed(replace(OURS, adopts=("older",)), "fresh")
    assert fresh == Identity("fresh", former=("ours",))
    assert adopted(fresh, "ours") == Identity("fresh", former=("ours",), adopts=("ours",), settled=True)


def test_no_two_services_have_one_virtual_address_after_a_take_over() -> None:
    """The agent's word wins; what is held has none, what is newer here keeps the others of its own."""
    identity = Identity("new", former=("old",))
    told = assignment("told", 9).model_copy(update={"virtual": {"web": 1, "db": 2}})
    older = assignment("newer", 3)
    ours = {
        "newer": replace(record("newer", 4), virtual={"web": 2, "db": 5}),
        "held": replace(record("held", 1), virtual={"web": 1}),
    }
    changed = take_over(ours, identity, Adopt("old", (told, older)), 1.0)
    assert {name: one.virtual for name, one in changed.items()} == {
        "told": {"web": 1, "db": 2},
        "newer": {"db": 5},
        "held": {},
    }


def test_a_drained_host_stays_so_and_what_is_to_run_is_known() -> None:
    tasks = tuple(
        Task(
            id=f"t{n}", service="web", slot=n, template="a", container=ContainerSpec(image="w", image_id="i"), desired=d
        )
        for n, d in enumerate(("drained", "stopped"), start=1)
    )
    verdict = Adopt("old", (assignment("shop", 3).model_copy(update={"tasks": tasks}),))
    assert verdict.drained
    (found,) = take_over({}, Identity("new"), verdict, 7.0).values()
    assert [task.desired for task in found.tasks] == ["running", "stopped"]
    assert found.drained().tasks == tasks
