"""Stop and remove a stack, and wait until nothing of it is left.

Volumes stay, unless --volumes is given.
"""

from __future__ import annotations

import argparse

from agent.kit.errors import UserError
from orchestrator.cli import targets, waiting
from orchestrator.cli.client import Client


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser, services=False)
    parser.add_argument(
        "-v",
        "--volumes",
        action="store_true",
        help="delete its volumes too, with their data: named ones, but not external ones, and anonymous ones",
    )
    waiting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    if arguments.targets and "/" not in arguments.targets[0] and not arguments.project and not arguments.file:
        # down takes stacks only: never a service
        stack, services = targets.checked(arguments.targets[0]), tuple(arguments.targets[1:])
    else:
        found, services = targets.find(arguments, client, required=True)
        assert found is not None
        stack = found
    if services:
        raise UserError(
            "cannot remove single services",
            code="usage",
            hint=f"gorae stop {stack}/{services[0]}, or take it out of the file and gorae up",
        )
    answer = client.send("DELETE", f"/v1/stacks/{stack}", volumes=arguments.volumes)
    gone = f"stack {stack} is gone" + (", with its volumes" if arguments.volumes else "")
    return waiting.conclude(
        arguments, client, answer, "remove", stored=f"stack {stack} is being removed", done=lambda _: gone
    )
