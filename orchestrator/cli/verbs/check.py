"""Say of each key in the Compose files what gorae makes of it: honoured, in its own way or not at all, and why.

The daemon is not asked. Services whose profile is not active are not looked at: --profile '*' is every one. Exit code 1
when gorae up would refuse the files.
"""

from __future__ import annotations

import argparse
import json
import sys

from orchestrator.cli import targets
from orchestrator.cli.render import Column, Screen, count, table, wrap

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from orchestrator.compose.errors import Problem
    from orchestrator.compose.honesty import Finding

# verdict → (colour, the heading of its keys, its part of the summary)
_GROUPS = {
    "refused": ("red", "refused", "refused"),
    "warned": ("yellow", "ignored, with a warning", "ignored with a warning"),
    "differs": ("bold", "honoured in another way than docker compose does", "honoured in another way"),
    "ignored": ("dim", "ignored: it changes nothing", "ignored"),
    "supported": ("green", "honoured", "honoured"),
}


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser)
    parser.add_argument("--all", action="store_true", help="list what is honoured, too; else it is counted")
    parser.add_argument(
        "--json", action="store_true", help="{stack, files, findings, problems, warnings} (docs/compose.md)"
    )


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.compose.errors import ComposeError

    composed, problems = targets.judged(arguments)
    if composed is None:
        if arguments.json:
            _print_json(None, (), problems)
            return 1
        raise ComposeError(problems, code="refused")
    return _told(arguments, composed, problems)


def _told(arguments: argparse.Namespace, composed: Any, problems: Sequence[Problem]) -> int:
    """`problems`: all that `up` would say; those that are findings are told as such."""
    from orchestrator.compose.errors import ComposeError
    from orchestrator.compose.honesty import findings, sentence

    found = sorted(findings(composed.written), key=lambda finding: list(_GROUPS).index(finding.verdict))
    refused = {(finding.mark, sentence(finding)) for finding in found if finding.verdict == "refused"}
    others = [problem for problem in problems if (problem.mark, problem.message) not in refused]
    if arguments.json:
        _print_json(composed, found, others)
        return 1 if problems else 0
    for warning in composed.warnings:
        print(f"note  {warning}", file=sys.stderr)
    screen = Screen()
    _print_table(found, arguments.all, screen)
    numbers = {verdict: sum(finding.verdict == verdict for finding in found) for verdict in _GROUPS}
    told = [f"{numbers[verdict]} {text}" for verdict, (_, _, text) in reversed(_GROUPS.items()) if numbers[verdict]]
    summary = f"stack {composed.name}: {count(len(found), 'key')}" + (f": {', '.join(told)}" if told else "")
    print("\n".join(wrap(summary, screen.width)))
    if others:
        raise ComposeError(others, code="refused")
    return 1 if problems else 0


def _print_table(found: Sequence[Finding], every: bool, screen: Screen) -> None:
    shown = [finding for finding in found if every or finding.verdict != "supported"]
    columns = [Column("PLACE", most=24), Column("KEY", most=36), Column("WHY", flexible=True)]
    rows = [[f"{finding.mark.file}:{finding.mark.line}", _key(finding), finding.why] for finding in shown]
    heading, *blocks = table(columns, rows, screen.width)
    if shown:
        print(screen.paint("dim", heading[0]))
    verdict = ""
    for finding, block in zip(shown, blocks, strict=True):
        if finding.verdict != verdict:
            verdict = finding.verdict
            colour, title, _ = _GROUPS[verdict]
            print(screen.paint(colour, title))
        print("\n".join(block))


def _key(finding: Finding) -> str:
    key = finding.key.removeprefix("services.")
    return f"{key}: {finding.value}" if finding.value else key


def _print_json(composed: Any, found: Sequence[Finding], problems: Sequence[Problem]) -> None:
    document = {
        "stack": composed.name if composed else None,
        "files": [str(path) for path in composed.files] if composed else [],
        "findings": [
            {"verdict": f.verdict, "key": f.key, "value": f.value, "why": f.why, **_place(f.mark)} for f in found
        ],
        "problems": [{"message": p.message, "hint": p.hint, **_place(p.mark)} for p in problems],
        "warnings": list(composed.warnings) if composed else [],
    }
    print(json.dumps(document, ensure_ascii=False))


def _place(mark: Any) -> dict[str, Any]:
    file, line, column = mark or (None, None, None)
    return {"file": file, "line": line, "column": column}
