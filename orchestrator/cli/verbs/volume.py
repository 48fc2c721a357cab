"""List, inspect, create, remove, back up and restore volumes.

A volume that a stack uses is not removed. A backup is one file; it is of one moment when nothing runs on the volume.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from agent.kit.errors import UserError
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Column, Screen, count, safe, size, span, table


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    root = argparse.ArgumentParser(add_help=False)
    # Also after the action; SUPPRESS keeps the value of the verb's own --root.
    root.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    listing = actions.add_parser("ls", parents=[root], help="list volumes, and who uses them")
    listing.add_argument("-q", "--quiet", action="store_true", help="names only")
    listing.add_argument("--json", action="store_true", help="the answer of GET /v1/volumes (docs/api.md)")
    inspect = actions.add_parser("inspect", parents=[root], help="show one volume")
    inspect.add_argument("name", metavar="NAME")
    inspect.add_argument("--json", action="store_true", help="the answer of GET /v1/volumes/NAME (docs/api.md)")
    create = actions.add_parser("create", parents=[root], help="make a volume that no stack owns")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--label", metavar="K=V", action="append", default=[], help="a label")
    create.add_argument(
        "-o", "--opt", metavar="K=V", action="append", default=[], help="an option, as driver_opts in a Compose file"
    )
    remove = actions.add_parser("rm", parents=[root], help="remove volumes, with their data")
    remove.add_argument("names", metavar="NAME", nargs="+")
    prune = actions.add_parser("prune", parents=[root], help="remove anonymous volumes that no stack uses")
    prune.add_argument("-a", "--all", action="store_true", help="every volume that no stack names, with its data")
    backup = actions.add_parser("backup", parents=[root], help="write a volume into one file")
    backup.add_argument("name", metavar="NAME")
    backup.add_argument("path", metavar="FILE", help="NAME.tar.zst, say; tar --zstd reads it, too")
    restore = actions.add_parser("restore", parents=[root], help="make a volume of such a file, here or elsewhere")
    restore.add_argument("path", metavar="FILE")
    restore.add_argument("--name", metavar="NAME", help="the name to give it, if not the backup's")
    restore.add_argument("--force", action="store_true", help="replace what is in a volume of that name")


def run(arguments: argparse.Namespace) -> int:
    client, screen = Client(arguments.root), Screen()
    action = arguments.action
    if action == "ls":
        return _list(client, screen, arguments)
    if action == "inspect":
        return _inspect(client, arguments)
    if action == "create":
        body = {"name": arguments.name, "labels": _pairs(arguments.label), "options": _pairs(arguments.opt)}
        print(f"created {client.send('POST', '/v1/volumes/create', body)['name']}")
    elif action == "rm":
        _removed(screen, _post(client, screen, "remove", {"names": arguments.names}))
    elif action == "prune":
        answer = _post(client, screen, "prune", {"all": arguments.all})
        _removed(screen, answer)
        if left := answer["left"]:
            screen.paragraph(
                f"{count(left, 'named volume')} that no stack names: gorae volume prune --all removes what is in them"
            )
    elif action == "backup":
        _backup(client, screen, arguments)
    else:
        body = {"path": os.path.abspath(arguments.path), "force": arguments.force}  # noqa: PTH100 (as the CLI's others)
        made = _post(client, screen, "restore", body | ({"name": arguments.name} if arguments.name else {}))
        done = "replaced the content of" if made["replaced"] else "restored"
        print(f"{done} {made['name']}: {size(made['size'])}")
    return 0


def _post(client: Client, screen: Screen, verb: str, body: dict[str, Any]) -> Any:
    return Progress(screen).result(client.stream("POST", f"/v1/volumes/{verb}", body))


def _pairs(written: list[str]) -> dict[str, str]:
    for text in written:
        if not text.partition("=")[0]:
            raise UserError(f"cannot use {text!r}: it has no name", code="usage", hint="K=V")
    return {text.partition("=")[0]: text.partition("=")[2] for text in written}


def _removed(screen: Screen, answer: dict[str, Any]) -> None:
    names = answer["removed"]
    screen.paragraph(f"removed {', '.join(names)}, freed {size(answer['freed'])}" if names else "nothing to remove")


def _backup(client: Client, screen: Screen, arguments: argparse.Namespace) -> None:
    body = {"name": arguments.name, "path": os.path.abspath(arguments.path)}  # noqa: PTH100 (the same)
    made = _post(client, screen, "backup", body)
    print(f"wrote {arguments.path}: {size(made['size'])}, {count(made['entries'], 'file')} of {size(made['bytes'])}")
    if made["skipped"]:
        print(f"left out {made['skipped']}: sockets, devices or mounts")
    if made["writer"]:
        changed = f", {count(made['changed'], 'file')} changed meanwhile" if made["changed"] else ""
        print(
            f"warning: {made['writer']} ran on it{changed}: the files may not be of one moment\n"
            f"try  gorae stop {made['writer']}, then back it up again",
            file=sys.stderr,
        )


def _list(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    answer = client.get("/v1/volumes")
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    volumes = answer["volumes"]
    if arguments.quiet:
        for volume in volumes:
            print(volume["name"])
    elif not volumes:
        print("no volumes; gorae up makes those of a stack")
    else:
        now = time.time()
        rows: list[list[str | list[str]]] = [
            [volume["name"], _owner(volume) or "-", volume["used_by"] or "-", span(now - volume["created"]) + " ago"]
            for volume in volumes
        ]
        columns = (
            Column("NAME", most=max(20, screen.width - 50)),
            Column("OWNER"),
            Column("USED BY"),
            Column("CREATED"),
        )
        heading, *blocks = table(columns, rows, screen.width)
        print(screen.paint("dim", heading[0]))
        for block in blocks:
            print("\n".join(block))
    return 0


def _owner(volume: dict[str, Any]) -> str:
    """STACK, or STACK/SERVICE.SLOT of an anonymous one."""
    return "/".join(filter(None, (volume["stack"], volume["owner"])))


def _inspect(client: Client, arguments: argparse.Namespace) -> int:
    from urllib.parse import quote

    volume = client.get(f"/v1/volumes/{quote(arguments.name, safe='')}")
    if arguments.json:
        print(json.dumps(volume, ensure_ascii=False))
        return 0
    lines = [
        ("name", volume["name"]),
        ("owner", _owner(volume) or "nobody"),
        ("used by", volume["used_by"] or "nobody"),
        ("created", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(volume["created"]))),
        ("size", size(volume["size"])),
        *(("label", f"{key}={value}") for key, value in sorted(volume["labels"].items())),
        *(("option", f"{key}={value}") for key, value in sorted(volume["options"].items())),
    ]
    print("\n".join(safe(f"{key:<8}  {value}") for key, value in lines))
    return 0
