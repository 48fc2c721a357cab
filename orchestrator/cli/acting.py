"""What stop, start, restart and recreate have in common: choose, ask, wait, say."""

from __future__ import annotations

import argparse

from orchestrator.cli import targets, waiting
from orchestrator.cli.client import Client


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    waiting.register(parser)


def act(arguments: argparse.Namespace, verb: str, done: str) -> int:
    client = Client(arguments.root)
    stack, services = targets.find(arguments, client, required=True)
    assert stack is not None
    what = ", ".join(f"{stack}/{service}" for service in services) or f"stack {stack}"
    answer = client.send("POST", f"/v1/stacks/{stack}/{verb}", {"services": list(services)})
    said = f"{what} {'is' if len(services) < 2 else 'are'} {done}"
    return waiting.conclude(
        arguments, client, answer, verb, stored=f"{what}: {verb} is stored", done=lambda _: said, services=services
    )
