"""Commands that run once beside a stack's services."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.kit.errors import UserError
from agent.wire.messages import Healthcheck, Restart
from orchestrator.decide import runs
from orchestrator.decide.expand import Desired
from tests.orchestrator.decide.test_expand import one


def web() -> Desired:
    made: Desired = one(
        environment={"A": "1", "B": "2"},
        ports=[{"target": 80, "published": 8080}],
        naming={"container": "fixed"},
        healthcheck={"test": ["CMD", "x"]},
        restart={"condition": "always"},
    )
    return made


def test_a_run_is_its_service_but_for_what_only_one_can_have() -> None:
    found = runs.run(web(), "web-run-1", runs.Wanted(("sh",), environment={"B": "3"}, user="app"))
    assert (found.service, found.replicas) == ("web-run-1", 1)
    assert (found.container.command, found.container.user) == (("sh",), "app")
    assert found.container.environment == {"A": "1", "B": "3"}
    assert (found.container.ports, found.container.naming.container) == ((), "")
    assert (found.policy.restart, found.policy.healthcheck) == (Restart(condition="no"), Healthcheck(kind="none"))
    assert found.template != web().template
    plain = runs.run(replace(web(), service="web"), "web-run-2", runs.Wanted())
    assert plain.container.command == web().container.command and plain.container.user == web().container.user


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (runs.Wanted(("a\0b",)), "command.0 holds a character that no program can be given"),
        (runs.Wanted(("a", "\ud800")), "command.1 holds a character"),
        (runs.Wanted(environment={"A": "\0"}), "environment.A holds a character"),
        (runs.Wanted(environment={"A\0": ""}), "a key of environment holds a character"),
        (runs.Wanted(environment={"": "x"}), "'' is no name of a variable"),
        (runs.Wanted(environment={"A=B": "x"}), "'A=B' is no name of a variable"),
        (runs.Wanted(user="\udfff"), "user holds a character"),
        (runs.Wanted(entrypoint=("\0",)), "entrypoint.0 holds a character"),
        (runs.Wanted(working_dir="/\0"), "working_dir holds a character"),
    ],
)
def test_what_no_program_can_be_given_is_refused(wanted: runs.Wanted, why: str) -> None:
    with pytest.raises(UserError, match=f"cannot run web: {why}"):
        runs.run(web(), "web-run-1", wanted)


@pytest.mark.parametrize(
    ("wanted", "entrypoint", "command"),
    [
        pytest.param(runs.Wanted(), ("serve",), ("--all",), id="the service's own"),
        pytest.param(runs.Wanted(("--one",)), ("serve",), ("--one",), id="another command"),
        pytest.param(runs.Wanted(entrypoint=("look",)), ("look",), (), id="its command was the other entrypoint's"),
        pytest.param(runs.Wanted(("-x",), entrypoint=("look",)), ("look",), ("-x",), id="both"),
        pytest.param(runs.Wanted(entrypoint=()), (), (), id="none"),
    ],
)
def test_entrypoint_and_command(wanted: runs.Wanted, entrypoint: tuple[str, ...], command: tuple[str, ...]) -> None:
    found = runs.run(one(entrypoint=["serve"], command=["--all"]), "web-run-1", wanted)
    assert (found.container.entrypoint, found.container.command) == (entrypoint, command)


def test_its_terminal_and_input_are_those_of_who_runs_it() -> None:
    service = one(tty=True, stdin_open=True)
    found = runs.run(service, "web-run-1", runs.Wanted(tty=False, stdin=False, attended=True)).container
    assert (found.tty, found.stdin, found.attended, found.once) == (False, False, True, True)
    plain = runs.run(service, "web-run-2", runs.Wanted()).container
    assert (plain.tty, plain.stdin, plain.attended) == (True, True, False)
