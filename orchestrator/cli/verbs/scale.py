"""Change the number of replicas.

SERVICE=N, in the folder of the stack; elsewhere STACK SERVICE=N or STACK/SERVICE=N. Holds until the next gorae up of
a file that says otherwise.
"""

from __future__ import annotations

import argparse

from agent.kit.errors import UserError
from orchestrator.cli import targets, waiting
from orchestrator.cli.client import Client


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="[STACK] SERVICE=N", nargs="+", help="a service and its number of replicas")
    targets.register_files(parser)
    waiting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    wishes: dict[str, int] = {}
    words = []
    for word in arguments.targets:
        name, equals, number = word.partition("=")
        if equals:
            service = name.rpartition("/")[2]
            if service in wishes:
                raise UserError(f"cannot scale {service} twice at once", code="usage", hint="name it once")
            wishes[service] = _number(number, name)
        words.append(name)
    if not wishes:
        raise UserError("cannot scale: no number of replicas is given", code="usage", hint="gorae scale SERVICE=N")
    arguments.targets = words
    stack, services = targets.find(arguments, client, required=True)
    if stack is None or set(services) != set(wishes):
        missing = "; it is no service of a stack here" if stack in wishes else ""
        raise UserError(
            f"cannot tell what to scale in {' '.join(words)}{missing}", code="usage", hint="gorae scale STACK SERVICE=N"
        )
    answer = client.send("POST", f"/v1/stacks/{stack}/scale", {"replicas": wishes})
    said = ", ".join(f"{stack}/{service} has {number}" for service, number in wishes.items())
    return waiting.conclude(
        arguments, client, answer, "scale", stored=f"{said}: stored", done=lambda _: said, services=services
    )


def _number(text: str, service: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 1000:
        raise UserError(
            f"cannot scale {service} to {text!r}: it is no number from 0 to 1000",
            code="usage",
            hint=f"gorae scale {service}=2",
        )
    return int(text)
