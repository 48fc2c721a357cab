"""What every Logs does, the fake and the files alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from agent.fakes.logs import FakeLogs
from agent.kit.layout import Layout
from agent.logs.logs import FileLogs
from agent.ports import LogFiles, Logs
from agent.wire.batches import Place as At
from agent.wire.records import record
from tests.support.logs import Following, items


class Write(Protocol):
    def __call__(
        self, service: str, slot: int, task: str, text: str, at: float, stream: Literal["stdout", "stderr"] = ...
    ) -> None: ...


class Both(Logs, LogFiles, Protocol):
    pass


@dataclass
class Place:
    """`run`: make an attempt of a task."""

    logs: Both
    write: Write
    run: Callable[[str], object]

    async def files(self) -> list[str]:
        return sorted(f"{file.service}/{file.task}.{file.generation}" for file in await self.logs.files())

    async def texts(self, services: tuple[str, ...] = (), stack: str = "shop", **limits: Any) -> list[str]:
        return [line["text"] for line in await self.lines(services, stack, **limits)]

    async def lines(self, services: tuple[str, ...] = (), stack: str | None = "shop", **limits: Any) -> list[Any]:
        reading = self.logs.read(stack, services, follow=False, **limits)
        return [item async for item in items(reading, limits.get("since"), limits.get("until"))]

    def follow(self, services: tuple[str, ...] = (), **limits: Any) -> Following:
        return Following(self.logs.read("shop", services, follow=True, **limits), limits.get("since"))

    async def rotate(self) -> int:
        self.logs.look_at_all()
        return len(await self.logs.rotate_if_needed(lambda task: 1))


@pytest.fixture(params=["fake", "files"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "fake":
        memory = FakeLogs()

        def remember(
            service: str, slot: int, task: str, text: str, at: float, stream: Literal["stdout", "stderr"] = "stdout"
        ) -> None:
            memory.write("shop", service, slot, task, text, at=at, stream=stream)

        return Place(memory, remember, memory.live.add)
    layout = Layout.at(tmp_path)
    logs = FileLogs(layout)

    def append(service: str, slot: int, task: str, text: str, at: float, stream: str = "stdout") -> None:
        with logs.path("shop", service, slot, task).open("ab") as file:
            file.write(record(round(at * 1e9), stream, text.encode()))

    return Place(logs, append, lambda task: (layout.run_tasks / task / "1").mkdir(parents=True))


@pytest.fixture
def filled(place: Place) -> Place:
    place.write("web", 1, "t1", "one", 10.0)
    place.write("web", 1, "t1", "three", 30.5, "stderr")
    place.write("web", 2, "t2", "two", 20.25)
    place.write("db", 1, "t3", "four", 40.0)
    return place


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({}, ["one", "two", "three", "four"]),
        ({"services": ("web",)}, ["one", "two", "three"]),
        ({"services": ("db", "web")}, ["one", "two", "three", "four"]),
        ({"services": ("none",)}, []),
        ({"services": ("none", "db")}, ["four"]),
        ({"stack": "other"}, []),
        ({"since": 20.25}, ["two", "three", "four"]),
        ({"until": 20.25}, ["one", "two"]),
        ({"since": 15.0, "until": 35.0}, ["two", "three"]),
        ({"tail": 1}, ["two", "three", "four"]),
        ({"tail": 1, "services": ("web",)}, ["two", "three"]),
        ({"tail": 0}, []),
        ({"tail": 99}, ["one", "two", "three", "four"]),
        ({"tail": 1, "until": 20.25}, ["one", "two"]),
        ({"tail": 1, "since": 25.0}, ["three", "four"]),
    ],
    ids=str,
)
async def test_selection_in_time_order(filled: Place, ask: dict[str, Any], expected: list[str]) -> None:
    assert await filled.texts(**ask) == expected


async def test_every_field(filled: Place) -> None:
    whose = {"stack": "shop", "service": "web", "slot": 1, "task": "t1"}
    assert await filled.lines(("web",), since=30.0) == [
        {"kind": "line", **whose, "at": 30.5, "stream": "stderr", "text": "three"}
    ]


async def test_of_one_task_and_of_all_stacks(filled: Place) -> None:
    assert await filled.texts(task="t1") == ["one", "three"]
    assert await filled.texts(stack=None) == ["one", "two", "three", "four"]


async def test_attempts_are_marked_once_each(filled: Place) -> None:
    for attempt in (1, 1, 2):
        filled.logs.begin("shop", "job", 1, "t7", attempt, 50.0 + attempt)
        filled.write("job", 1, "t7", f"in {attempt}", 50.0 + attempt)
    told = [item.get("attempt", item.get("text")) for item in await filled.lines(("job",))]
    assert told == [1, "in 1", "in 1", 2, "in 2"]
    assert await filled.logs.tail("shop", "job", 1, "t7", 2) == ("in 1", "in 2")


async def test_a_reader_that_comes_back_goes_on_where_it_was(filled: Place) -> None:
    places: dict[str, At] = {}
    async for parts in filled.logs.read("shop", (), follow=False, tail=0):
        places |= {part.task: At(part.file, part.offset + len(part.data)) for part in parts}
    assert set(places) == {"t1", "t2", "t3"}
    assert await filled.texts(after=places) == []
    filled.write("web", 1, "t1", "five", 50.0)
    filled.write("web", 3, "t4", "six", 60.0)
    assert await filled.texts(after=places) == ["five", "six"]


async def test_tail_of_one_task(filled: Place) -> None:
    assert await filled.logs.tail("shop", "web", 1, "t1", 5) == ("one", "three")
    assert await filled.logs.tail("shop", "web", 1, "t1", 1) == ("three",)
    assert await filled.logs.tail("shop", "web", 1, "t1", 0) == ()
    assert await filled.logs.tail("shop", "web", 1, "t9", 5) == ()


async def test_remove(filled: Place) -> None:
    for _ in range(2):
        await filled.logs.remove("shop")
    assert await filled.texts() == []


async def test_follow_sees_new_lines_tasks_and_services(filled: Place) -> None:
    reading = filled.follow(since=35.0, tail=1)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("four", lambda: None),
        ("five", lambda: filled.write("web", 1, "t1", "five", 50.0)),
        ("six", lambda: filled.write("web", 3, "t4", "six", 60.0)),
        ("seven", lambda: filled.write("cache", 1, "t5", "seven", 70.0)),
        ("eight", lambda: filled.write("cache", 1, "t5", "eight", 80.0)),
    ]
    for expected, act in steps:
        following = asyncio.ensure_future(reading.next())
        await asyncio.sleep(0)
        act()
        async with asyncio.timeout(5):
            assert await following == expected
    await reading.close()


async def test_follow_one_service_only(filled: Place) -> None:
    reading = filled.follow(("web",), tail=0)
    following = asyncio.ensure_future(reading.next())
    await asyncio.sleep(0)
    filled.write("db", 1, "t3", "not this", 50.0)
    filled.write("web", 1, "t1", "this", 60.0)
    async with asyncio.timeout(5):
        assert await following == "this"
    await reading.close()


async def test_only_what_may_be_written_is_rotated(filled: Place) -> None:
    filled.run("t1")
    assert await filled.rotate() == 1
    assert await filled.files() == ["db/t3.0", "web/t1.1", "web/t2.0"]
    filled.write("web", 1, "t1", "five", 50.0)
    assert await filled.files() == ["db/t3.0", "web/t1.0", "web/t1.1", "web/t2.0"]
    assert await filled.texts(("web",)) == ["one", "two", "three", "five"]


async def test_files_are_known_by_whose_they_are(filled: Place) -> None:
    filled.run("t2")
    found = {file.task: file for file in await filled.logs.files()}
    assert {task for task, file in found.items() if file.live} == {"t2"}
    assert (found["t2"].stack, found["t2"].service, found["t2"].slot) == ("shop", "web", 2)
    assert all(file.size > 0 and file.at > 0 for file in found.values())


async def test_what_is_dropped_is_gone_and_twice_is_once(filled: Place) -> None:
    files = [file for file in await filled.logs.files() if file.service == "web"]
    for _ in range(2):
        assert await filled.logs.drop(files) == files
        assert await filled.files() == ["db/t3.0"]
    assert await filled.texts() == ["four"]


async def test_what_may_be_written_by_now_is_not_dropped(filled: Place) -> None:
    """It began to run between the decision and its execution."""
    files = [file for file in await filled.logs.files() if file.task in ("t1", "t2")]
    filled.run("t1")
    assert [file.task for file in await filled.logs.drop(files)] == ["t2"]
    assert await filled.texts(("web",)) == ["one", "three"]
    await filled.rotate()
    assert await filled.logs.drop(await filled.logs.files()) != []
    assert await filled.texts(("web",)) == ["one", "three"], "nothing newer is there: conmon may still have it open"
