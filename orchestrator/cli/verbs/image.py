"""List, pull, inspect, name, save, load, import, check and remove images.

An image in use by a stack is not removed. save and load read and write docker-archives (docker save) and
oci-archives; ids and digests stay what they are.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from agent.kit.errors import UserError
from orchestrator.cli import image_about, image_upkeep, keys
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Column, Screen, count, size, table


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    root = argparse.ArgumentParser(add_help=False)
    # Also after the action; SUPPRESS keeps the value of the verb's own --root.
    root.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    listing = actions.add_parser("ls", parents=[root], help="list images")
    listing.add_argument("--json", action="store_true", help="the answer of GET /v1/images (docs/api.md)")
    pull = actions.add_parser("pull", parents=[root], help="fetch an image from its registry")
    pull.add_argument("name", metavar="NAME")
    pull.add_argument("--platform", metavar="OS/ARCH", help="for another machine than this one, like linux/arm64")
    load = actions.add_parser("load", parents=[root], help="take images from a docker-archive or oci-archive")
    load.add_argument("path", metavar="ARCHIVE")
    load.add_argument("name", metavar="NAME", nargs="?", help="the name to give it, if not the archive's")
    new = actions.add_parser("import", parents=[root], help="make an image of a root file system")
    new.add_argument("path", metavar="ROOTFS.tar")
    new.add_argument("name", metavar="NAME")
    new.add_argument("--config", metavar="FILE", help="its config as JSON, as Docker writes it (Cmd, Env, …)")
    new.add_argument("--cmd", metavar="LINE", help="the command it runs: words as a shell splits them, or a JSON list")
    new.add_argument("--entrypoint", metavar="LINE", help="its entrypoint, the same way")
    new.add_argument("--env", metavar="K=V", action="append", default=[], help="an environment variable")
    new.add_argument("--user", metavar="USER", help="who it runs as")
    new.add_argument("--workdir", metavar="DIR", help="where it starts")
    remove = actions.add_parser("rm", parents=[root], help="remove an image")
    remove.add_argument("names", metavar="NAME", nargs="+")
    image_about.register(actions, root)
    image_upkeep.register(actions, root)


def run(arguments: argparse.Namespace) -> int:
    client, screen = Client(arguments.root), Screen()
    action = arguments.action
    if "act" in arguments:
        return int(arguments.act(client, screen, arguments))
    if action == "ls":
        return _list(client, screen, arguments.json)
    if action == "rm":
        for name in arguments.names:
            answer = _post(client, screen, "remove", {"name": name})
            print(f"removed {', '.join(answer['removed']) or name}, freed {size(answer['freed'])}")
    elif action == "pull":
        body = {"name": arguments.name, "keys": keys.of([arguments.name])}
        body |= {"platform": arguments.platform} if arguments.platform else {}
        _said("pulled", [_post(client, screen, "pull", body)])
    elif action == "load":
        body = {"path": _readable(arguments.path)} | ({"name": arguments.name} if arguments.name else {})
        _said("loaded", _post(client, screen, "load", body))
    else:
        body = {"path": _readable(arguments.path), "name": arguments.name, "config": _config(arguments)}
        _said("imported", [_post(client, screen, "import", body)])
    return 0


def _post(client: Client, screen: Screen, verb: str, body: dict[str, Any]) -> Any:
    return Progress(screen).result(client.stream("POST", f"/v1/images/{verb}", body))


def _said(done: str, images: list[dict[str, Any]]) -> None:
    for image in images:
        names = ", ".join(image["names"]) or image["id"]
        print(f"{done} {names}: {size(image['size'])}, {count(image['layers'], 'layer')}")


def _list(client: Client, screen: Screen, as_json: bool) -> int:
    answer = client.get("/v1/images")
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    if not answer["images"]:
        print("no images; gorae up pulls what a stack needs")
        return 0
    rows: list[list[str | list[str]]] = [
        [
            list(image["names"]) or "<no name>",
            image["id"].rpartition(":")[2][:12],
            size(image["size"]),
            image["created"][:10],
        ]
        for image in answer["images"]
    ]
    columns = (Column("NAME", most=max(20, screen.width - 40)), Column("ID"), Column("SIZE"), Column("CREATED"))
    heading, *blocks = table(columns, rows, screen.width)
    print(screen.paint("dim", heading[0]))
    for block in blocks:
        print("\n".join(block))
    return 0


def _readable(path: str) -> str:
    """Absolute, as the daemon reads it; refused here when the user could not read it."""
    try:
        if os.path.isdir(path):  # noqa: PTH112 (the same; an OCI layout)
            os.listdir(path)  # noqa: PTH208 (the same)
        else:
            with open(path, "rb"):  # noqa: PTH123 (one check)
                pass
        return os.path.abspath(path)  # noqa: PTH100 (the same)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}", code="file-unreadable", hint="check the path and its permissions"
        ) from error


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if arguments.config:
        try:
            with open(_readable(arguments.config), encoding="utf-8") as file:  # noqa: PTH123 (one file)
                config = json.load(file)
        except ValueError as error:
            raise UserError(
                f"cannot read {arguments.config}: it is not JSON ({error})",
                code="bad-config",
                hint="see gorae image import -h",
            ) from error
        if not isinstance(config, dict):
            raise UserError(f"cannot use {arguments.config}: it is no JSON object", code="bad-config")
    given = {
        "Cmd": _words(arguments.cmd),
        "Entrypoint": _words(arguments.entrypoint),
        "Env": arguments.env or None,
        "User": arguments.user,
        "WorkingDir": arguments.workdir,
    }
    return config | {key: value for key, value in given.items() if value is not None}


def _words(line: str | None) -> list[str] | None:
    if line is None:
        return None
    try:
        if line.lstrip().startswith("["):
            words = json.loads(line)
            if isinstance(words, list) and all(isinstance(word, str) for word in words):
                return words
            raise ValueError("no list of words")
        import shlex

        return shlex.split(line)
    except ValueError as error:
        raise UserError(
            f"cannot split {line!r} into words: {error}", code="usage", hint="quote it as for a shell"
        ) from error
