"""Make a stack as an earlier revision says, and wait until it is.

Without a number: the revision before, or, during an update, the one that it came from. Containers are replaced as
deploy.rollback_config says; what was stopped stays stopped. gorae history has the numbers.
"""

from __future__ import annotations

import argparse

from agent.kit.errors import UserError
from orchestrator.cli import targets, waiting
from orchestrator.cli.client import Client


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets", metavar="[STACK] [REVISION]", nargs="*", help="a stack, and the number of a revision"
    )
    targets.register_files(parser)
    waiting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    words = list(arguments.targets)
    number = int(words.pop()) if words and words[-1].isascii() and words[-1].isdecimal() else None
    if len(words) > 1 or number == 0:
        raise UserError("cannot roll back: one stack, one revision", code="usage", hint="gorae rollback [STACK] [3]")
    arguments.targets = words
    client = Client(arguments.root)
    stack, _ = targets.find(arguments, client, required=True)
    answer = client.send("POST", f"/v1/stacks/{stack}/rollback", {"revision": number})
    said = f"stack {stack} is as revision {answer['revision']} says"
    stored = f"stack {stack} goes back to revision {answer['revision']}"
    return waiting.conclude(arguments, client, answer, "roll back", stored=stored, done=lambda _: said)
