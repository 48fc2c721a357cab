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
    found = runs.run(web(), "web-run-1", ["sh"], {"B": "3"}, "app")
    assert (found.service, found.replicas) == ("web-run-1", 1)
    assert (found.container.command, found.container.user) == (("sh",), "app")
    assert found.container.environment == {"A": "1", "B": "3"}
    assert (found.container.ports, found.container.naming.container) == ((), "")
    assert (found.policy.restart, found.policy.healthcheck) == (Restart(condition="no"), Healthcheck(kind="none"))
    assert found.template != web().template
    plain = runs.run(replace(web(), service="web"), "web-run-2", None, {}, None)
    assert plain.container.command == web().container.command and plain.container.user == web().container.user


@pytest.mark.parametrize(
    ("command", "environment", "user", "why"),
    [
        (["a\0b"], {}, None, "command.0 holds a character that no program can be given"),
        (["a", "\ud800"], {}, None, "command.1 holds a character"),
        (None, {"A": "\0"}, None, "environment.A holds a character"),
        (None, {"A\0": ""}, None, "a key of environment holds a character"),
        (None, {"": "x"}, None, "'' is no name of a variable"),
        (None, {"A=B": "x"}, None, "'A=B' is no name of a variable"),
        (None, {}, "\udfff", "user holds a character"),
    ],
)
def test_what_no_program_can_be_given_is_refused(
    command: list[str] | None, environment: dict[str, str], user: str | None, why: str
) -> None:
    with pytest.raises(UserError, match=f"cannot run web: {why}"):
        runs.run(web(), "web-run-1", command, environment, user)
