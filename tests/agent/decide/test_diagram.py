"""docs/task-model.md shows the transition table and the restart table as they are."""

from pathlib import Path
from typing import get_args

import pytest

from agent.decide import diagram
from agent.decide.restart import SAYS, TABLE, Condition, Happened
from agent.decide.states import TRANSITIONS
from orchestrator.decide.expand import expand
from orchestrator.decide.plan import Intent, plan
from tests.support.orchestrating import stack

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


def test_every_cell_of_the_restart_table_is_shown() -> None:
    lines = diagram.restarts().splitlines()
    for happened, text in SAYS.items():
        cells = next(line for line in lines if line.startswith(f"| {text} | ")).strip("|").split("|")[1:]
        said = [cell.strip().replace("at once", "at-once").replace("as it is", "leave") for cell in cells]
        assert said == [TABLE[condition][happened] for condition in ("default", "no", "on-failure", "always")]
    assert set(SAYS) == set(get_args(Happened))
    assert "always, unless-stopped" in lines[0]


@pytest.mark.parametrize("condition", TABLE)
@pytest.mark.parametrize("over", ["running", "completed", "failed", "stopped"])
def test_up_does_what_the_table_says(over: str, condition: Condition) -> None:
    """The orchestrator decides what `up` does; the agent's table tells of it."""
    model = stack(web={"image": "web:1", "restart": {"condition": condition}})
    images = {"web:1": "sha256:1"}
    first = plan(expand(model, images), (), Intent(), order=("web",), new_id=lambda: "t1").tasks[0]
    task = first.model_copy(update={"desired": "stopped" if over == "stopped" else "running"})
    rests = {"t1": over} if over in ("completed", "failed") else {}
    again = plan(expand(model, images), (task,), Intent(), order=("web",), new_id=lambda: "t2", over=rests)
    assert (again.actions[0].kind == "start") == (TABLE[condition][f"up-{over}"] == "at-once")  # type: ignore[index]
