"""Show what runs, and why what does not run does not.

Without a word: all stacks, one line per service. With STACK: each container, with its address and process id. With
STACK/SERVICE: its evidence too. When the orchestrator is down, root is told what the agent knows.
"""

from __future__ import annotations

import argparse
import os
import sys

from agent.kit.errors import UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client, Unreachable

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    parser.add_argument("--json", action="store_true", help="the status document (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    try:
        stack, services = targets.find(arguments, client, required=False)
        body = client.raw("GET", "/v1/status", stack=stack, service=services)
    except Unreachable as error:
        if os.geteuid() != 0:
            raise
        from orchestrator.cli.fallback import status

        words = [word for part in arguments.targets for word in part.split("/") if word]
        stack, services = (words[0], tuple(words[1:])) if words else (None, ())
        document = status(arguments.root, error)
        document["stacks"] = [s for s in document["stacks"] if stack in (None, s["name"])]
        for entry in document["stacks"] if services else ():
            entry["services"] = [row for row in entry["services"] if row["name"] in services]
        if stack and not any(entry["services"] for entry in document["stacks"]):
            raise UserError(
                f"cannot find {'/'.join(words)}: the agent runs nothing of that name",
                code="stack-unknown",
                hint="gorae status",
            ) from None
        return _print(arguments, document, stack, services)
    if arguments.json:
        sys.stdout.write(body.decode() + "\n")
        return 0
    import json

    return _print(arguments, json.loads(body), stack, services)


def _print(
    arguments: argparse.Namespace, document: dict[str, Any], stack: str | None, services: tuple[str, ...]
) -> int:
    if arguments.json:
        import json

        print(json.dumps(document, ensure_ascii=False))
        return 0
    from orchestrator.cli import board
    from orchestrator.cli.render import Screen, span

    screen = Screen()
    agent = document["agent"]
    if not agent["online"]:
        since = f" for {span(document['at'] - agent['since'])}" if agent["since"] else ""
        print(f"note  the agent has not answered{since}: this is what it last said", file=sys.stderr)
    for trouble in board.troubles(document, stack):
        since = span(document["at"] - trouble["since"])
        print(f"note  for {since}: {trouble['message']}; what is shown may be old", file=sys.stderr)
        if trouble["hint"]:
            print(f"try  {trouble['hint']}", file=sys.stderr)
    if document.get("drained"):
        since = span(document["at"] - document["drained"])
        print(f"the host is drained since {since}: nothing runs until gorae drain --undo")
    if not document["stacks"]:
        print("no stacks; try  gorae up, in the folder of a Compose file")
        return 0
    lines = board.tasks(document, screen, detail=len(services) == 1) if stack else board.overview(document, screen)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
