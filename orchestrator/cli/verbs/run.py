"""Run a command once in a new container of a service: its image, volumes, networks and variables, no ports.

Waits until it has ended, prints what it writes, and exits with its code. The container is removed afterwards; what it
wrote into volumes stays. Ctrl-C ends it. With -d: returns at once, and it goes with the next change of the stack.

What is typed or piped in is not passed on: gorae exec does that, in a container that runs. Of a service with
stdin_open, gorae attach is at the input of a run with -d.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any

from agent.kit.errors import Temporary, UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client

PAUSE = 0.2  # seconds between two looks


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser, short=False)
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait")
    parser.add_argument(
        "-e", "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of its own; NAME: as here"
    )
    parser.add_argument("-u", "--user", metavar="USER", help="as this user")
    parser.add_argument("target", metavar="SERVICE", help="SERVICE or STACK/SERVICE")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="default: the service's own")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    arguments.targets = [arguments.target]
    stack, service = targets.one_service(arguments, client)
    body = {
        "service": service,
        "command": arguments.command or None,
        "environment": dict(_variable(pair) for pair in arguments.env),
        "user": arguments.user,
    }
    name = client.send("POST", f"/v1/stacks/{stack}/run", body)["service"]
    if arguments.detach:
        print(f"{stack}/{name} is started; gorae logs {stack}/{name}")
        return 0
    seen: list[str] = []
    for number in (signal.SIGHUP, signal.SIGTERM):  # a closed terminal, timeout(1): nobody waits for it any more
        signal.signal(number, _leave)
    try:
        while True:
            task = _task(client, stack, name)
            over = task["state"] in ("completed", "failed")
            _print(client, stack, name, seen)
            if over:
                break
            time.sleep(PAUSE)
    finally:
        client.send("DELETE", f"/v1/stacks/{stack}/runs/{name}")
    if task["exit_code"] is None:
        raise Temporary(f"cannot run {stack}/{service}: {task['message']}", code="not-run", hint="gorae events")
    return int(task["exit_code"])


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _variable(pair: str) -> tuple[str, str]:
    """NAME=VALUE; NAME alone: as it is where gorae was called."""
    name, given, value = pair.partition("=")
    if not given and name not in os.environ:
        raise UserError(
            f"cannot run with the variable {name}: it has no value here", code="usage", hint=f"-e {name}=VALUE"
        )
    return name, value if given else os.environ[name]


def _task(client: Client, stack: str | None, name: str) -> dict[str, Any]:
    document = client.get("/v1/status", stack=stack, service=name)
    task: dict[str, Any] = document["stacks"][0]["services"][0]["tasks"][0]
    return task


def _print(client: Client, stack: str | None, name: str, seen: list[str]) -> None:
    """What was written since the last look; `seen`: the lines of the last moment."""
    since = float(seen[0]) if seen else None
    with client.stream("GET", "/v1/logs", stack=stack, service=name, since=since) as stream:
        lines = [line for line in stream if line["kind"] == "line"]
    known = len(seen) - 1 if seen else 0
    for line in lines[known:]:
        print(line["text"], file=sys.stderr if line["stream"] == "stderr" else sys.stdout, flush=True)
    if lines:
        last = lines[-1]["at"]
        seen[:] = [repr(last), *(line["text"] for line in lines if line["at"] == last)]
