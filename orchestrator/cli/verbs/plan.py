"""Show what up would do, and change nothing.

Reads the file as up does. Says of each service what happens to it and for how long it would not answer, which images
would be pulled, which ports of the host would be opened, and what differs, field by field. The exit code is 2 when up
would change something, 0 when it would not, 1 when it would be refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from orchestrator.cli import targets
from orchestrator.cli.client import Client
from orchestrator.cli.render import count, safe

CHANGES = 2


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser)
    parser.add_argument("--pull", choices=["policy", "missing", "always", "never"], default="policy", help="as of up")
    parser.add_argument("--json", action="store_true", help="one document (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    loaded = targets.load(arguments)
    for warning in loaded.warnings:
        print(f"note  {warning}", file=sys.stderr)
    name = loaded.stack.name
    model = loaded.stack.model_dump(mode="json", exclude={"images"})
    body = {"model": model, "pull": arguments.pull, "keep": list(loaded.others)}
    found = Client(arguments.root).send("POST", f"/v1/stacks/{name}/plan", body)
    print(json.dumps(found) if arguments.json else "\n".join(text(found)))
    for refusal in found["refusals"]:
        print(f"{safe(refusal['message'])}\ntry  {safe(refusal['hint'])}", file=sys.stderr)
    return 1 if found["refusals"] else CHANGES if found["changes"] else 0


def text(found: dict[str, Any]) -> list[str]:
    stack = found["stack"]
    if not found["changes"]:
        return [f"stack {stack} is as the file says; up would change nothing"]
    lines = []
    for service in found["services"]:
        if service["consequence"] == "nothing":
            continue
        line = f"{stack}/{service['name']}  {service['consequence']}, {count(service['containers'], 'container')}"
        lines.append(line + f"; downtime: {service['downtime']}")
        if service["order"]:
            lines.append(f"  {service['order']}: {service['why']}")
        lines += [f"  because {safe(cause)}" for cause in service["causes"]]
    lines += [f"pull  {image}" for image in found["pull"]]
    for port in found["ports"]:
        where = f"{port.get('host_ip') or '0.0.0.0'}:{port.get('published', 'a free port')}"
        lines.append(f"port  {where} → {port['target']}/{port['protocol']} is newly open, to {stack}/{port['service']}")
    return lines + differences([one for one in found["difference"] if not _said(one)])


def differences(found: list[dict[str, Any]]) -> list[str]:
    """One line a field, also of what came or went whole: there, what is not set is left out."""
    lines = []
    for one in found:
        key, before, after = one["key"], one["before"], one["after"]
        if before is None and isinstance(after, dict):
            lines += [f"{name}: none → {_value(value)}" for name, value in _fields(key, after)]
        elif after is None and isinstance(before, dict):
            lines += [f"{name}: {_value(value)} → none" for name, value in _fields(key, before)]
        else:
            lines.append(f"{key}: {_value(before)} → {_value(after)}")
    return lines


def _said(one: dict[str, Any]) -> bool:
    """A service that comes or goes whole has its line above, and an image that comes or goes with it."""
    section = str(one["key"]).partition(".")[0]
    whole = isinstance(one["before"] or one["after"], dict) and None in (one["before"], one["after"])
    return whole and (section == "images" or (section == "services" and one["key"].count(".") == 1))


def _fields(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, value) of each field that is set; of nothing but defaults, the whole."""
    if not isinstance(value, dict):
        yield key, value
        return
    told = {name: inner for name, inner in value.items() if _is_set(inner)}
    if not told:
        yield key, {}
    for name, inner in told.items():
        yield from _fields(f"{key}.{name}", inner)


def _is_set(value: Any) -> bool:
    return any(_is_set(inner) for inner in value.values()) if isinstance(value, dict) else bool(value)


def _value(value: Any) -> str:
    return "none" if value is None else safe(json.dumps(value, ensure_ascii=False))
