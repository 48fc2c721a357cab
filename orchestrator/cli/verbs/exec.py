"""Run a command in a running container of a service, and exit with its code.

What is typed or piped in is its input. It gets a terminal when this is run on one; -T goes without. Ctrl-P Ctrl-Q
leaves it running. Without --index: in the first container that runs.
"""

from __future__ import annotations

import argparse
import os

from agent.kit.errors import UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client, quote


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser, short=False)
    parser.add_argument("-d", "--detach", action="store_true", help="begin it, and do not wait")
    register_talk(parser)
    register_process(parser)
    parser.add_argument("target", metavar="SERVICE", help="SERVICE or STACK/SERVICE")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments")


def register_process(parser: argparse.ArgumentParser) -> None:
    """What exec and run have in common."""
    parser.add_argument(
        "-e",
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="a variable of its own; NAME alone: as it is here, if it is set",
    )
    parser.add_argument("-w", "--workdir", metavar="DIR", help="in this directory of the container")
    parser.add_argument("-t", "--tty", action="store_true", default=None, help="give it a terminal")
    parser.add_argument("-T", "--no-tty", action="store_false", dest="tty", help="give it none")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass input on, as it always does")
    parser.add_argument("-u", "--user", metavar="USER", help="as this user")


def register_talk(parser: argparse.ArgumentParser) -> None:
    """What exec and attach have in common."""
    parser.add_argument("--index", metavar="N", type=int, help="which of the service's containers")
    register_input(parser)


def register_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-stdin", action="store_true", help="pass no input on")
    parser.add_argument(
        "--detach-keys", metavar="KEYS", default=None, help="what leaves it running, on a terminal (ctrl-p,ctrl-q)"
    )


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.cli import conversing
    from orchestrator.cli.terminal import DETACH_KEYS, Keys

    if not arguments.command:
        raise UserError("cannot run nothing", code="usage", hint=f"gorae exec {arguments.target} sh")
    client = Client(arguments.root)
    target = place(arguments, client)
    tty = not arguments.detach and conversing.wants_terminal(arguments.tty)
    ask: dict[str, object] = {
        "command": arguments.command,
        "slot": arguments.index,
        "user": arguments.user,
        "working_dir": arguments.workdir,
        "environment": variables(arguments.env),
        "tty": tty,
        "stdin": not arguments.no_stdin and not arguments.detach,
        "detach": arguments.detach,
    }
    keys = Keys(DETACH_KEYS if arguments.detach_keys is None else arguments.detach_keys)
    stdin = bool(ask["stdin"])
    return conversing.run(client.path, f"{target}/exec", ask, tty=tty, stdin=stdin, keys=keys)


def place(arguments: argparse.Namespace, client: Client) -> str:
    """The API's path of the one service that is meant."""
    arguments.targets = [arguments.target]
    stack, service = targets.one_service(arguments, client)
    return f"/v1/stacks/{stack}/services/{quote(service)}"


def variables(entries: list[str]) -> dict[str, str]:
    """NAME alone: as it is here; not set here, it is not set there (as with Docker)."""
    found = {}
    for entry in entries:
        name, given, value = entry.partition("=")
        if given or name in os.environ:
            found[name] = value if given else os.environ[name]
    return found
