"""The full-screen view of stacks, services and containers, as lines. Pure: of the status document and of what GET
/v1/stats says (docs/api.md), and of how the user looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.cli.render import cells, count, cut, pad, safe, shorten, span, state_colour
from orchestrator.cli.usage import amount, memory, pair

SORTS = ("name", "cpu", "memory", "net", "restarts")
KEYS = "q quits  ↑ ↓ scroll  s sorts"
_WIDTHS = (18, 5, 6, 6, 11, 3, 5)  # of all columns but the first, which has the rest
_TITLES = ("NAME", "STATE", "READY", "CPU", "MEM", "NET/S", "RST", "SINCE")
_LEFT = 2  # so many columns are text; the others are numbers


@dataclass(frozen=True, slots=True)
class Row:
    """A stack (depth 0), one of its services, or one of its containers. Rates per second; None: not known."""

    depth: int
    name: str
    state: str
    health: str = "none"
    ready: str = ""
    cpu: float | None = None
    memory: int | None = None
    received: float | None = None
    sent: float | None = None
    restarts: int = 0
    since: float = 0.0
    below: tuple[Row, ...] = ()

    @property
    def net(self) -> float:
        return (self.received or 0.0) + (self.sent or 0.0)


@dataclass(frozen=True, slots=True)
class View:
    """How it is looked at. `top`: the first row on the screen."""

    sort: str = "name"
    top: int = 0

    def pressed(self, key: str, rows: int, height: int) -> View:
        """After a key. `rows`: there are; `height`: lines of the screen."""
        page = max(1, height - 3)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page, "home": -rows, "end": rows}
        if key == "s":
            return replace(self, sort=SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)])
        return replace(self, top=max(0, min(self.top + steps.get(key, 0), rows - page)))


def tree(status: dict[str, Any], stats: dict[str, Any], sort: str) -> list[Row]:
    """Every row in order, each stack followed by what is below it."""
    used = {task["task"]: task for task in stats["tasks"]}
    stacks = [_stack(entry, used, sort) for entry in status["stacks"]]
    return [row for stack in _sorted(stacks, sort) for row in _flat(stack)]


def _flat(row: Row) -> Iterable[Row]:
    yield row
    for child in row.below:
        yield from _flat(child)


def _stack(entry: dict[str, Any], used: dict[str, dict[str, Any]], sort: str) -> Row:
    services = _sorted([_service(row, used, sort) for row in entry["services"]], sort)
    ready, wanted = (sum(row[key] for row in entry["services"]) for key in ("ready", "replicas"))
    return _sum(Row(0, entry["name"], entry["state"], ready=f"{ready}/{wanted}"), services)


def _service(row: dict[str, Any], used: dict[str, dict[str, Any]], sort: str) -> Row:
    tasks = _sorted([_task(task, row["name"], used.get(task["id"])) for task in row["tasks"]], sort)
    made = Row(1, row["name"], row["state"], row["health"], f"{row['ready']}/{row['replicas']}", since=row["since"])
    return _sum(made, tasks)


def _task(task: dict[str, Any], service: str, used: dict[str, Any] | None) -> Row:
    row = Row(2, f"{service}.{task['slot']}", task["state"], task["health"])
    row = replace(row, restarts=task["restarts"], since=task["since"] or 0.0)
    if used is None:
        return row
    return replace(
        row,
        cpu=used["cpu_percent"],
        memory=used["memory"],
        received=used["received_rate"],
        sent=used["sent_rate"],
    )


def _sum(row: Row, below: Sequence[Row]) -> Row:
    """With what those below it use, as far as it is known."""

    def total(values: Iterable[float | None]) -> Any:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return replace(
        row,
        cpu=total(one.cpu for one in below),
        memory=total(one.memory for one in below),
        received=total(one.received for one in below),
        sent=total(one.sent for one in below),
        restarts=sum(one.restarts for one in below),
        below=tuple(below),
    )


def _sorted(rows: Sequence[Row], sort: str) -> list[Row]:
    """By name, or by what is most of first, then by name."""
    if sort == "name":
        return sorted(rows, key=lambda row: _natural(row.name))
    return sorted(rows, key=lambda row: (-float(getattr(row, sort) or 0), _natural(row.name)))


def _natural(name: str) -> tuple[str, int]:
    """web.2 before web.10."""
    head, _, tail = name.rpartition(".")
    return (head, int(tail)) if tail.isdigit() else (name, 0)


def frame(
    status: dict[str, Any], stats: dict[str, Any], view: View, width: int, height: int, paint: Any, note: str = ""
) -> list[str]:
    """`height` lines of at most `width` columns. `paint`: (colour or None, text) → text. `note`: instead of the
    keys."""
    rows = tree(status, stats, view.sort)
    page = max(1, height - 3)
    top = max(0, min(view.top, len(rows) - page))
    shown = rows[top : top + page]
    lines = [paint("bold", cut(_summary(status, stats), width)), paint("dim", cut(_line(_TITLES, width), width))]
    lines += [_drawn(row, status["at"], width, paint) for row in shown]
    if not rows:
        lines.append("no stacks; try  gorae up, in the folder of a Compose file")
    more = f"  {top + 1}-{top + len(shown)} of {len(rows)}" if len(rows) > page else ""
    foot = note or f"{KEYS}: {view.sort}{more}"
    lines += [""] * max(0, height - 1 - len(lines))
    return [*lines[: height - 1], paint("yellow" if note else "dim", cut(foot, width))][:height]


def _summary(status: dict[str, Any], stats: dict[str, Any]) -> str:
    tasks = stats["tasks"]
    cpu = sum(task["cpu_percent"] or 0 for task in tasks)
    used = sum(task["memory"] or 0 for task in tasks)
    agent = "" if status["agent"]["online"] else "  the agent is away"
    return (
        f"gorae  {count(len(status['stacks']), 'stack')}, {count(len(tasks), 'container')}  "
        f"cpu {cpu:.0f}% of {100 * (stats['cpus'] or 1)}%  memory {memory(used)} of {memory(stats['memory'])}{agent}"
    )


def _drawn(row: Row, now: float, width: int, paint: Any) -> str:
    state = row.state
    if state == "running" and row.health != "none":
        state = {"starting": "not healthy yet"}.get(row.health, row.health)
    rates = pair(row.received, row.sent)
    line = _line(
        (
            "  " * row.depth + safe(row.name),
            safe(state),
            row.ready,
            "-" if row.cpu is None else f"{row.cpu:.1f}" if row.cpu < 1000 else f"{row.cpu:.0f}",
            amount(row.memory, 1024),
            rates,
            str(row.restarts),
            span(now - row.since) if row.since else "",
        ),
        width,
    )
    return str(paint("bold" if row.depth == 0 else state_colour(row.state, row.health), line))


def _line(texts: Sequence[str], width: int) -> str:
    first = max(12, width - sum(_WIDTHS) - len(_WIDTHS))
    parts = []
    for number, (text, size) in enumerate(zip(texts, (first, *_WIDTHS), strict=True)):
        text = shorten(text, size)
        parts.append(pad(text, size) if number < _LEFT else " " * (size - cells(text)) + text)
    return cut(" ".join(parts), width)
