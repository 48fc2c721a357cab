"""Show what differs between two revisions of a stack, field by field.

gorae history has their numbers. The exit code is 1 when they differ.
"""

from __future__ import annotations

import argparse
import json

from agent.kit.errors import UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.verbs.plan import differences


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="[STACK] A B", nargs="+", help="two numbers of revisions")
    targets.register_files(parser)
    parser.add_argument("--json", action="store_true", help="one document (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    *words, a, b = ["", *arguments.targets][-3:] if len(arguments.targets) > 1 else ["", "", ""]
    if not (a.isdecimal() and b.isdecimal()) or len(arguments.targets) > 3:
        raise UserError("cannot compare: two revisions are wanted", code="usage", hint="gorae diff [STACK] 3 4")
    arguments.targets = [word for word in words if word]
    client = Client(arguments.root)
    stack, _ = targets.find(arguments, client, required=True)
    found = client.send("GET", f"/v1/stacks/{stack}/diff", a=int(a), b=int(b))
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(differences(found["difference"])) or f"revisions {a} and {b} of {stack} are the same")
    return 1 if found["difference"] else 0
