"""The status document (docs/api.md) as text for people. Pure: `now` and the width are arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.cli.render import Column, Screen, cut, ordinal, safe, span, state_colour, table

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any

_OVERVIEW = (
    Column("STACK", most=16),
    Column("SERVICE", most=20),
    Column("READY"),
    Column("STATE", flexible=True),
    Column("SINCE"),
    Column("PORTS", most=26),
)
_TASKS = (
    Column("CONTAINER", most=26),
    Column("STATE", flexible=True),
    Column("SINCE"),
    Column("RESTARTS"),
    Column("ADDRESS"),
    Column("PID"),
)
_QUIET = ("running", "completed", "stopped", "paused")


def state_text(row: dict[str, Any], now: float) -> str:
    """Of a service: "running, healthy"; "backoff: exit code 1, 5th time; next try in 12 s"."""
    state = row["state"]
    if state == "running":
        return {"none": "running", "starting": "running, not healthy yet"}.get(
            row["health"], f"running, {row['health']}"
        )
    text = str(state)
    message = safe(row.get("message") or row.get("reason") or "")
    if message and state not in _QUIET:
        text = message if message.startswith(f"{state} ") else f"{state}: {message}"
    waiting = [task for task in row.get("tasks", ()) if task["state"] == "backoff"]
    if state == "backoff" and waiting:
        worst = max(waiting, key=lambda task: int(task["attempt"]))
        if worst["attempt"] > 1 and "in a row" not in message:
            text += f", {ordinal(worst['attempt'])} time"
        if worst.get("next_at"):
            text += f"; next try in {max(0, round(worst['next_at'] - now))} s"
    return text


def troubles(document: dict[str, Any], stack: str | None = None) -> list[dict[str, Any]]:
    """What the daemons try again and again without success: of this stack, or of all."""
    return [one for one in document.get("troubles", ()) if stack is None or one["stack"] in (None, stack)]


def proof(row: dict[str, Any]) -> tuple[str, list[str]]:
    """("last line" | "last probe", lines) that a service in trouble left as evidence, newest last; or ("", [])."""
    for task in sorted(row.get("tasks", ()), key=lambda task: -float(task["since"] or 0)):
        if task["state"] in ("backoff", "failed", "stopping", "starting", "preparing") or task["health"] == "unhealthy":
            evidence = task.get("evidence") or {}
            lines = [safe(str(line)).rstrip() for line in evidence.get("log_tail") or () if str(line).strip()]
            if lines:
                return "last line", lines
            output = [safe(line).rstrip() for line in str(evidence.get("probe_output") or "").splitlines() if line]
            if output:
                return "last probe", output
    return "", []


def overview(document: dict[str, Any], screen: Screen) -> Iterator[str]:
    """One row per service; below a service in trouble, the last line it wrote."""
    now = document["at"]
    found = [(stack, row) for stack in document["stacks"] for row in stack["services"]]
    rows: list[list[str | list[str]]] = []
    for stack, row in found:
        ready = f"{row['ready']}/{row['replicas']}"
        ports = list(row["ports"])
        rows.append([stack["name"], row["name"], ready, state_text(row, now), span(now - row["since"]), ports or ""])
    heading, *blocks = table(_OVERVIEW, rows, screen.width, [_painter(screen, row, 3) for _, row in found])
    yield screen.paint("dim", heading[0])
    for (_, row), lines in zip(found, blocks, strict=True):
        yield from lines
        if row["state"] not in _QUIET or row["health"] == "unhealthy":
            kind, proven = proof(row)
            if proven:
                yield screen.paint("dim", cut(f"        {kind}: {proven[-1]}", screen.width))


def tasks(document: dict[str, Any], screen: Screen, *, detail: bool) -> Iterator[str]:
    """One row per container; with `detail`, what a single service is made of and its evidence."""
    now = document["at"]
    rows: list[list[str | list[str]]] = []
    painters = []
    services = [row for stack in document["stacks"] for row in stack["services"]]
    for row in services:
        for task in row["tasks"]:
            one = {**row, "state": task["state"], "health": task["health"], "message": task["message"], "tasks": [task]}
            pid = str(task["pid"] or "")
            since = span(now - task["since"]) if task["since"] else ""
            name = f"{row['name']}.{task['slot']}"
            rows.append([name, state_text(one, now), since, str(task["restarts"]), task["address"] or "", pid])
            painters.append(_painter(screen, one, 1))
    heading, *blocks = table(_TASKS, rows, screen.width, painters)
    yield screen.paint("dim", heading[0])
    for lines in blocks:
        yield from lines
    if detail:
        for row in services:
            yield ""
            yield f"image  {row['image']}"
            for port in row["ports"]:
                yield f"port   {port}"
            kind, proven = proof(row)
            for line in proven[-10:]:
                yield cut(f"{kind.split()[1]:<5}  {line}", screen.width)


def brief(document: dict[str, Any], screen: Screen) -> list[str]:
    """A few lines for live drawing: service, ready, state."""
    now = document["at"]
    services = [row for stack in document["stacks"] for row in stack["services"]]
    columns = (Column("", most=24), Column(""), Column("", flexible=True))
    rows: list[list[str | list[str]]] = [
        [row["name"], f"{row['ready']}/{row['replicas']}", state_text(row, now)] for row in services
    ]
    room = screen.width - len("  …")
    lines = table(columns, rows, room, [_painter(screen, row, 2) for row in services])[1:]
    return [f"  {block[0]}" + ("…" if len(block) > 1 else "") for block in lines]


def _painter(screen: Screen, row: dict[str, Any], column: int) -> Callable[[int, str], str]:
    colour = state_colour(row["state"], row["health"])
    return lambda number, text: screen.paint(colour, text) if number == column else text
