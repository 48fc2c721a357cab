"""Which log files go: the oldest, as few as it takes, never one that may be written."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide.log_budget import LEAST, MOST, cap, expendable, over_cap, portion, rotate_at, surplus
from agent.ports import LogFile
from agent.wire.messages import LogLimits


def log(task: str, generation: int, at: float, size: int = 10, *, live: bool = True) -> LogFile:
    return LogFile("shop", "web", 1, task, generation, size, at, live)


def shown(files: Collection[LogFile]) -> str:
    return " ".join(f"{file.task}.{file.generation}" for file in files)


A = [log("a", 0, 50), log("a", 1, 40), log("a", 2, 20)]
B = [log("b", 0, 45), log("b", 1, 30)]
GONE = [log("gone", 0, 35, live=False), log("gone", 1, 10, live=False)]


@pytest.mark.parametrize(
    ("files", "budget", "expected"),
    [
        pytest.param([], 0, "", id="no-files"),
        pytest.param(A, 30, "", id="within"),
        pytest.param(A, 29, "a.2", id="one-over"),
        pytest.param([*A, *B], 30, "a.2 b.1", id="oldest-across-tasks"),
        pytest.param([*A, *B, *GONE], 40, "gone.1 a.2 b.1", id="of-dead-tasks-too"),
        pytest.param([*A, *B, *GONE], 0, "gone.1 a.2 b.1 gone.0 a.1", id="never-what-is-written"),
        pytest.param([log("a", 1, 5), log("a", 2, 4)], 0, "a.2", id="between-a-rename-and-the-new-file"),
        pytest.param([log("a", 0, 5, 0), log("a", 1, 90), log("a", 2, 95)], 10, "a.2", id="clock-set-back"),
        pytest.param([log("a", 0, 1, 99), log("a", 1, 0, 1)], 50, "a.1", id="one-huge-file-being-written"),
    ],
)
def test_what_goes(files: list[LogFile], budget: int, expected: str) -> None:
    assert shown(surplus(files, budget)) == expected


MB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "whole", "each"),
    [
        pytest.param(None, 30 * MB, 5 * MB, id="nothing is said"),
        pytest.param(LogLimits(max_size=MB, max_file=60), 60 * MB, MB, id="many small ones"),
        pytest.param(LogLimits(max_size=6 * MB), 6 * MB, MB, id="one file is kept in several"),
        pytest.param(LogLimits(max_size=100), 100, 4096, id="less than a block"),
        pytest.param(LogLimits(max_size=1 << 40), 1 << 40, MOST, id="more than conmon writes to one"),
        pytest.param(LogLimits(max_size=None), None, MOST, id="the host's budget alone"),
    ],
)
def test_caps(limits: LogLimits | None, whole: int | None, each: int) -> None:
    assert (cap(limits), portion(limits)) == (whole, each)


@pytest.mark.parametrize(
    ("limits", "files", "expected"),
    [
        pytest.param(LogLimits(max_size=MB), A, "", id="within"),
        pytest.param(LogLimits(max_size=25), [*A, *GONE], "gone.1 a.2 gone.0 a.1", id="earlier-tasks-count"),
        pytest.param(LogLimits(max_size=None), [*A, *GONE], "", id="no-cap"),
        pytest.param(
            LogLimits(max_size=6 * 8192),
            [log("a", 1, 5, 30000), log("a", 2, 4, 20000)],
            "a.2",
            id="room-as-of-the-last",
        ),
    ],
)
def test_what_goes_of_one_slot(limits: LogLimits, files: list[LogFile], expected: str) -> None:
    assert shown(over_cap(files, limits)) == expected


def test_the_same_task_id_in_two_stacks_is_two_tasks() -> None:
    other = LogFile("other", "web", 1, "a", 1, 10, 0.0, True)
    assert shown(expendable([log("a", 0, 5), other])) == "", "each is the newest of its own"


FILES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 2), st.integers(0, 20), st.integers(0, 1000)),
    unique_by=lambda one: one[:2],
    max_size=18,
).map(lambda found: [log(task, number, at, size, live=task < "d") for task, number, at, size in found])


@given(FILES, st.integers(0, 5000))
def test_invariants(files: list[LogFile], budget: int) -> None:
    gone = surplus(files, budget)
    kept = [file for file in files if file not in gone]
    assert len({id(file) for file in gone}) == len(gone) and len(kept) + len(gone) == len(files)
    written = {task: min(f.generation for f in files if f.task == task) for task in {f.task for f in files if f.live}}
    assert not any(file.live and written[file.task] == file.generation for file in gone)
    left = sum(file.size for file in kept)
    assert left <= budget or not expendable(kept)
    if gone:
        assert left + gone[-1].size > budget, "no more than it takes"
    for file in gone:
        assert all(other.generation < file.generation for other in kept if other.task == file.task), "no hole"
    assert surplus(kept, budget) == [] or left > budget
    assert surplus(list(reversed(files)), budget) == gone


@pytest.mark.parametrize(
    ("writers", "budget", "expected"),
    [(0, 10**9, 10**7), (1, 10**9, 10**7), (50, 10**9, 10**7), (100, 10**9, 5 * 10**6), (1000, 10**6, LEAST)],
)
def test_files_are_put_aside_early_enough_that_those_being_written_fit(
    writers: int, budget: int, expected: int
) -> None:
    files = [log(f"t{number}", generation, 1.0) for number in range(writers) for generation in (0, 1)]
    assert rotate_at([*files, *GONE], budget, 10**7) == expected
