"""Make the stack of a Compose file run, and wait until it does.

Reads the file with your own rights and environment, sends the result to the daemon, and shows images being pulled
and containers coming up. When nothing changed, nothing is touched. Ctrl-C stops waiting, not the stack.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agent.kit.errors import UserError
from orchestrator.cli import targets, waiting
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Screen, count


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser)
    parser.add_argument("--pull", choices=["missing", "always", "never"], default="missing", help="when to pull images")
    parser.add_argument("-d", "--detach", action="store_true", help="accepted; containers always run in the background")
    waiting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    loaded = targets.load(arguments)
    for warning in loaded.warnings:
        print(f"note  {warning}", file=sys.stderr)
    name = loaded.stack.name
    client, screen = Client(arguments.root), Screen()
    progress = Progress(screen)
    body = {"model": loaded.stack.model_dump(mode="json"), "pull": arguments.pull}
    try:
        result = progress.result(client.stream("POST", f"/v1/stacks/{name}", body))
    except KeyboardInterrupt:
        raise UserError(
            f"stopped before stack {name} was changed; nothing that ran was touched",
            code="interrupted",
            hint="gorae up again",
        ) from None
    for warning in result.get("warnings", ()):
        print(f"note  {warning}", file=sys.stderr)
    if arguments.no_wait:
        changes = count(len(_changes(result)), "change")
        print(f"stack {name} is stored as revision {result['revision']}: {changes}")
        return 0
    document = waiting.wait(client, name, result["generation"], arguments.timeout, screen)
    print(_summary(name, result, document))
    return 0


def _changes(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [action for action in result["actions"] if action["action"] != "keep"]


def _summary(name: str, result: dict[str, Any], document: dict[str, Any] | None) -> str:
    if document is None:
        return f"stack {name} was removed meanwhile"
    rows = document["stacks"][0]["services"]
    running = sum(row["ready"] for row in rows if row["state"] == "running")
    done = sum(row["state"] == "completed" for row in rows)
    what = f"{count(len(rows), 'service')}, {count(running, 'container')} running" + (
        f", {done} completed" if done else ""
    )
    if not _changes(result):
        return f"stack {name} is as the file says: {what}; nothing changed"
    ports = [f"{row['name']} {port}" for row in rows for port in row["ports"]]
    return "\n".join([f"stack {name} is up: {what}", *(f"  {port}" for port in ports)])
