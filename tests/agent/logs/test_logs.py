"""Files on disk with a real conmon: rotation loses nothing, old tasks' files go, names stay in their directory."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent.decide import log_budget
from agent.kit.errors import Permanent
from agent.kit.layout import Layout
from agent.logs import rotated
from agent.logs.logs import KEPT, FileLogs
from tests.agent.runtime.host import Host
from tests.support.logs import Following, items


async def rotate(logs: FileLogs, at: int) -> int:
    logs.look_at_all()
    return len(await logs.rotate_if_needed(lambda task: at))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
async def test_names_are_one_component(tmp_path: Path, name: str) -> None:
    logs = FileLogs(Layout.at(tmp_path))
    for arguments in ((name, "web", 1, "t1"), ("shop", name, 1, "t1"), ("shop", "web", 1, name)):
        with pytest.raises(Permanent):
            logs.path(*arguments)
    with pytest.raises(Permanent):
        await logs.remove(name)


def test_only_the_newest_ended_tasks_of_a_slot_are_kept(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    logs = FileLogs(layout)
    (layout.run_tasks / "t0").mkdir(parents=True)  # still runs, though the oldest
    for number in range(10):
        path = logs.path("shop", "web", 1, f"t{number}")
        path.touch()
        os.utime(path, (number, number))
    logs.path("shop", "web", 2, "other").touch()
    logs.path("shop", "web", 1, "fresh")
    left = sorted(p.name for p in (layout.logs / "shop" / "web").iterdir())
    assert left == sorted(["1-t0.log", "2-other.log", *(f"1-t{n}.log" for n in range(10 - KEPT, 10))])


async def test_rotation_without_a_conmon_does_not_block(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    logs = FileLogs(layout)
    bundle = layout.run_tasks / "t1" / "1"
    bundle.mkdir(parents=True)
    os.mkfifo(bundle / "ctl")  # nobody reads it
    path = logs.path("shop", "web", 1, "t1")
    for text in ("first line", "second line", "third line", "fourth line"):
        path.write_text(text)
        assert await rotate(logs, 10) == 1
    left = {p.name: p.read_text() for p in path.parent.iterdir()}
    assert left == {
        "1-t1.log.1": "fourth line",
        "1-t1.log.2": "third line",
        "1-t1.log.3": "second line",
        "1-t1.log.4": "first line",
    }
    assert await rotate(logs, 10) == 0


async def test_a_long_tail_of_many_gives_way_to_the_loop(tmp_path: Path) -> None:
    logs = FileLogs(Layout.at(tmp_path))
    for slot in range(1, 9):
        line = b"2026-01-02T03:04:05.678901234+00:00 stdout F y\n"
        logs.path("shop", "web", slot, f"t{slot}").write_bytes(line * 1000)
    reading = logs.read("shop", ("web",), follow=False, tail=900)
    first = asyncio.ensure_future(anext(reading))
    turns = 0
    while not first.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 8 and len(first.result()) == 8
    assert sum(part.data.count(b"\n") for parts in [parts async for parts in reading] for part in parts) == 8 * 900


async def test_a_reader_gives_way_to_the_loop_whatever_a_container_writes(tmp_path: Path) -> None:
    logs = FileLogs(Layout.at(tmp_path))
    path = logs.path("shop", "web", 1, "t1")
    block = b"2026-01-02T03:04:05.678901234+00:00 stdout F y\n" * 2000
    path.write_bytes(block * 50)
    reading = logs.read("shop", ("web",), follow=True)

    async def consume() -> None:
        async for _ in reading:
            pass

    consumer = asyncio.ensure_future(consume())
    turns = 0
    with path.open("ab") as file:
        while turns < 200 and not consumer.done():
            if path.stat().st_size < 32 << 20:
                file.write(block)  # as much as a turn of the reader takes, and more
                file.flush()
            await asyncio.sleep(0)
            turns += 1
    assert turns == 200
    consumer.cancel()
    await asyncio.gather(consumer, return_exceptions=True)


async def test_a_follower_goes_on_when_what_it_reads_is_dropped(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    logs = FileLogs(layout)
    (layout.run_tasks / "t1/1").mkdir(parents=True)
    path = logs.path("shop", "web", 1, "t1")

    def write(*numbers: int) -> None:
        with path.open("a") as file:
            file.writelines(f"2026-01-02T03:04:05.678901234+00:00 stdout F {number}\n" for number in numbers)

    write(1, 2)
    reading = Following(logs.read("shop", (), follow=True))
    assert await reading.next() == "1"
    for number in (3, 4):
        await rotate(logs, 1)
        write(number)
    dropped = await logs.drop(log_budget.expendable(await logs.files()))
    assert [file.generation for file in dropped] == [2, 1]
    assert [await reading.next() for _ in range(2)] == ["2", "gap"], (
        "what it holds is read; that some is gone, it is told"
    )
    write(5)
    assert [await reading.next() for _ in range(2)] == ["4", "5"]
    await reading.close()


@pytest.mark.host
async def test_rotation_loses_no_line(host: Host) -> None:
    """A container writes 60,000 numbered lines while its log is rotated again and again and a follower reads."""
    logs = FileLogs(host.layout)
    bundle = host.bundle(
        "sh", "-c", "for i in 1 2 3; do seq 20000; until [ -e /tmp/$i ]; do sleep 0.02; done; done; echo end"
    )
    log = logs.path("shop", "web", 1, bundle.task)
    assert log == bundle.log
    process = await host.runtime.start(bundle)
    rotated, got = 0, list[str]()
    async for line in items(logs.read("shop", ("web",), follow=True)):
        got.append(line["text"])
        if len(got) % 5000 == 0:
            rotated += await rotate(logs, 100_000)
        if len(got) % 20000 == 0:
            (host.rootfs / "tmp" / str(len(got) // 20000)).touch()
        if line["text"] == "end":
            break
    assert got == [*map(str, range(1, 20001))] * 3 + ["end"]
    assert rotated >= 2
    await host.runtime.wait(bundle.task, 1, process)
    assert (await logs.tail("shop", "web", 1, bundle.task, 2)) == ("20000", "end")


@pytest.mark.host
async def test_a_lost_reopen_message_is_sent_again(host: Host) -> None:
    """We died between the rename and the message: conmon still writes to the old file."""
    logs = FileLogs(host.layout, patience=0.0)
    bundle = host.bundle("sh", "-c", "echo before; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after; sleep 1000")
    await host.runtime.start(bundle)
    await host.says(bundle, "before")
    bundle.log.rename(bundle.log.with_name(bundle.log.name + ".1"))
    reading = Following(logs.read("shop", (), follow=True))
    assert await reading.next() == "before"
    await rotate(logs, 10 << 20)
    (host.rootfs / "tmp/go").touch()
    assert await reading.next() == "after"
    await reading.close()
    assert "after" in bundle.log.read_text()


@pytest.mark.host
async def test_conmon_is_told_once(host: Host) -> None:
    """A second message would have it replace the new file, with what is in it already."""
    logs = FileLogs(host.layout, patience=0.0)
    bundle = host.bundle(
        "sh", "-c", "seq 1000; while [ ! -e /tmp/go ]; do sleep 0.02; done; seq 1001 2000; echo end; sleep 1000"
    )
    process = await host.runtime.start(bundle)
    await host.says(bundle, "F 1000\n")
    assert process.conmon is not None
    os.kill(process.conmon, signal.SIGSTOP)  # slow: it reads no message
    try:
        for _ in range(5):
            await rotate(logs, 100)
    finally:
        os.kill(process.conmon, signal.SIGCONT)
    (host.rootfs / "tmp/go").touch()
    texts = list[str]()
    async for line in items(logs.read("shop", (), follow=True)):
        texts.append(line["text"])
        if line["text"] == "end":
            break
    assert texts == [*map(str, range(1, 2001)), "end"]
    assert list(await logs.tail("shop", "web", 1, bundle.task, 5000)) == texts


@pytest.mark.host
async def test_output_without_a_last_newline(host: Host) -> None:
    logs = FileLogs(host.layout)
    bundle = host.bundle("printf", "no newline")
    process = await host.runtime.start(bundle)
    await host.runtime.wait(bundle.task, 1, process)
    assert await logs.tail("shop", "web", 1, bundle.task, 1) == ("no newline",)


async def test_what_is_put_aside_while_it_is_counted_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = FileLogs(Layout.at(tmp_path))
    newest = logs.path("shop", "web", 1, "t1")
    newest.write_bytes(b"x" * 8192)
    status, moved = rotated._status, []

    def meanwhile(path: Path) -> os.stat_result | None:
        if path == newest and not moved:
            moved.append(newest.replace(newest.with_name(f"{newest.name}.1")))
            newest.touch()
        return status(path)

    monkeypatch.setattr(rotated, "_status", meanwhile)
    found = {file.generation: file.size for file in await logs.files("shop", "web")}
    assert found.keys() == {0, 1} and found[0] == 0 and found[1] >= 8192
