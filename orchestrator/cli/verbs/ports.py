"""Show which ports of this host lead into containers, and who reaches them.

open: a container answers. closed: none is ready, and whoever asks is refused at once. Firewalls that keep a list of
what they let in (ufw, firewalld) are not asked about published ports; it says so where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from orchestrator.cli.client import Client
from orchestrator.cli.render import Column, Screen, table

_REACH = {"everyone": "everyone", "this host": "this host alone"}


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", nargs="?", metavar="STACK", help="of this stack alone")
    parser.add_argument("--json", action="store_true", help="the answer of GET /v1/ports (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    answer = Client(arguments.root).get("/v1/ports", stack=arguments.stack)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    rows = answer["ports"]
    if not rows:
        print(f"stack {arguments.stack} publishes no port" if arguments.stack else "nothing is published")
        return 0
    screen = Screen()
    columns = [Column("STACK", most=30), Column("SERVICE", most=30)]
    columns += [Column(title) for title in ("PORT", "REACHED BY", "STATE")]
    cells: list[list[str | list[str]]] = [
        [
            row["stack"],
            row["service"],
            f"{row['published'] or 'any'}/{row['protocol']} → {row['target']}",
            _REACH.get(row["reach"]) or f"who reaches {row['host_ip']}",
            f"{row['state']}, {row['ready']} of {row['tasks']} ready",
        ]
        for row in rows
    ]
    heading, *blocks = table(columns, cells, screen.width)
    print(screen.paint("dim", heading[0]))
    for block in blocks:
        print("\n".join(block))
    warn(answer)
    return 0


def warn(answer: dict[str, Any]) -> None:
    """Of firewalls that seem to guard what is listed, and do not."""
    wide = any(row["reach"] != "this host" for row in answer["ports"])
    for name in answer["firewalls"] or () if wide else ():
        print(
            f"note  {name} is not asked about published ports: they are open as listed, whatever its rules say",
            "try   127.0.0.1:PORT:PORT in the file, or default_address in gorae.toml (docs/settings.md)",
            sep="\n",
            file=sys.stderr,
        )
