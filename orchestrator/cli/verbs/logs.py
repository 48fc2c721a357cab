"""Show what containers wrote, in time order.

Without a word: the stack of the folder. With -f, goes on until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from agent.kit.errors import UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client, Unreachable
from orchestrator.cli.moments import moment
from orchestrator.cli.render import Screen, cells, safe

_COLOURS = ("green", "yellow", "bold")


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="STACK, STACK/SERVICE or SERVICE…")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--since", metavar="WHEN", type=moment, help="10m, 14:02, 2024-05-01T14:02 or Unix seconds")
    parser.add_argument("--until", metavar="WHEN", type=moment, help="the same")
    parser.add_argument("-n", "--tail", metavar="N", type=int, help="only the last N lines of each container")
    parser.add_argument("-t", "--timestamps", action="store_true", help="with the time of each line")
    parser.add_argument("--json", action="store_true", help="one JSON document a line (docs/api.md)")
    targets.register_files(parser, short=False)


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, services = targets.find(arguments, client, required=True)
    if arguments.tail is not None and arguments.tail < 0:
        raise UserError("cannot show fewer than 0 lines", code="usage", hint="gorae logs --tail 20")
    query: dict[str, Any] = {
        "stack": stack,
        "service": services,
        "follow": arguments.follow,
        "since": arguments.since,
        "until": arguments.until,
        "tail": arguments.tail,
    }
    try:
        _print(arguments, _lines(client, arguments.root, query))
        if arguments.follow:
            raise client.ended()
    except KeyboardInterrupt:
        return 130 if not arguments.follow else 0  # the usual end of following
    return 0


def _lines(client: Client, root: str | None, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        stream = client.stream("GET", "/v1/logs", **query)
    except Unreachable as error:
        if os.geteuid() != 0:
            raise
        from orchestrator.cli.fallback import logs

        yield from logs(root, error, services=query.pop("service") or None, **query)
        return
    with stream:
        yield from stream


def _print(arguments: argparse.Namespace, lines: Iterable[dict[str, Any]]) -> None:
    screen = Screen()
    colours: dict[str, str] = {}
    width = 0
    raw = not screen.live  # a file or a pipe gets the bytes as they were written
    for line in lines:
        if arguments.json:
            screen.line(json.dumps(line, ensure_ascii=False))
        else:
            name = f"{line['service']}.{line['slot']}"
            width = max(width, cells(name))
            colour = colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])
            when = time.strftime("%H:%M:%S ", time.localtime(line["at"])) if arguments.timestamps else ""
            text = line["text"] if raw else safe(line["text"])
            screen.line(f"{when}{screen.paint(colour, name.ljust(width))} │ {text}")
        if arguments.follow:
            screen.stream.flush()
