"""Wait until the containers of services have ended for good, and exit with their exit code.

One that its restart policy starts again has not ended. Of several, the first code in order that is not 0 counts. What
has ended already is told at once. A restart of gorae in between does not matter.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from agent.kit.errors import Temporary
from orchestrator.cli import targets
from orchestrator.cli.client import Client, Unreachable
from orchestrator.cli.render import safe

RETURN = 60.0  # seconds that a daemon which went away has to come back
_FOR_EVER = 2**53  # no generation: the watch ends with the stack alone
_ENDED = ("completed", "failed", "stopped")
_MOVING = ("updating", "stopping", "waiting", "starting", "unknown")  # what a service says whose tasks are behind it


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    parser.add_argument("--json", action="store_true", help="{stack, tasks: [{service, slot, state, exit_code …}]}")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, services = targets.find(arguments, client, required=True)
    assert stack is not None
    client.get("/v1/status", stack=stack, service=services)  # raises what is not known
    tasks = _ended(client, stack, services)
    if arguments.json:
        print(json.dumps({"stack": stack, "tasks": tasks}, ensure_ascii=False))
    else:
        for task in tasks:
            code = "?" if task["exit_code"] is None else str(task["exit_code"])
            print(code if len(tasks) == 1 else f"{task['service']}.{task['slot']} {code}")
    for task in tasks:
        if task["exit_code"] is None:
            why = safe(task["message"]) or "it was never started, or nobody saw it end"
            print(f"note  {stack}/{task['service']}.{task['slot']} has no exit code: {why}", file=sys.stderr)
    codes = [1 if task["exit_code"] is None else int(task["exit_code"]) for task in tasks]
    return next((code for code in codes if code), 0)


def _ended(client: Client, stack: str, services: tuple[str, ...]) -> list[dict[str, Any]]:
    """All tasks, when none of them will run again. Raises Temporary changed: they are gone."""
    away: float | None = None
    while True:
        try:
            with client.stream("GET", f"/v1/stacks/{stack}/watch", generation=_FOR_EVER) as documents:
                for document in documents:
                    away = None
                    if (tasks := at_rest(document, stack, services)) is not None:
                        return tasks
        except Unreachable:
            away = away or time.monotonic()
            if time.monotonic() > away + RETURN:
                raise
        time.sleep(0.1)


def at_rest(document: dict[str, Any], stack: str, services: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """The tasks of a status document, if none of them runs or will run again, in order of `services`; else None."""
    entry = next((one for one in document["stacks"] if one["name"] == stack), None)
    rows = {row["name"]: row for row in entry["services"]} if entry else {}
    missing = sorted(set(services) - set(rows)) if entry else list(services) or [stack]
    if missing or entry is None:
        gone = f"stack {stack}" if entry is None else f"{stack}/{missing[0]}"
        raise Temporary(
            f"cannot wait for {gone}: it was removed", code="changed", hint=f"gorae events {stack} says by whom"
        )
    chosen = [rows[name] for name in services or rows]
    if entry["observed_generation"] < entry["generation"] or any(row["state"] in _MOVING for row in chosen):
        return None
    if any(task["state"] not in _ENDED for row in chosen for task in row["tasks"]):
        return None
    keys = ("id", "slot", "state", "attempt", "exit_code", "oom", "reason", "message")
    return [{"service": row["name"], **{key: task[key] for key in keys}} for row in chosen for task in row["tasks"]]
