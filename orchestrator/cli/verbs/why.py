"""Say why a service is as it is: what happened last, what that followed from, and which rule was applied.

Read from the events; gorae events STACK/SERVICE shows all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.render import safe


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_targets(parser)
    parser.add_argument("--json", action="store_true", help="one document (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    stack, service = targets.one_service(arguments, client)
    found = client.send("GET", f"/v1/stacks/{stack}/why", service=service)
    print(json.dumps(found) if arguments.json else "\n".join(text(found, f"{stack}/{service}")))
    return 0


def text(found: dict[str, Any], target: str) -> list[str]:
    lines = [f"{safe(found['sentence'])}, at {_clock(found['at'])}", *_quoted(found["lines"])]
    for word, facts in (("because", found["because"]), ("before", found["before"])):
        for fact in facts:
            lines += [f"  {word:<7}  {_clock(fact['at'])}  {safe(fact['sentence'])}", *_quoted(fact["lines"])]
    if found["rule"]:
        lines.append(f"  rule     {safe(found['rule'])}")
    since = min([found["at"], *(fact["at"] for fact in (*found["because"], *found["before"]))])
    return [*lines, f"try  gorae logs {target} --since {time.strftime('%H:%M', time.localtime(since))}"]


def _quoted(lines: list[str]) -> list[str]:
    return [f"           │ {safe(line)}" for line in lines]


def _clock(at: float) -> str:
    today = time.strftime("%F", time.localtime(at)) == time.strftime("%F")
    return time.strftime("%T" if today else "%F %T", time.localtime(at))
