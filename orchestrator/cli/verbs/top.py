"""Watch all stacks, services and containers on the whole screen; or, of services that are named, show the processes.

On the whole screen: q, Escape or Ctrl-C ends it, the arrow keys scroll, s sorts by the next column. NET/S is received
and sent.

Of processes: PID is the number in the container, HOST the one on this host, where ps and kill know it. CPU is the time
used so far.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from typing import Any

from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.render import Column, Screen, safe, span, table
from orchestrator.cli.usage import memory

_TITLES = ("PID", "HOST", "USER", "S", "CPU", "MEMORY", "AGE")


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    parser.add_argument("--json", action="store_true", help="the answer of GET /v1/processes (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    if not (arguments.targets or arguments.project or arguments.file or arguments.json):
        return int(import_module("orchestrator.cli.oversight").run(client))  # a folder's file has no say in it
    stack, services = targets.find(arguments, client, required=True)
    answer = client.get("/v1/processes", stack=stack, service=services)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    screen = Screen()
    columns = [*(Column(title, most=12) for title in _TITLES), Column("COMMAND", flexible=True)]
    for number, container in enumerate(answer["containers"]):
        print(("\n" if number else "") + screen.paint("bold", f"{container['service']}.{container['slot']}"))
        heading, *blocks = table(columns, [_row(answer["at"], one) for one in container["processes"]], screen.width)
        print(screen.paint("dim", heading[0]))
        for block in blocks:
            print("\n".join(block))
    return 0


def _row(now: float, process: dict[str, Any]) -> list[str | list[str]]:
    return [
        str(process["pid"]),
        str(process["host_pid"]),
        process["user"],
        process["state"],
        clock(process["cpu"]),
        memory(process["rss"]),
        span(now - process["started_at"]),
        safe(process["command"]),
    ]


def clock(seconds: float) -> str:
    """Time of the processor: 1.25s, 2:05, 1:02:05."""
    if seconds < 60:
        return f"{seconds:.2f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
