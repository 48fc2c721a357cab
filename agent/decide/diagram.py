"""The state diagram and the restart tables of docs/task-model.md, written from the tables of this package, so that they
cannot go stale.

`python -m agent.decide.diagram FILE` writes it between the markers; a test fails when the file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from agent.decide.restart import SAYS, TABLE, UNHEALTHY, Outcome
from agent.decide.states import RESTING, TRANSITIONS

BEGIN, END = "<!-- diagram: begin (generated, see agent/decide/diagram.py) -->", "<!-- diagram: end -->"
RESTARTS_BEGIN = "<!-- restarts: begin (generated, see agent/decide/restart.py) -->"
RESTARTS_END = "<!-- restarts: end -->"


def mermaid() -> str:
    """A mermaid stateDiagram-v2 of every transition, in the table's order."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    for old, edges in TRANSITIONS.items():
        lines.extend(f"    {old} --> {new}: {why.replace(':', ',')}" for new, why in edges.items())
    lines.append("    removed --> [*]")
    return "\n".join(lines)


def table() -> str:
    """Every transition with its reason, for readers without a renderer."""
    rows = ["| from | to | when |", "|---|---|---|"]
    for old, edges in TRANSITIONS.items():
        rows.extend(f"| {old}{' (at rest)' if old in RESTING else ''} | {new} | {why} |" for new, why in edges.items())
    return "\n".join(rows)


def restarts() -> str:
    """Every cell of the restart table, policies that are alike in one column; then x-gorae-on-unhealthy."""
    columns: dict[str, list[str]] = {}
    for condition, cells in TABLE.items():
        alike = next((name for name in columns if TABLE[columns[name][0]] == cells), None)  # type: ignore[index]
        columns.setdefault(alike or condition, []).append(condition)
    rows = [
        f"| what happened | {' | '.join(', '.join(names) for names in columns.values())} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for happened, text in SAYS.items():
        told = [_word(TABLE[names[0]][happened]) for names in columns.values()]  # type: ignore[index]
        rows.append(f"| {text} | {' | '.join(told)} |")
    rows += ["", f"| `x-gorae-on-unhealthy` | {' | '.join(UNHEALTHY)} |", "|---" * (len(UNHEALTHY) + 1) + "|"]
    rows.append(f"| {SAYS['unhealthy']} | {' | '.join(map(_word, UNHEALTHY.values()))} |")
    return "\n".join(rows)


def _word(outcome: Outcome) -> str:
    return {"at-once": "at once", "leave": "as it is"}.get(outcome, outcome)


def replaced(document: str) -> str:
    """`document` with the generated parts made anew; ValueError when it has no markers."""
    drawn = f"```mermaid\n{mermaid()}\n```\n\n{table()}"
    for begin, end, text in ((BEGIN, END, drawn), (RESTARTS_BEGIN, RESTARTS_END, restarts())):
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        if not rest or not after:
            raise ValueError("cannot place the tables: the document has no markers")
        document = f"{before}{begin}\n{text}\n{end}{after}"
    return document


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(replaced(target.read_text()))
