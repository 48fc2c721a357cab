"""gorae image prune, df, fsck: about all images together."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Screen, count, safe, size

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def register(actions: Any, root: argparse.ArgumentParser) -> None:
    prune = actions.add_parser("prune", parents=[root], help="remove images that no name, stack or revision needs")
    prune.add_argument("-a", "--all", action="store_true", help="also those that have a name")
    prune.add_argument("--older", metavar="SPAN", type=_span, default=0, help="not wanted for 12h, 30d, 4w …")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    prune.set_defaults(act=_prune)
    usage = actions.add_parser("df", parents=[root], help="show how much room images take, and what could go")
    usage.add_argument("--json", action="store_true", help="the answer of GET /v1/images/usage (docs/api.md)")
    usage.set_defaults(act=_df)
    check = actions.add_parser("fsck", parents=[root], help="verify every blob and every unpacked layer")
    check.add_argument("--repair", action="store_true", help="remove or unpack again what is broken and not in use")
    check.add_argument("--json", action="store_true", help="the result of POST /v1/images/fsck (docs/api.md)")
    check.set_defaults(act=_fsck)


def _span(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time like 12h or 30d")
    return int(found[1]) * _SECONDS[found[2]]


def _prune(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    body = {"all": arguments.all, "older": arguments.older, "dry": arguments.dry_run}
    answer = Progress(screen).result(client.stream("POST", "/v1/images/prune", body))
    for name in answer["removed"]:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {name}")
    done = "to free" if arguments.dry_run else "freed"
    print(f"{count(len(answer['removed']), 'image')}, {size(answer['freed'])} {done}")
    return 0


def _df(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    usage = client.get("/v1/images/usage")
    if arguments.json:
        print(json.dumps(usage, ensure_ascii=False))
        return 0
    print(f"{'images':<12} {usage['images']}, {usage['unused']} of them unused")
    print(f"{'packed':<12} {size(usage['blobs'])}")
    print(f"{'unpacked':<12} {size(usage['layers'])}")
    print(f"{'could go':<12} {size(usage['reclaimable'])}" + (": gorae image prune --all" if usage["unused"] else ""))
    print(f"{'disk':<12} {size(usage['free'])} free of {size(usage['total'])}")
    return 0


def _fsck(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    told = Screen(sys.stderr) if arguments.json else screen
    verdict = Progress(told).result(client.stream("POST", "/v1/images/fsck", {"repair": arguments.repair}))
    problems = verdict["problems"]
    left = [problem for problem in problems if not problem["done"]]
    if arguments.json:
        print(json.dumps(verdict, ensure_ascii=False))
        return 1 if left else 0
    for problem in problems:
        needed = f", needed by {', '.join(problem['images'])}" if problem["images"] else ""
        print(safe(f"{problem['what']} {problem['digest'][:19]}: {problem['why']}{needed}"))
        if problem["done"]:
            print(f"  {problem['done']}")
        elif problem["used_by"]:
            print(f"  try  gorae down, then gorae image fsck --repair: {problem['used_by']} uses it")
    if left and not arguments.repair:
        print("try  gorae image fsck --repair")
    seen = ", ".join(count(verdict[f"{noun}s"], noun) for noun in ("image", "blob", "layer"))
    print(f"{seen}: {count(len(problems), 'problem') if problems else 'all as they should be'}")
    return 1 if left else 0
