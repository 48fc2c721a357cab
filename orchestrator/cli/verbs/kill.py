"""Send a signal to the first process of containers: SIGKILL, or the one of -s.

It is an end like any other: the service's restart policy says what follows. gorae stop is what ends one for good.
Without a word: every service of the stack of the folder.
"""

from __future__ import annotations

import argparse
import json

from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.render import count


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    parser.add_argument(
        "-s", "--signal", metavar="SIGNAL", default="SIGKILL", help="KILL, SIGHUP, 15 … (default: KILL)"
    )
    parser.add_argument("--json", action="store_true", help="the answer as one document (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, services = targets.find(arguments, client, required=True)
    body = {"services": list(services), "signal": arguments.signal}
    answer = client.send("POST", f"/v1/stacks/{stack}/kill", body)
    if arguments.json:
        print(json.dumps(answer))
    else:
        print(f"sent {arguments.signal} to {count(answer['signalled'], 'container')}")
    return 0
