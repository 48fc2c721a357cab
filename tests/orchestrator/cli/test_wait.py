"""When a wait is over, what it prints, and with which code it exits."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import Temporary
from orchestrator.cli.main import main
from orchestrator.cli.verbs import wait
from tests.orchestrator.cli.fakes import FakeDaemon, document, service, stack, task

DONE: dict[str, Any] = {"state": "completed", "exit_code": 0}
FAILED: dict[str, Any] = {"state": "failed", "exit_code": 3}


def said(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    return document(stack("shop", *services, **more))


@pytest.mark.parametrize(
    ("known", "over"),
    [
        pytest.param(said(service("job", task(**DONE))), True, id="completed"),
        pytest.param(said(service("job", task(**FAILED))), True, id="failed"),
        pytest.param(said(service("job", task(state="stopped", exit_code=137))), True, id="stopped"),
        pytest.param(said(service("job", task())), False, id="running"),
        pytest.param(said(service("job", task(state="backoff", exit_code=1))), False, id="will be started again"),
        pytest.param(said(service("job", task(1, **DONE), task(2))), False, id="one of two"),
        pytest.param(said(service("job", task(**DONE)), generation=4), False, id="the agent has not seen it all"),
        pytest.param(said(service("job", task(**DONE), state="starting")), False, id="about to start again"),
        pytest.param(said(service("job", task(**DONE), state="unknown")), False, id="the agent is away"),
        pytest.param(said(service("job", task(**DONE)), service("web")), True, id="another one runs"),
    ],
)
def test_when_it_is_over(known: dict[str, Any], over: bool) -> None:
    assert (wait.at_rest(known, "shop", ("job",)) is not None) is over


@pytest.mark.parametrize("known", [document(), said(service("web"))], ids=["stack", "service"])
def test_what_is_gone_is_an_error(known: dict[str, Any]) -> None:
    with pytest.raises(Temporary, match="was removed"):
        wait.at_rest(known, "shop", ("job",))


def test_codes_are_printed_and_the_first_that_is_not_0_is_the_exit_code(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    last = said(service("a", task(**DONE)), service("b", task(1, **FAILED), task(2, **DONE)))
    daemon.answers["GET", "/v1/status"] = last
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [said(service("a"), service("b")), last]
    assert main(["wait", "shop"]) == 3
    assert capsys.readouterr().out == "a.1 0\nb.1 3\nb.2 0\n"
    assert main(["wait", "shop/a"]) == 0
    assert capsys.readouterr().out == "0\n"
    assert main(["wait", "shop/b", "--json"]) == 3
    assert [row["exit_code"] for row in json.loads(capsys.readouterr().out)["tasks"]] == [3, 0]


def test_it_goes_on_after_the_daemon_was_away(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    running, last = said(service("job")), said(service("job", task(**FAILED)))
    daemon.answers["GET", "/v1/status"] = running
    daemon.answers["GET", "/v1/stacks/shop/watch"] = deque([[running], [running], [last]])
    assert main(["wait", "shop/job"]) == 3


def test_without_an_exit_code_it_says_why(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    last = said(service("job", task(state="failed", message="no such command")))
    daemon.answers["GET", "/v1/status"] = daemon.answers["GET", "/v1/stacks/shop/watch"] = last
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [last]
    assert main(["wait", "shop/job"]) == 1
    assert "no such command" in capsys.readouterr().err
