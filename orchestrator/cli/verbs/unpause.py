"""Let paused containers go on.

Without a word: every service of the stack of the folder.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import acting


def register(parser: argparse.ArgumentParser) -> None:
    acting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    return acting.act(arguments, "unpause", "resumed")
