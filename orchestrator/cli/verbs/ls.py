"""List stacks.

One line each: what state it is in, how many of its containers are ready, and when it was last changed.
"""

from __future__ import annotations

import argparse
import json
import time

from orchestrator.cli.client import Client
from orchestrator.cli.render import Column, Screen, span, state_colour, table


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    parser.add_argument("--json", action="store_true", help="the answer of GET /v1/stacks (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    answer = Client(arguments.root).get("/v1/stacks")
    stacks = answer["stacks"]
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif arguments.quiet:
        for row in stacks:
            print(row["name"])
    elif not stacks:
        print("no stacks; try  gorae up, in the folder of a Compose file")
    else:
        screen, now = Screen(), time.time()
        columns = [Column("STACK", most=30)]
        columns += [Column(title) for title in ("STATE", "SERVICES", "READY", "REVISION", "CHANGED")]
        rows: list[list[str | list[str]]] = [
            [
                row["name"],
                row["state"],
                str(row["services"]),
                f"{row['ready']}/{row['tasks']}",
                str(row["revision"]),
                span(now - row["updated_at"]) + " ago",
            ]
            for row in stacks
        ]
        heading, *blocks = table(columns, rows, screen.width)
        print(screen.paint("dim", heading[0]))
        for row, block in zip(stacks, blocks, strict=True):
            text = block[0]
            colour = state_colour(row["state"])
            print(text.replace(row["state"], screen.paint(colour, row["state"]), 1) if colour else text)
    return 0
