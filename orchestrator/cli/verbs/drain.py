"""Stop everything on this host, until gorae drain --undo; for work on the machine itself.

Containers leave their ports, connections end or have had their time, and services stop in the reverse order of
depends_on. Nothing starts meanwhile, also not after a reboot; what is changed is stored, and starts with --undo.
A service that was stopped before stays stopped, and a job that was done stays done.
"""

from __future__ import annotations

import argparse
import json
import time

from orchestrator.cli import waiting
from orchestrator.cli.client import Client
from orchestrator.cli.render import count


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--undo", action="store_true", help="let everything run again, in order")
    waiting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    client, undo = Client(arguments.root), arguments.undo
    answer = client.send("POST", "/v1/drain", undo=undo)
    deadline = time.monotonic() + arguments.timeout
    for stack, generation in () if arguments.no_wait else answer["stacks"].items():
        left = max(0.0, deadline - time.monotonic())
        waiting.wait(client, stack, generation, left, waiting.screen(arguments), "start" if undo else "stop")
    if arguments.json:
        print(json.dumps(answer))
        return 0
    what = count(len(answer["stacks"]), "stack")
    if arguments.no_wait:
        print(f"{what}: {'the end of the drain' if undo else 'the drain'} is stored")
    else:
        print(f"the host is drained no more: {what} up" if undo else f"the host is drained: {what} down")
    return 0
