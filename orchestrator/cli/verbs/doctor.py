"""Check this host, and say what to mend.

One line per check; below a bad one, its cure. Exit code 1 when something is bad. As root it sees more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from agent.kit.errors import UserError
from orchestrator.cli import checks
from orchestrator.cli.render import Screen, wrap

_COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}
_INDENT = 23


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fix", action="store_true", help="apply the cures that are safe, and say what was done")
    parser.add_argument("--json", action="store_true", help='{"findings": [{state, what, text, cure}]}')


def run(arguments: argparse.Namespace) -> int:
    findings = _look(arguments.root)
    if arguments.fix:
        if os.geteuid() != 0:
            raise UserError("cannot mend the host: that needs root", code="not-root", hint="sudo gorae doctor --fix")
        done = []
        for name in sorted({finding.fix for finding in findings if finding.fix}):
            try:
                done += checks.FIXES[name]()
            except OSError as error:
                raise UserError(
                    f"cannot mend {name}: {error}", code="fix-failed", hint="gorae doctor names the commands"
                ) from error
        print("\n".join(done) or "nothing that --fix could mend", file=sys.stderr)
        findings = _look(arguments.root)
    if arguments.json:
        keys = ("state", "what", "text", "cure")
        print(json.dumps({"findings": [{key: getattr(finding, key) for key in keys} for finding in findings]}))
    else:
        screen = Screen()
        for finding in findings:
            _print(finding, screen)
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _look(root: str | None) -> list[checks.Finding]:
    return [
        *checks.kernel(),
        *checks.cgroup(),
        *checks.programs(),
        *checks.users(),
        *checks.disks(root),
        *checks.daemons(root),
        *checks.names(root),
        *checks.network(root),
        *checks.pools(root),
    ]


def _print(finding: checks.Finding, screen: Screen) -> None:
    first, *more = wrap(finding.text, screen.width - _INDENT)
    mark = screen.paint(_COLOURS[finding.state], f"{finding.state:<5}")
    print(f"{mark} {finding.what:<16} {first}")
    for line in more:
        print(" " * _INDENT + line)
    if finding.cure and finding.state != "ok":
        cure, *rest = wrap(finding.cure, screen.width - _INDENT - 5)
        print(" " * _INDENT + f"try  {cure}")
        for line in rest:
            print(" " * (_INDENT + 5) + line)
