"""Make the stack of a Compose file run, and wait until it does.

Reads the file with your own rights and environment, sends the result to the daemon, and shows images being pulled
and containers coming up. When nothing changed, nothing is touched. Ctrl-C stops waiting, not the stack.

With SERVICE…: these and what they depend on are brought up and waited for; all others stay as they are. Without: what
the file no longer has goes. Services of profiles that are not active now stay as they are, too.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any

from agent.kit.errors import GoraeError, UserError
from orchestrator.cli import building, keys, targets, waiting
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import count
from orchestrator.cli.verbs import ports


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", metavar="SERVICE", nargs="*", help="these services, and what they depend on")
    targets.register_files(parser)
    parser.add_argument(
        "--remove-orphans",
        action="store_true",
        help="with SERVICE: remove services that the file no longer has; without, that is always done",
    )
    parser.add_argument(
        "--pull",
        choices=["policy", "missing", "if_not_present", "always", "never", "build"],
        default="policy",
        help="when to pull images: as each pull_policy says, or all alike; always moves to what the tags mean now",
    )
    parser.add_argument(
        "--build", action="store_true", help="build images anew first; else only those that are missing"
    )
    parser.add_argument("--no-build", action="store_true", help="build none")
    building.register(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="accepted; containers always run in the background")
    waiting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    loaded = targets.load(arguments, services=arguments.services)
    for warning in loaded.warnings:
        print(f"note  {warning}", file=sys.stderr)
    name = loaded.stack.name
    client, progress = Client(arguments.root), Progress(waiting.screen(arguments))
    if any(service.pull_policy == "build" for service in loaded.stack.services.values()) or arguments.build:
        _build(arguments, client)
    body = {
        "model": loaded.stack.model_dump(mode="json", exclude={"images"}),
        "pull": {"if_not_present": "missing", "build": "policy"}.get(arguments.pull, arguments.pull),
        "partial": bool(arguments.services) and not arguments.remove_orphans,
        "keep": list(loaded.others),
        "keys": keys.of(service.image for service in loaded.stack.services.values()),
    }
    try:
        result = progress.result(client.stream("POST", f"/v1/stacks/{name}", body))
    except KeyboardInterrupt:
        raise UserError(
            f"stopped before the daemon said that stack {name} was changed",
            code="interrupted",
            hint=f"gorae status {name}, or gorae up again",
        ) from None
    changes = count(len(_changes(result)), "change")
    code = waiting.conclude(
        arguments,
        client,
        result,
        "bring up",
        stored=f"stack {name} is stored as revision {result['revision']}: {changes}",
        done=lambda document: _summary(name, result, document),
        services=tuple(loaded.stack.services) if arguments.services else (),
    )
    if any(service.ports for service in loaded.stack.services.values()):
        with suppress(GoraeError):  # an older daemon does not say
            ports.warn(client.get("/v1/ports", stack=name))
    return code


def _build(arguments: argparse.Namespace, client: Client) -> None:
    """What must be built before: all if so asked, else what says pull_policy: build, or is not here."""
    project = targets.read(arguments).document()
    names = building.buildable(project)
    if not (arguments.build or arguments.pull == "build"):
        absent = [] if arguments.no_build else building.missing(project, client)
        told = [] if arguments.no_build else [n for n in names if project["services"][n].get("pull_policy") == "build"]
        names = [name for name in names if name in absent or name in told]
    building.build(arguments, project, names, client, waiting.screen(arguments))


def _changes(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [action for action in result["actions"] if action["action"] != "keep"]


def _summary(name: str, result: dict[str, Any], document: dict[str, Any]) -> str:
    rows = document["stacks"][0]["services"]
    running = sum(row["ready"] for row in rows if row["state"] == "running")
    done = sum(row["state"] == "completed" for row in rows)
    what = f"{count(len(rows), 'service')}, {count(running, 'container')} running" + (
        f", {done} completed" if done else ""
    )
    if not _changes(result):
        return f"stack {name} is as the file says: {what}; nothing changed"
    published = [f"{row['name']} {port}" for row in rows for port in row["ports"]]
    return "\n".join([f"stack {name} is up: {what}", *(f"  {port}" for port in published)])
