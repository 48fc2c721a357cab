"""Which log files go when all of the host's together have grown beyond the budget. Pure.

Never one that may be written: of a task with an attempt, the newest. All others may go, the oldest first, whosever they
are; so a reader of one task finds its end, and no hole in it.
"""

from __future__ import annotations

from collections.abc import Collection

from agent.ports import LogFile

LEAST = 64 * 1024  # bytes; files below it are not worth a rotation


_Task = tuple[str, str, int, str]


def expendable(files: Collection[LogFile]) -> list[LogFile]:
    """The oldest first; within a task its oldest generation, also when the clock was set back meanwhile."""
    tasks: dict[_Task, list[LogFile]] = {}
    for file in files:
        tasks.setdefault(_task(file), []).append(file)
    found: list[tuple[float, _Task, int, LogFile]] = []
    for task, own in tasks.items():
        own.sort(key=lambda file: file.generation)
        age = own[0].at
        for place, file in enumerate(own):
            age = min(age, file.at)
            if place or not file.live:
                found.append((age, task, -file.generation, file))
    return [file for *_, file in sorted(found, key=lambda one: one[:3])]


def surplus(files: Collection[LogFile], budget: int) -> list[LogFile]:
    """What goes: no more than it takes to be within `budget` bytes, or everything that may."""
    over = sum(file.size for file in files) - budget
    gone = []
    for file in expendable(files):
        if over <= 0:
            break
        gone.append(file)
        over -= file.size
    return gone


def rotate_at(files: Collection[LogFile], budget: int, most: int) -> int:
    """Bytes at which a file that is written is put aside: all of those together are to take half of the budget."""
    writers = len({_task(file) for file in files if file.live})
    return max(LEAST, min(most, budget // (2 * max(1, writers))))


def _task(file: LogFile) -> _Task:
    return file.stack, file.service, file.slot, file.task
