"""Stop services; they stay stopped, also after a reboot.

Each container gets its stop signal, and after its grace period SIGKILL. gorae start starts them again.
Without a word: every service of the stack of the folder.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import acting


def register(parser: argparse.ArgumentParser) -> None:
    acting.register(parser)


def run(arguments: argparse.Namespace) -> int:
    return acting.act(arguments, "stop", "stopped")
