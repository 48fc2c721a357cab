"""Which stack and services a command line means. One rule, for every verb:

1. STACK/SERVICE is that service and STACK/ that stack, everywhere. With -p NAME or -f FILE, words are services of
   that stack.
2. In a folder with a Compose file (or below one), a word that names a service of its stack means that service.
3. Else the first word is a stack, and further words are its services.
4. No word: the stack of the folder; a query shows all stacks.

A word that could be both the folder's service and another stack is refused, with both ways to say it. Of the Compose
file only names are wanted here: what up would refuse hinders nobody who looks at, stops or removes what runs.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from importlib import import_module

from agent.kit.errors import UserError
from orchestrator.cli.client import Client

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # as orchestrator/compose/model.py has it
# As orchestrator/compose/files.py has them (a test compares): importing that would load YAML for every status.
FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


def register_files(parser: argparse.ArgumentParser, *, short: bool = True) -> None:
    """`short`: -f is --file here, too."""
    for flags, name, text in (
        (("-f", "--file") if short else ("--file",), "FILE", "a Compose file; may be given again"),
        (("--env-file",), "FILE", "variables for the file, instead of .env"),
        (("--profile",), "NAME", "services with this profile, too; * is every one"),
    ):
        parser.add_argument(*flags, metavar=name, action="append", default=[], help=text)
    parser.add_argument("-p", "--project-name", metavar="NAME", dest="project", help="the name of the stack")
    parser.add_argument("--project-directory", metavar="DIR", help="where relative paths begin, and .env is")


def register_targets(parser: argparse.ArgumentParser, *, services: bool = True) -> None:
    parser.add_argument(
        "targets", metavar="TARGET", nargs="*", help="STACK, STACK/SERVICE or SERVICE…" if services else "STACK"
    )
    register_files(parser)


def load(arguments: argparse.Namespace, **more: object) -> Any:
    """The stack of the Compose files that are meant (orchestrator/compose/load.py, load). Raises ComposeError."""
    return _loader().load(**_meant(arguments), **more)


def read(arguments: argparse.Namespace, **more: object) -> Any:
    """The project of the Compose files that are meant (orchestrator/compose/load.py, read). Raises ComposeError."""
    return _loader().read(**_meant(arguments), **more)


def judged(arguments: argparse.Namespace) -> Any:
    """What read() returns, or None, and what load() would refuse (orchestrator/compose/load.py, judged)."""
    return _loader().judged(**_meant(arguments))


def _loader() -> Any:
    # By name: the contract that keeps pydantic and yaml out of start-up also reads imports inside functions.
    return import_module("orchestrator.compose.load")


def _meant(arguments: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    return {
        "files": [Path(name) for name in arguments.file],
        "environ": os.environ,
        "cwd": Path.cwd(),
        "project": arguments.project,
        "env_files": [Path(name) for name in arguments.env_file],
        "project_directory": Path(arguments.project_directory) if arguments.project_directory else None,
        "profiles": arguments.profile,
    }


def find(arguments: argparse.Namespace, client: Client, *, required: bool) -> tuple[str | None, tuple[str, ...]]:
    """(stack, services); services () means all. (None, ()) only when not `required`: every stack."""
    stack, services = _find(arguments, client, required=required)
    return None if stack is None else checked(stack), services


def one_service(arguments: argparse.Namespace, client: Client) -> tuple[str, str]:
    """(stack, service) of a verb that acts on one."""
    stack, services = find(arguments, client, required=True)
    if stack is not None and len(services) == 1:
        return stack, services[0]
    if services:
        raise UserError("cannot act on more than one service at once", code="usage", hint="one command for each")
    raise UserError(
        f"cannot tell which service is meant: {stack} is taken for a stack, being no service of a Compose file here",
        code="usage",
        hint=f"gorae status shows all; say {stack}/SERVICE",
    )


def checked(stack: str) -> str:
    """It becomes part of a path of the API."""
    if not _NAME.fullmatch(stack):
        raise UserError(
            f"cannot use {stack!r} as the name of a stack: it has small letters, digits, _ and -",
            code="usage",
            hint="gorae ls",
        )
    return stack


def _find(arguments: argparse.Namespace, client: Client, *, required: bool) -> tuple[str | None, tuple[str, ...]]:
    words: Sequence[str] = arguments.targets
    chosen = arguments.project or (str(read(arguments).name) if arguments.file else None)
    if any("/" in word for word in words):
        stack, services = _explicit(words)
        if chosen not in (None, stack):
            raise UserError(
                f"cannot tell which stack is meant: -p or -f says {chosen}, the words say {stack}",
                code="usage",
                hint="say it once",
            )
        return stack, services
    if chosen:
        return str(chosen), tuple(words)
    if not words:
        if not required:
            return None, ()
        if file_here():
            return str(read(arguments).name), ()
        raise UserError(
            "cannot tell which stack is meant: there is no Compose file here", code="usage", hint="name it: gorae ls"
        )
    if file_here():
        stack = read(arguments)
        own = [word for word in words if word in stack.services]
        if own:
            known = {row["name"] for row in client.get("/v1/stacks")["stacks"]} - {stack.name}
            if words[0] in own and words[0] in known:
                raise UserError(
                    f"cannot tell what {words[0]} is: a service of {stack.name} here, and a stack",
                    code="usage",
                    hint=f"say {stack.name}/{words[0]} or {words[0]}/",
                )
            if words[0] in own:
                return str(stack.name), tuple(words)
    return words[0], tuple(words[1:])


def _explicit(words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    stack = next(word.partition("/")[0] for word in words if "/" in word)
    services = []
    for word in words:
        first, slash, service = word.partition("/")
        if "/" in service:
            raise UserError(f"cannot understand {word}", code="usage", hint="a service is STACK/SERVICE")
        if (slash and first != stack) or (not slash and word == stack):
            raise UserError("cannot act on more than one stack at once", code="usage", hint="one command for each")
        if slash and service:
            services.append(service)
        elif not slash:
            services.append(word)
    return stack, tuple(services)


def file_here() -> bool:
    """Whether the search rules would find a Compose file from here."""
    if os.environ.get("COMPOSE_FILE"):
        return True
    folder = os.getcwd()  # noqa: PTH109 (pathlib is slow to load)
    while True:
        if any(os.path.isfile(os.path.join(folder, name)) for name in FILES):  # noqa: PTH113, PTH118 (the same)
            return True
        above = os.path.dirname(folder)  # noqa: PTH120 (the same)
        if above == folder:
            return False
        folder = above
