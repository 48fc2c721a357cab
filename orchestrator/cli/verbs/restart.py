"""Restart services in their containers.

Each container's process is stopped and started again; what it wrote stays, and so does its address.
Without a word: every service of the stack of the folder.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import acting


def register(parser: argparse.ArgumentParser) -> None:
    acting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    return acting.act(arguments, "restart", "restarted")
