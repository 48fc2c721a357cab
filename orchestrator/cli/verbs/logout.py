"""Forget the password for a registry.

What docker login or podman login have kept is theirs to forget.
"""

from __future__ import annotations

import argparse

from orchestrator.cli.client import Client


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", metavar="REGISTRY", nargs="?", help="HOST or HOST:PORT (default: docker.io)")


def run(arguments: argparse.Namespace) -> int:
    registry = arguments.registry or "docker.io"
    Client(arguments.root).send("POST", "/v1/logins/remove", {"registry": registry})
    print(f"logged out of {registry}")
    return 0
