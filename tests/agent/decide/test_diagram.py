"""docs/task-model.md shows the transition table as it is."""

from pathlib import Path

import pytest

from agent.decide import diagram
from agent.decide.restart import TABLE
from agent.decide.states import TRANSITIONS

DOCUMENT = Path(__file__).parents[3] / "docs" / "task-model.md"


def test_document_is_current() -> None:
    text = DOCUMENT.read_text()
    assert diagram.replaced(text) == text, "run: python -m agent.decide.diagram docs/task-model.md"


def test_every_transition_is_drawn() -> None:
    lines = diagram.mermaid().splitlines()
    assert len(lines) == 3 + sum(len(edges) for edges in TRANSITIONS.values())
    assert "    running --> stopping: user, update, removal, restart request or failed health check" in lines


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        diagram.replaced("# nothing here")


ROWS = {
    "exit 0": "exit-0",
    "exit ≠ 0, killed, out of memory": "oom",
    "health check failed": "unhealthy",
    "monitor (conmon) lost": "conmon-lost",
    "the host was rebooted": "host-rebooted",
    "restart asked for": "restart-request",
    "stopped by the user": "user-stop",
    "the agent was restarted": "agent-restart",
}


@pytest.mark.parametrize("row", ROWS)
def test_the_restart_table_is_current(row: str) -> None:
    cells = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {row} |"))
    said = [cell.strip().replace(" ", "-").replace("runs-on", "leave") for cell in cells.strip("|").split("|")[1:]]
    columns = ("default", "no", "on-failure", "always")
    assert said == [TABLE[condition][ROWS[row]] for condition in columns]  # type: ignore[index]
