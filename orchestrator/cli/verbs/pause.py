"""Hold containers still, until gorae unpause.

Their processes stop where they are, keep their memory, and are sent no requests; they stay paused, also after a reboot.
Without a word: every service of the stack of the folder.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import acting


def register(parser: argparse.ArgumentParser) -> None:
    acting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    return acting.act(arguments, "pause", "paused")
