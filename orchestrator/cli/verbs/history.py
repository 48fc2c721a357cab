"""List the revisions of a stack, the newest last.

A revision is what the stack's files said, with the images that their tags meant. The newest 100 are kept, and the one
in use.
"""

from __future__ import annotations

import argparse
import json
import time

from orchestrator.cli import targets
from orchestrator.cli.client import Client


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser, services=False)
    parser.add_argument("--json", action="store_true", help="one document (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, _ = targets.find(arguments, client, required=True)
    found = client.send("GET", f"/v1/stacks/{stack}/revisions")
    if arguments.json:
        print(json.dumps(found))
        return 0
    for row in found["revisions"]:
        at = time.strftime("%Y-%m-%d %T", time.localtime(row["at"]))
        who = "taken over from the agent" if row["uid"] is None else f"by uid {row['uid']}"
        now = "  in use" if row["current"] else ""
        print(f"{row['number']:>4}  {at}  {who}  {', '.join(row['services']) or 'no services'}{now}")
    return 0
