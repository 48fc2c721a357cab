"""Which log files go when all of the host's together have grown beyond the budget. Pure.

Never one that may be written: of a task with an attempt, the newest. All others may go, the oldest first, whosever they
are; so a reader of one task finds its end, and no hole in it.
"""

from __future__ import annotations

from collections.abc import Collection

from agent.ports import LogFile
from agent.wire.messages import LogLimits

LEAST = 64 * 1024  # bytes; files below it are not worth a rotation
MOST = 64 * 1024 * 1024  # bytes; conmon throws away what it writes at four times this, if nobody rotates it
BLOCK = 4096  # bytes, of the disk
SIZE, FILES = 10 * 1024 * 1024, 3  # what a service has that does not say

_Task = tuple[str, str, int, str]


def cap(limits: LogLimits | None) -> int | None:
    """Bytes that all logs of one slot may take; None: those of the host."""
    size, files = (SIZE, FILES) if limits is None else (limits.max_size, limits.max_file)
    return None if size is None else size * files


def portion(limits: LogLimits | None) -> int:
    """Bytes at which a file is put aside. Six at least within the cap: what is dropped is little of what is kept."""
    whole = cap(limits)
    if whole is None:
        return MOST
    size = SIZE if limits is None else limits.max_size or SIZE
    return max(BLOCK, min(MOST, size, whole // 6))


def over_cap(files: Collection[LogFile], limits: LogLimits | None) -> list[LogFile]:
    """What goes of one slot's files, so that there is room for what is written until the next time: half a file more
    than one, of those that it writes (in a flood they become larger than they should), and an eighth of the cap."""
    whole = cap(limits)
    if whole is None:
        return []
    largest = max((file.size for file in files if file.live), default=0)
    written = max((file.size for file in files if file.live and not file.generation), default=0)
    return surplus(files, whole * 7 // 8 - max(0, max(portion(limits), largest) * 3 // 2 - written))


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
