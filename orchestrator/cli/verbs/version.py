"""Show the versions of this program and of the daemons.

Exit code 3 when the daemon does not answer.
"""

from __future__ import annotations

import argparse
import json

from agent.kit.version import VERSION
from orchestrator.cli.client import Client, Unreachable


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="client and GET /v1/version (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    try:
        daemon = Client(arguments.root).get("/v1/version")
    except Unreachable:
        if arguments.json:
            print(json.dumps({"client": VERSION, "daemon": None}))
        else:
            print(f"gorae {VERSION}")
        raise
    if arguments.json:
        print(json.dumps({"client": VERSION, "daemon": daemon}))
        return 0
    agent = daemon["agent"]
    print(f"gorae        {VERSION}")
    print(f"orchestrator {daemon['version']}")
    print(f"agent        {agent['version'] or 'not seen yet'}" + ("" if agent["online"] else ", not answering"))
    return 0
