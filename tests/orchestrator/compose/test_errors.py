"""What a person and a machine get to see of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.kit.errors import UserError, from_document
from orchestrator.compose.errors import BUDGET, MAX_PROBLEMS, ComposeError, Report
from orchestrator.compose.load import load
from orchestrator.compose.nodes import Mark

from .support import write

PLACE = Mark("f", 2, 3)


def raised(report: Report) -> ComposeError:
    with pytest.raises(ComposeError) as caught:
        report.finish()
    return caught.value


def test_one_problem_is_the_error() -> None:
    report = Report()
    report.problem(PLACE, "cannot find it", "look again")
    error = raised(report)
    assert (str(error), error.hint, error.code) == ("f:2:3: cannot find it", "look again", "compose-invalid")


def test_several_problems_are_a_line_each() -> None:
    report = Report()
    report.problem(PLACE, "cannot find it", "look again")
    report.problem(None, "cannot read it")
    error = raised(report)
    assert str(error) == "f:2:3: cannot find it (look again)\ncannot read it"
    assert error.hint == ""


def test_the_error_crosses_a_socket() -> None:
    report = Report()
    report.problem(PLACE, "cannot find it", "look again")
    document = json.loads(json.dumps(raised(report).document()))
    place = {"file": "f", "line": 2, "column": 3, "message": "cannot find it", "hint": "look again"}
    assert document["evidence"] == {"problems": [place]}
    assert isinstance(from_document(document), UserError)


def test_problems_come_in_the_order_of_their_places() -> None:
    report = Report()
    report.problem(None, "cannot find it")
    for place in (Mark("b", 9, 1), Mark("a", 1, 5), Mark("b", 1, 9), Mark("a", 1, 2), Mark("b", 1, 10)):
        report.problem(place, "cannot go on")
    assert [str(problem.mark) for problem in raised(report).problems] == [
        "b:1:9", "b:1:10", "b:9:1", "a:1:2", "a:1:5", "None"
    ]  # fmt: skip


def test_a_problem_is_told_once_and_a_long_one_is_cut() -> None:
    report = Report()
    report.problem(PLACE, "cannot " + "x" * 2000)
    report.problem(PLACE, "cannot " + "x" * 2000)
    (problem,) = raised(report).problems
    assert len(problem.message) == 501


def test_the_list_of_problems_ends() -> None:
    report = Report()
    with pytest.raises(ComposeError) as caught:
        for line in range(MAX_PROBLEMS * 2):
            report.problem(Mark("f", line, 1), "cannot go on")
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert caught.value.problems[-1].message == f"cannot list more than {MAX_PROBLEMS} problems"


def test_the_budget_ends() -> None:
    report = Report()
    report.spend(BUDGET, None)
    with pytest.raises(ComposeError, match="cannot use the files: they grow too large"):
        report.spend(1, None)


def test_no_problem_no_error() -> None:
    Report().finish()


def test_what_is_wrong_is_told_even_when_warnings_came_first(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "version: '3'\nservices: {a: {image: $TAG}}\n"})
    with pytest.raises(ComposeError) as caught:
        load(None, project="p", environ={}, cwd=tmp_path)
    assert str(caught.value) == "compose.yaml:2:12: cannot start the service a: it has no image"
