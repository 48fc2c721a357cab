"""Keep a password for a registry, so that its private images can be pulled.

The registry is asked first. The daemon keeps the password in its configuration folder, in a file that root alone can
read; everyone who may use gorae may then pull with it. What docker login and podman login have kept for you is used
as well, for what you pull. Without --password-stdin the password is asked for at the terminal.
"""

from __future__ import annotations

import argparse
import json
import sys

from agent.kit.errors import UserError
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Screen


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", metavar="REGISTRY", nargs="?", help="HOST or HOST:PORT (default: docker.io)")
    parser.add_argument("-u", "--username", metavar="NAME", help="who you are there")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--list", action="store_true", help="show what the daemon has passwords for")
    parser.add_argument("--json", action="store_true", help="with --list: the answer of GET /v1/logins (docs/api.md)")


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.root)
    if arguments.list:
        answer = client.get("/v1/logins")
        if arguments.json:
            print(json.dumps(answer, ensure_ascii=False))
        elif not answer["logins"]:
            print("no passwords; gorae login REGISTRY")
        for registry, user in () if arguments.json else answer["logins"].items():
            print(f"{registry}  {user}")
        return 0
    registry = arguments.registry or "docker.io"
    user = arguments.username or _asked(f"user name for {registry}: ", hidden=False)
    password = sys.stdin.readline() if arguments.password_stdin else _asked(f"password of {user}: ", hidden=True)
    body = {"registry": registry, "user": user, "password": password.rstrip("\r\n")}
    Progress(Screen()).result(client.stream("POST", "/v1/logins", body))
    print(f"logged in to {registry} as {user}")
    return 0


def _asked(prompt: str, *, hidden: bool) -> str:
    if not sys.stdin.isatty():
        raise UserError(
            "cannot ask for the name or the password: this is no terminal",
            code="usage",
            hint="gorae login -u NAME --password-stdin REGISTRY",
        )
    if hidden:
        from getpass import getpass

        return getpass(prompt)
    return input(prompt)
