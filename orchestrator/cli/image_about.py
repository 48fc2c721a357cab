"""gorae image inspect, history, tag, save: about one image, or a few."""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
from typing import Any

from agent.kit.errors import UserError
from orchestrator.cli.client import Client, Unreachable
from orchestrator.cli.render import Column, Screen, count, cut, safe, size, table

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")  # ExposedPorts: exposed ports


def register(actions: Any, root: argparse.ArgumentParser) -> None:
    inspect = actions.add_parser("inspect", parents=[root], help="show what an image is")
    inspect.add_argument("name", metavar="NAME")
    inspect.add_argument("--json", action="store_true", help="the answer of GET /v1/images/inspect (docs/api.md)")
    inspect.set_defaults(act=_inspect)
    history = actions.add_parser("history", parents=[root], help="show how an image was made, newest step first")
    history.add_argument("name", metavar="NAME")
    history.add_argument("--json", action="store_true", help="its history alone, oldest step first")
    history.set_defaults(act=_history)
    tag = actions.add_parser("tag", parents=[root], help="give an image one more name")
    tag.add_argument("name", metavar="NAME")
    tag.add_argument("new", metavar="NEW")
    tag.set_defaults(act=_tag)
    save = actions.add_parser("save", parents=[root], help="write images into an archive")
    save.add_argument("names", metavar="NAME", nargs="+")
    save.add_argument("-o", "--output", metavar="FILE", help="where to; standard output without it")
    save.add_argument(
        "--format",
        choices=["docker-archive", "oci-archive"],
        default="docker-archive",
        help="docker-archive: what docker load reads; oci-archive: manifests and digests are kept, too",
    )
    save.set_defaults(act=_save)


def _inspect(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    image = client.get("/v1/images/inspect", name=arguments.name)
    if arguments.json:
        print(json.dumps(image, ensure_ascii=False))
        return 0
    config = image["config"]
    rows = [
        ("id", image["id"]),
        ("names", ", ".join(image["names"]) or "<no name>"),
        ("digests", ", ".join(image["digests"])),
        ("manifest", image["manifest"]),
        ("platform", image["platform"]),
        ("created", image["created"]),
        ("size", f"{size(image['size'])} in {count(len(image['layers']), 'layer')}"),
        ("used by", image["used_by"]),
        *((_WORD.sub(" ", key).lower(), _spelled(config[key])) for key in sorted(config)),
    ]
    for name, text in rows:
        if text:
            print(f"{screen.paint('dim', f'{safe(name):<13}')} {safe(text)}")
    return 0


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else ""


def _history(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    steps = client.get("/v1/images/inspect", name=arguments.name)["history"]
    if arguments.json:
        print(json.dumps(steps, ensure_ascii=False))
        return 0
    rows: list[list[str | list[str]]] = [
        [
            step.get("created", "")[:19] or "-",
            size(step["size"]),
            cut(" ".join((step.get("created_by") or step.get("comment") or "-").split()), 400),
        ]
        for step in reversed(steps)
    ]
    heading, *blocks = table([Column("CREATED"), Column("SIZE"), Column("STEP", flexible=True)], rows, screen.width)
    print(screen.paint("dim", heading[0]))
    for block in blocks:
        print("\n".join(block))
    return 0


def _tag(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    image = client.send("POST", "/v1/images/tag", {"name": arguments.name, "new": arguments.new})
    print(f"{image['id'].rpartition(':')[2][:12]} is {', '.join(image['names'])}")
    return 0


def _save(client: Client, screen: Screen, arguments: argparse.Namespace) -> int:
    if not arguments.output and sys.stdout.isatty():
        raise UserError("cannot save to a terminal", code="usage", hint="gorae image save -o FILE NAME")
    body = {"names": arguments.names, "format": arguments.format}
    if not arguments.output:
        _write(client, body, sys.stdout.buffer)
        return 0
    # Whole or not at all: an archive that ends too early would look like one.
    unfinished = f"{arguments.output}.{os.getpid()}.part"
    try:
        with open(unfinished, "xb") as file:  # noqa: PTH123 (pathlib is slow to load)
            _write(client, body, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, arguments.output)  # noqa: PTH105 (the same)
    except OSError as error:
        raise UserError(
            f"cannot write {arguments.output}: {error.strerror}",
            code="file-unwritable",
            hint="check the path and the disk",
        ) from error
    finally:
        if os.path.exists(unfinished):  # noqa: PTH110 (the same)
            os.unlink(unfinished)  # noqa: PTH108 (the same)
    total = os.stat(arguments.output).st_size  # noqa: PTH116 (the same)
    print(f"saved {', '.join(arguments.names)} to {arguments.output}: {size(total)}")
    return 0


def _write(client: Client, body: dict[str, Any], file: Any) -> None:
    with client.stream("POST", "/v1/images/save", body) as stream:
        for document in stream:
            if "data" in document:
                file.write(base64.b64decode(document["data"]))
            elif "result" in document:
                return
    raise Unreachable("cannot save: the daemon ended the connection", code="daemon-away", hint="gorae status")
