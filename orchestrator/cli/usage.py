"""What containers use, as text. Pure: of the documents of GET /v1/stats (docs/api.md)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.cli.render import Column, table

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    Column("CONTAINER"),
    Column("CPU"),
    Column("MEMORY", most=12),
    Column("NET/S", most=12),
    Column("DISK/S", most=12),
    Column("PIDS"),
)


def lines(document: dict[str, Any], width: int, stack: str | None) -> list[str]:
    """A heading and one line for each container. `stack`: the only one there is, whose name need not be said."""
    rows: Sequence[Sequence[str | list[str]]] = [row(task, stack) for task in document["tasks"]]
    return [line for block in table(COLUMNS, rows, width) for line in block]


def row(task: dict[str, Any], stack: str | None) -> list[str]:
    name = f"{task['service']}.{task['slot']}"
    return [
        name if stack else f"{task['stack']}/{name}",
        cpu(task),
        of_limit(memory(task["memory"]), task["memory_limit"] and memory(task["memory_limit"])),
        pair(task["received_rate"], task["sent_rate"]),
        pair(task["read_rate"], task["written_rate"]),
        of_limit(count(task["pids"]), (task["pids_limit"] or 0) > 0 and count(task["pids_limit"])),
    ]


def cpu(task: dict[str, Any]) -> str:
    return "-" if task["cpu_percent"] is None else f"{task['cpu_percent']:.1f}%"


def of_limit(used: str, limit: Any) -> str:
    return f"{used}/{limit}" if limit and used != "-" else used


def memory(number: int | None) -> str:
    return amount(number, 1024)


def pair(first: float | None, second: float | None) -> str:
    return "-" if first is None or second is None else f"{amount(first)}/{amount(second)}"


def count(number: int | None) -> str:
    return "-" if number is None else str(number)


def amount(number: float | None, step: int = 1000) -> str:
    """Bytes in four characters and a unit: 0, 999, 1.2k, 38M, 4.0G. `step`: 1024 for memory, as files and Docker say
    it."""
    if number is None:
        return "-"
    if number < 1000:
        return f"{number:.0f}"
    for unit in "kMGTP":
        number /= step
        if number < 999.5 or unit == "P":
            return f"{number:.1f}{unit}" if number < 99.95 else f"{number:.0f}{unit}"
    raise AssertionError("unreachable")
