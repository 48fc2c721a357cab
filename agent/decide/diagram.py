"""The state diagram of docs/task-model.md, written from the transition table, so that it cannot go stale.

`python -m agent.decide.diagram FILE` writes it between the markers; a test fails when the file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from agent.decide.states import RESTING, TRANSITIONS

BEGIN, END = "<!-- diagram: begin (generated, see agent/decide/diagram.py) -->", "<!-- diagram: end -->"


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


def replaced(document: str) -> str:
    """`document` with the generated part made anew; ValueError when it has no markers."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise ValueError("cannot place the diagram: the document has no markers")
    return f"{before}{BEGIN}\n```mermaid\n{mermaid()}\n```\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(replaced(target.read_text()))
