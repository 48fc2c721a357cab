"""Show what happened, who did it, and why.

Without a word: everything. With -f, goes on until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.moments import moment
from orchestrator.cli.render import Screen, safe, shorten, wrap

_NAME = 24


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="STACK, STACK/SERVICE or SERVICE")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--since", metavar="WHEN", type=moment, help="10m, 14:02, 2024-05-01T14:02 or Unix seconds")
    parser.add_argument("-n", "--limit", metavar="N", type=int, default=200, help="at most the newest N (default: 200)")
    parser.add_argument("--json", action="store_true", help="one event a line (docs/api.md)")
    targets.register_files(parser, short=False)


def run(arguments: argparse.Namespace) -> int:
    client, screen = Client(arguments.root), Screen()
    stack, services = targets.find(arguments, client, required=False)
    query = {
        "stack": stack,
        "service": services,
        "since": arguments.since,
        "limit": arguments.limit,
        "follow": arguments.follow,
    }
    try:
        with client.stream("GET", "/v1/events", **query) as stream:
            for event in stream:
                screen.line(json.dumps(event, ensure_ascii=False) if arguments.json else text(event, screen))
                if arguments.follow:
                    screen.stream.flush()
        if arguments.follow:
            raise client.ended()
    except KeyboardInterrupt:
        return 130 if not arguments.follow else 0  # the usual end of following
    return 0


def text(event: dict[str, Any], screen: Screen) -> str:
    """time, who, what; below it the reason, when that says more."""
    day, clock = time.strftime("%m-%d", time.localtime(event["at"])), time.strftime("%T", time.localtime(event["at"]))
    who = event["stack"] or event["source"]
    if event["service"]:
        who += f"/{event['service']}" + (f".{event['slot']}" if event["slot"] else "")
    what = event["kind"].rpartition(".")[2].replace("-", " ")
    reason = safe(event["message"] or event["reason"])
    name = shorten(who, _NAME)
    indent = 6 + 9 + 2 + _NAME + 1
    head = f"{day} {clock}  {name}{' ' * (_NAME - len(name))} "
    sentence = reason if reason.startswith(what) else f"{what}: {reason}" if reason else what
    body = wrap(sentence, max(20, screen.width - indent))
    return ("\n" + " " * (indent - 1)).join([screen.paint("dim", head) + body[0], *body[1:]])
