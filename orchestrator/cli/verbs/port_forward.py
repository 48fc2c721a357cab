"""Reach ports of a running container from here, those it publishes nowhere and those of its 127.0.0.1, too; until
Ctrl-C.

PORT is [LOCAL:]REMOTE: what connects to LOCAL here is connected to REMOTE in the container. REMOTE alone is the same
number on both sides; with :REMOTE a free port is taken, and printed. TCP only. Each connection goes to the container
that runs at that moment, without --index the service's first. What the container refuses is said on standard error, and
closes that connection alone. At most 200 connections are open at once; further ones wait.
"""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack

from agent.kit.errors import UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client, quote

_PORT = re.compile(r"(?:(?P<local>[0-9]{0,5}):)?(?P<remote>[0-9]{1,5})")


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser, short=False)
    parser.add_argument("--address", metavar="ADDRESS", default="127.0.0.1", help="of this host (127.0.0.1)")
    parser.add_argument("--index", metavar="N", type=int, help="which of the service's containers")
    parser.add_argument("target", metavar="SERVICE", help="SERVICE or STACK/SERVICE")
    parser.add_argument("ports", metavar="PORT", nargs="+", help="[LOCAL:]REMOTE")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.cli import forwarding

    wanted = [ports(word) for word in arguments.ports]
    client = Client(arguments.root)
    arguments.targets = [arguments.target]
    stack, service = targets.one_service(arguments, client)
    _check(client, stack, service, arguments.index)
    with ExitStack() as open_:
        listeners = []
        for local, remote in wanted:
            listener = open_.enter_context(forwarding.listen(arguments.address, local))
            listeners.append((listener, remote))
        for listener, remote in listeners:
            here = forwarding.shown(*listener.getsockname()[:2])
            print(f"{here} → {stack}/{service}:{remote}", flush=True)
        target = f"/v1/stacks/{stack}/services/{quote(service)}/forward"
        return forwarding.run(client.path, target, arguments.index, listeners)


def ports(word: str) -> tuple[int, int]:
    """(local, remote) of [LOCAL:]REMOTE; local 0: a free one. UserError usage."""
    found = _PORT.fullmatch(word)
    remote = int(found["remote"]) if found else 0
    local = int(found["local"] or 0) if found and found["local"] is not None else remote
    if not 1 <= remote <= 65535 or local > 65535:
        raise UserError(
            f"cannot understand the port {word}",
            code="usage",
            hint="[LOCAL:]REMOTE, as in 8080:80, or :80 with a free port here",
        )
    return local, remote


def _check(client: Client, stack: str, service: str, index: int | None) -> None:
    """Refused now, not at the first connection. UserError stack-unknown, service-unknown, nothing-runs."""
    found = client.get("/v1/status", stack=stack, service=(service,))["stacks"][0]["services"]
    if not any(task["pid"] and index in (None, task["slot"]) for row in found for task in row["tasks"]):
        name = f"{stack}/{service}" + ("" if index is None else f".{index}")
        raise UserError(
            f"cannot reach a port of {name}: no container runs",
            code="nothing-runs",
            hint=f"gorae status {stack} says why",
        )
