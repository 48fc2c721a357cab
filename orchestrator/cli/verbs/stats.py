"""Show what containers use: processor (100% is one core), memory without the file cache that goes first, bytes a second
received/sent and read/written, processes; with their limits, where they have one.

Without a word: all stacks. On a terminal, drawn anew every second until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from orchestrator.cli import targets, usage
from orchestrator.cli.client import Client
from orchestrator.cli.render import Screen

_FIRST = 0.5  # seconds between the two looks that --no-stream takes


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    parser.add_argument("--no-stream", action="store_true", help="once, over half a second")
    parser.add_argument("--json", action="store_true", help="a document a line (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, services = targets.find(arguments, client, required=False)
    screen = Screen()
    query: dict[str, Any] = {"stack": stack, "service": services, "follow": True}
    if arguments.no_stream:
        query["every"] = _FIRST
    try:
        with client.stream("GET", "/v1/stats", **query) as documents:
            documents.next()  # has no rates
            for document in documents:
                _show(arguments, screen, document, stack)
                if arguments.no_stream:
                    return 0
            raise client.ended()
    except KeyboardInterrupt:
        return 0  # the usual end


def _show(arguments: argparse.Namespace, screen: Screen, document: dict[str, Any], stack: str | None) -> None:
    if arguments.json:
        print(json.dumps(document, ensure_ascii=False), flush=True)
        return
    heading, *rows = usage.lines(document, screen.width, stack)
    if not rows:
        rows = ["no container runs"]
    shown = [screen.paint("dim", heading), *rows]
    if screen.live and not arguments.no_stream:
        screen.draw(shown)
    else:
        sys.stdout.write("\n".join(shown) + "\n")
        sys.stdout.flush()
