"""Show what containers wrote, in time order.

Without a word: the stack of the folder, or all stacks where there is no Compose file. With -f, goes on until Ctrl-C,
and also when gorae itself starts anew meanwhile.

Where an attempt begins, a line says so: --- web.1 attempt 2 ---. With --no-prefix, lines come out byte for byte as they
were written, and nothing else does.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from agent.kit.errors import GoraeError, UserError
from agent.wire.batches import Decoder, Place, cursor
from orchestrator.cli import targets
from orchestrator.cli.client import Client, Unreachable
from orchestrator.cli.moments import moment
from orchestrator.cli.printing import CAP, Printer

PAUSE = 0.3  # seconds between two tries to go on


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="STACK, STACK/SERVICE or SERVICE…")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--since", metavar="WHEN", type=moment, help="10m, 14:02, 2024-05-01T14:02 or Unix seconds")
    parser.add_argument("--until", metavar="WHEN", type=moment, help="the same")
    parser.add_argument("-n", "--tail", metavar="N", type=int, help="only the last N lines of each container")
    parser.add_argument("-t", "--timestamps", action="store_true", help="with the time of each line")
    parser.add_argument("--no-prefix", action="store_true", help="without the name of the container in each line")
    parser.add_argument("--json", action="store_true", help="one JSON document a line (docs/api.md)")
    targets.register_files(parser, short=False)


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, services = targets.find(arguments, client, required=targets.file_here())
    if arguments.tail is not None and arguments.tail < 0:
        raise UserError("cannot show fewer than 0 lines", code="usage", hint="gorae logs --tail 20")
    if arguments.follow and arguments.until is not None:
        raise UserError("cannot follow until a moment", code="usage", hint="leave out -f, or --until")
    query: dict[str, Any] = {
        "stack": stack,
        "service": services,
        "follow": arguments.follow,
        "since": arguments.since,
        "until": arguments.until,
        "tail": arguments.tail,
    }
    decoder = Decoder(since=arguments.since, until=arguments.until, cap=CAP)
    printer = Printer(
        decoder,
        json=arguments.json,
        times=arguments.timestamps,
        prefix=not arguments.no_prefix,
        stacks=stack is None,
    )
    try:
        for parts in _batches(client, query):
            printer.show(parts)
            if arguments.follow:
                printer.flush()
        printer.items(decoder.rest())
    except KeyboardInterrupt:
        return 130 if not arguments.follow else 0  # the usual end of following
    finally:
        printer.end()
    return 0


def _batches(client: Client, query: dict[str, Any]) -> Iterator[list[Any]]:
    """With -f without an end: it goes on behind the last batch whatever is away for a while."""
    places: dict[str, Place] = {}
    reached = away = False
    while True:
        try:
            for kind, value in _answer(client, cursor(places), query):
                reached = True
                if kind == "note":
                    _note(value)
                if kind != "batch":
                    continue
                if away:
                    _note("gorae is back")
                    away = False
                yield value
                places.update((part.task, Place(part.file, part.offset + len(part.data))) for part in value)
            if not query["follow"]:
                return
        except GoraeError as error:
            if not query["follow"] or not reached or error.code not in ("agent-away", "daemon-away"):
                raise
            if not away:
                _note(f"{error.message}; what was written meanwhile comes when it is back")
            away = True
        time.sleep(PAUSE)


def _answer(client: Client, after: str, query: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    begun = False
    try:
        for answer in client.batches("/v1/logs", after, **query):
            begun = True
            yield answer
        return
    except Unreachable as error:
        if begun or os.geteuid() != 0:  # begun: `after` is behind what was shown
            raise
        why = error
    from orchestrator.cli.fallback import logs

    yield from logs(client.root, why, after, query)


def _note(text: str) -> None:
    sys.stdout.flush()
    print(f"note  {text}", file=sys.stderr, flush=True)
