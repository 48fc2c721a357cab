"""Compare what the stacks run with what their registries have now.

A stack keeps the image a tag meant when gorae up said so, over restarts and reboots; gorae up --pull always moves it.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from orchestrator.cli import keys
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Column, Screen, safe, table

_COLOURS = {"outdated": "yellow", "current": "green", "unknown": "red"}


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK", nargs="?", help="one stack; all without it")
    parser.add_argument("--json", action="store_true", help="the answer of POST /v1/images/outdated (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client, screen = Client(arguments.root), Screen()
    scope = {"stack": arguments.stack} if arguments.stack else {}
    names = [image for row in _status(client, arguments.stack) for image in row]
    answer = Progress(screen).result(client.stream("POST", "/v1/images/outdated", {**scope, "keys": keys.of(names)}))
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    if not answer["images"]:
        print("no stacks; try  gorae up, in the folder of a Compose file")
        return 0
    _print(screen, answer["images"])
    return 0


def _status(client: Client, stack: str | None) -> list[list[str]]:
    answer = client.get("/v1/status", **({"stack": stack} if stack else {}))
    return [[service["image"] for service in entry["services"]] for entry in answer["stacks"]]


def _print(screen: Screen, images: list[dict[str, Any]]) -> None:
    rows: list[list[str | list[str]]] = [
        [
            row["stack"],
            list(row["services"]) or "",
            row["image"],
            row["state"],
            row["digest"].rpartition(":")[2][:12] or "-",
            (row["latest"] or "").rpartition(":")[2][:12] or "-",
        ]
        for row in images
    ]
    columns = [Column(title) for title in ("STACK", "SERVICE", "IMAGE", "STATE", "HERE", "REGISTRY")]
    heading, *blocks = table(columns, rows, screen.width)
    print(screen.paint("dim", heading[0]))
    for row, block in zip(images, blocks, strict=True):
        print("\n".join(block).replace(row["state"], screen.paint(_COLOURS.get(row["state"]), row["state"]), 1))
    for row in images:
        if row["error"]:
            print(safe(f"{row['image']}: {row['error']}"))
    for stack in dict.fromkeys(row["stack"] for row in images if row["state"] == "outdated"):
        print(f"try  gorae up --pull always, for stack {stack}")
