"""What every Runtime does, the fake and crun's alike."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from agent.fakes.runtime import FakeRuntime
from agent.kit.ids import task_id
from agent.ports import Bundle, Process, Runtime, Sandbox
from agent.wire.messages import Resources
from tests.agent.runtime.host import Host, new_root


@dataclass
class Place:
    runtime: Runtime
    sleeper: Callable[..., Bundle]  # runs until it is ended
    quitter: Callable[..., Bundle]  # exits with 3 at once


def fake() -> Place:
    runtime = FakeRuntime()

    def sleeper(task: str | None = None, attempt: int = 1) -> Bundle:
        name = task or task_id()
        root = Path("/nonexistent")
        return Bundle(name, attempt, "shop", "web", root, Sandbox(name, root, root, 0), {}, root)

    def quitter() -> Bundle:
        bundle = sleeper()
        runtime.codes[bundle.task] = 3
        return bundle

    return Place(runtime, sleeper, quitter)


@pytest_asyncio.fixture(params=["fake", pytest.param("crun", marks=pytest.mark.host)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "fake":
        yield fake()
        return
    host = Host(new_root())
    script = "trap 'exit 143' TERM; while :; do sleep 0.02; done"
    try:
        yield Place(
            host.runtime,
            lambda **which: host.bundle("sh", "-c", script, **which),
            lambda: host.bundle("sh", "-c", "exit 3"),
        )
    finally:
        await host.close()


async def test_started_is_listed_with_the_same_identity(place: Place) -> None:
    bundle = place.sleeper(attempt=2)
    process = await place.runtime.start(bundle)
    [found] = await place.runtime.list()
    assert (found.task, found.attempt, found.process, found.exit) == (bundle.task, 2, process, None)


async def test_own_exit(place: Place) -> None:
    bundle = place.quitter()
    process = await place.runtime.start(bundle)
    done = await place.runtime.wait(bundle.task, 1, process)
    assert (done.code, done.signal, done.oom) == (3, None, False)
    [found] = await place.runtime.list()
    assert (found.process, found.exit) == (None, done)


@pytest.mark.parametrize("everyone", [False, True])
async def test_killed(place: Place, everyone: bool) -> None:
    bundle = place.sleeper()
    process = await place.runtime.start(bundle)
    waiting = asyncio.create_task(place.runtime.wait(bundle.task, 1, process))
    await place.runtime.signal(bundle.task, 1, process, signal.SIGKILL, everyone=everyone)
    done = await waiting
    assert (done.code, done.signal) == (137, 9)


async def test_waiting_twice_and_late_gives_the_same(place: Place) -> None:
    bundle = place.quitter()
    process = await place.runtime.start(bundle)
    first = await place.runtime.wait(bundle.task, 1, process)
    assert await place.runtime.wait(bundle.task, 1, process) == first


async def test_wait_can_be_cancelled_and_begun_again(place: Place) -> None:
    bundle = place.sleeper()
    process = await place.runtime.start(bundle)
    waiting = asyncio.create_task(place.runtime.wait(bundle.task, 1, process))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await place.runtime.signal(bundle.task, 1, process, signal.SIGKILL)
    assert (await place.runtime.wait(bundle.task, 1, process)).code == 137


async def test_gone_is_success(place: Place) -> None:
    bundle = place.quitter()
    process = await place.runtime.start(bundle)
    await place.runtime.wait(bundle.task, 1, process)
    await place.runtime.signal(bundle.task, 1, process, signal.SIGTERM)
    for _ in range(2):
        await place.runtime.remove(bundle.task, 1)
    assert list(await place.runtime.list()) == []
    await place.runtime.update(bundle.task, 1, Resources(pids=5))


async def test_remove_ends_what_runs(place: Place) -> None:
    bundle = place.sleeper()
    process = await place.runtime.start(bundle)
    waiting = asyncio.create_task(place.runtime.wait(bundle.task, 1, process))
    await asyncio.sleep(0)
    await place.runtime.remove(bundle.task, 1)
    await waiting
    assert list(await place.runtime.list()) == []


async def test_without_a_monitor_it_is_ended_with_unknown_code(place: Place) -> None:
    bundle = place.sleeper()
    process = await place.runtime.start(bundle)
    if isinstance(place.runtime, FakeRuntime):
        place.runtime.lose_conmon(bundle.task)
    else:
        await place.runtime.signal(bundle.task, 1, Process(process.conmon or 0, ticks(process), None), signal.SIGKILL)
    assert (await place.runtime.wait(bundle.task, 1, process)).code is None
    [found] = await place.runtime.list()
    assert found.process is None


def ticks(process: Process) -> int:
    fields = Path(f"/proc/{process.conmon}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])


async def test_attempts_stand_apart(place: Place) -> None:
    first = place.sleeper()
    second = place.sleeper(task=first.task, attempt=2)
    await place.runtime.start(first)
    await place.runtime.start(second)
    await place.runtime.remove(first.task, 1)
    [found] = await place.runtime.list()
    assert (found.attempt, found.process is None) == (2, False)
