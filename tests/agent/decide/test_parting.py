"""What is said of a task that is not assigned any more."""

from __future__ import annotations

import pytest

from agent.decide.parting import why
from agent.wire.messages import Assignment
from tests.agent.decide.make import task

KEPT = Assignment(store_id="S", stack="shop", generation=3, revision=7, model={"services": {"web": {}, "db": {}}})


@pytest.mark.parametrize(
    ("assignment", "service", "slots", "said"),
    [
        pytest.param(None, "web", (), "no longer assigned", id="nobody knows"),
        pytest.param(
            KEPT.model_copy(update={"removed": True, "model": {}}), "web", (), "the stack is taken down", id="down"
        ),
        pytest.param(KEPT, "web", (1, 2), "another container has its place, by revision 7", id="update"),
        pytest.param(KEPT, "web", (1,), "web is scaled to 1", id="fewer replicas"),
        pytest.param(KEPT, "web", (1, 1, 3), "web is scaled to 2", id="fewer, one of them in an update"),
        pytest.param(KEPT, "web", (), "web is scaled to 0", id="none"),
        pytest.param(KEPT, "cache", (), "there is no cache in revision 7", id="gone from the file"),
    ],
)
def test_why(assignment: Assignment | None, service: str, slots: tuple[int, ...], said: str) -> None:
    mates = [task(f"t{number}", service, slot) for number, slot in enumerate(slots)]
    assert why(assignment, service, 2, mates) == said
