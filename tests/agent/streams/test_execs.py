"""Which container a command is for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from agent.decide.record import TaskRecord
from agent.kit.errors import UserError
from agent.ports import Process
from agent.streams.execs import chosen
from tests.agent.decide.make import record


def made(service: str, slot: int, *, running: bool = True, paused: bool = False) -> TaskRecord:
    process = Process(100 + slot, 7, None) if running else None
    base = record(f"{service}{slot}", service, stack="shop", slot=slot)
    return replace(base, process=process, state="running" if running else "backoff", paused=paused)


class Agent:
    def __init__(self, *found: TaskRecord) -> None:
        self.found = found

    def records(self, stack: str | None = None, services: Collection[str] = ()) -> list[TaskRecord]:
        return [r for r in self.found if r.stack == stack and (not services or r.service in services)]

    def live(self, stack: str | None = None, services: Collection[str] = ()) -> list[TaskRecord]:
        return [r for r in self.records(stack, services) if r.process is not None]


AGENT = Agent(made("web", 3), made("web", 1, running=False), made("web", 2), made("db", 1, paused=True))


@pytest.mark.parametrize(("slot", "expected"), [(None, "web2"), (3, "web3")])
def test_the_first_that_runs_or_the_one_that_is_named(slot: int | None, expected: str) -> None:
    found, process = chosen(AGENT, {"stack": "shop", "service": "web", "slot": slot}, "run a command in")
    assert (found.id, process) == (expected, found.process)


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        pytest.param({"service": "web", "slot": 1}, "nothing-runs", "shop/web.1", id="not running"),
        pytest.param({"service": "web", "slot": 9}, "nothing-runs", "shop/web.9", id="no such slot"),
        pytest.param({"service": "db"}, "paused", "gorae unpause shop/db", id="paused"),
        pytest.param({"service": "wbe"}, "service-unknown", "is it web?", id="near miss"),
        pytest.param({"service": "queue"}, "service-unknown", "there are db, web", id="unknown"),
    ],
)
def test_refusals(request_: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(AGENT, {"stack": "shop", **request_}, "run a command in")
    assert caught.value.code == code
    assert words in f"{caught.value.message} {caught.value.hint}"
