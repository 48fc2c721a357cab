"""Show what takes room on the disk, and what of it could go.

Blocks on the disk are counted, each file once; of image layers, the content. What could go: images and layers that
neither a task nor a stored revision needs, writable layers of containers that have ended, volumes that no stack names,
and logs that are not being written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Column, Screen, size, table

_NAMES = {"writable": "writable layers"}
_PRUNE = {"images": "gorae image prune --all", "volumes": "gorae volume prune --all"}


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="each container, volume and image, largest first")
    parser.add_argument("--json", action="store_true", help="the result of GET /v1/df (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    screen = Screen()
    answer = Progress(screen).result(Client(arguments.root).stream("GET", "/v1/df"))
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    kinds = answer["kinds"]
    _print(screen, ("KIND", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"), [*_rows(kinds)])
    disk = f"{size(answer['free'])} free of {size(answer['total'])}"
    print(f"\ndisk  {disk}; logs may take {size(answer['log_budget'])}")
    if arguments.verbose:
        _details(screen, answer)
    ways = [way for kind, way in _PRUNE.items() if kinds[kind]["reclaimable"]]
    if ways:
        print("try  " + ", ".join(ways))
    return 0


def _rows(kinds: dict[str, dict[str, int]]) -> Iterator[list[str]]:
    for kind, row in kinds.items():
        numbers = [str(row["total"]), str(row["active"])]
        yield [_NAMES.get(kind, kind), *numbers, size(row["size"]), _share(row["reclaimable"], row["size"])]
    taken, free = (sum(row[key] for row in kinds.values()) for key in ("size", "reclaimable"))
    yield ["total", "", "", size(taken), _share(free, taken)]


def _share(part: int, whole: int) -> str:
    return f"{size(part)} ({100 * part // whole} %)" if whole else size(part)


def _details(screen: Screen, answer: dict[str, Any]) -> None:
    tasks = sorted(answer["tasks"], key=lambda row: -row["writable"] - row["logs"])
    volumes = sorted(answer["volumes"], key=lambda row: -row["size"])
    images = sorted(answer["images"], key=lambda row: -row["size"])
    slots = [f"{row['stack']}/{row['service']}.{row['slot']}" if row["stack"] else "-" for row in tasks]
    print()
    _print(
        screen,
        ("CONTAINER", "TASK", "STATE", "WRITABLE", "LOGS"),
        [
            [slot, row["task"], row["state"], size(row["writable"]), size(row["logs"])]
            for slot, row in zip(slots, tasks, strict=True)
        ],
    )
    print()
    rows = [[row["name"], size(row["size"]), row["used_by"] or "-"] for row in volumes]
    _print(screen, ("VOLUME", "SIZE", "USED BY"), rows)
    print()
    names = [", ".join(row["names"]) or row["id"].rpartition(":")[2][:12] for row in images]
    used = [[name, size(row["size"]), row["used_by"] or "-"] for name, row in zip(names, images, strict=True)]
    _print(screen, ("IMAGE", "SIZE", "USED BY"), used)


def _print(screen: Screen, titles: tuple[str, ...], rows: list[list[str]]) -> None:
    heading, *blocks = table([Column(title) for title in titles], rows, screen.width)
    print(screen.paint("dim", heading[0]))
    for block in blocks:
        print("\n".join(block))
