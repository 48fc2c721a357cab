"""Say everything about one thing as a JSON document: a stack, a service, an image, a volume or a network.

Of a stack or service: what is wanted, what is observed, and each container with its attempts, addresses, mounts and
process. Values of variables that look like secrets are hidden.

NAME is looked for among stacks and services, volumes, networks and images, in this order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

from agent.kit.errors import GoraeError, UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client, quote

KINDS = ("stack", "volume", "network", "image")


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser)
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: the stack of the folder")
    parser.add_argument("--type", choices=KINDS, help="look among these alone")
    parser.add_argument("--json", action="store_true", help="as without: it is one")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    for kind, ask in _ways(arguments, client):
        try:
            found = ask()
        except GoraeError as error:
            if arguments.type or not arguments.name or not _elsewhere(error):
                raise
            continue
        print(json.dumps({"kind": kind, **found}, ensure_ascii=False, indent=2))
        return 0
    raise UserError(
        f"cannot find {arguments.name}: no stack, service, volume, network or image is called that",
        code="name-unknown",
        hint="gorae status, gorae volume ls, gorae image ls",
    )


def _ways(arguments: argparse.Namespace, client: Client) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    name = arguments.name or ""
    if arguments.type in (None, "stack"):
        yield from _stack(arguments, client)
    if arguments.type in (None, "volume") and name and "/" not in name:
        yield "volume", lambda: client.get(f"/v1/volumes/{quote(name)}")
    if arguments.type in (None, "network") and name and "/" not in name:
        yield "network", lambda: client.get(f"/v1/networks/{quote(name)}")
    if arguments.type in (None, "image") and name:
        yield "image", lambda: client.get("/v1/images/inspect", name=name)


def _stack(arguments: argparse.Namespace, client: Client) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    arguments.targets = [arguments.name] if arguments.name else []
    try:
        stack, services = targets.find(arguments, client, required=True)
    except UserError:
        if arguments.type or not arguments.name:
            raise
        return  # no name that a stack could have
    yield (
        "service" if services else "stack",
        lambda: client.get(f"/v1/stacks/{stack}/inspect", service=services),
    )


def _elsewhere(error: GoraeError) -> bool:
    """Whether it may be the name of something else."""
    return error.code.endswith("-unknown") or error.code in ("image-missing", "bad-volume-name", "bad-name")
