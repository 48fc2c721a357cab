"""Print a completion script for a shell.

bash: gorae completion bash > /etc/bash_completion.d/gorae

zsh:  gorae completion zsh > "${fpath[1]}/_gorae"
"""

from __future__ import annotations

import argparse


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell")


def run(arguments: argparse.Namespace) -> int:
    import shtab

    from orchestrator.cli.reference import full_parser

    print(shtab.complete(full_parser(), shell=arguments.shell))
    return 0
