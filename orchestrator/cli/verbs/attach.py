"""Be at the input and output of a running container's own program, from now on.

With `stdin_open: true` it is given what is typed, with `tty: true` on a terminal of its own. Ctrl-P Ctrl-Q leaves it
running; without a terminal Ctrl-C is sent to it, and leaves when it comes again. gorae logs shows what it wrote before.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.verbs import exec as entering


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser, short=False)
    entering.register_talk(parser)
    parser.add_argument("target", metavar="SERVICE", help="SERVICE or STACK/SERVICE")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.cli import conversing
    from orchestrator.cli.terminal import DETACH_KEYS, Keys

    client = Client(arguments.root)
    target = entering.place(arguments, client)
    keys = Keys(DETACH_KEYS if arguments.detach_keys is None else arguments.detach_keys)
    stdin = not arguments.no_stdin
    return conversing.run(client.path, f"{target}/attach", {"slot": arguments.index}, tty=None, stdin=stdin, keys=keys)
