"""One task's files: generations read in order, places kept through rotation and found again, tails found from the end."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.logs.reading import Source, batches
from agent.logs.stream import LEAST, Stream, aside, generations
from agent.wire.batches import Decoder, Place
from agent.wire.records import Joiner, Line
from agent.wire.records import record as made

SECOND = 10**9


class Clock:
    """Each record a moment later than the one before: a file is known by the time of its first."""

    def __init__(self) -> None:
        self.at = 1_767_323_045 * SECOND

    def record(self, text: str, tag: str = "F", stream: str = "stdout") -> bytes:
        self.at += 1000
        return made(self.at, stream, text.encode(), tag)


def texts(stream: Stream, joiner: Joiner) -> list[str]:
    found = []
    stream.look()
    while (chunk := stream.read(LEAST)) is not None:
        lines = [joiner.feed(raw) for raw in chunk.data.split(b"\n")]
        found += [line.text.decode() for line in lines if isinstance(line, Line)]
    return found


def rotate(path: Path) -> None:
    for number in range(len(generations(path)), 0, -1):
        aside(path, number - 1).replace(aside(path, number))


@given(st.lists(st.sampled_from(["write", "half", "part", "read", "back", "rotate"]), max_size=40))
def test_nothing_is_lost_or_doubled_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """back: another reader goes on where this one has stopped."""
    path = tmp_path_factory.mktemp("logs") / "1-t.log"
    clock, stream, joiner, count = Clock(), Stream(path), Joiner(), itertools.count()
    got, expected = list[str](), list[str]()
    for step in steps:
        match step:
            case "write" | "part":
                text = str(next(count))
                with path.open("ab") as file:
                    if step == "part":
                        file.write(clock.record("p", "P"))
                        got += texts(stream, joiner)
                    file.write(clock.record(text))
                expected.append(f"p{text}" if step == "part" else text)
            case "half":  # what a reader may see in the middle of a write
                text = str(next(count))
                with path.open("ab", buffering=0) as file:
                    whole = clock.record(text)
                    file.write(whole[:20])
                    got += texts(stream, joiner)
                    file.write(whole[20:])
                expected.append(text)
            case "rotate" if path.exists():
                rotate(path)
            case "read":
                got += texts(stream, joiner)
            case "back":
                place = stream.place()
                stream.close()
                stream = Stream(path)
                stream.look()
                stream.begin_after(place)
    got += texts(stream, joiner)
    stream.close()
    assert got == expected


def test_one_look_ends_though_the_writer_never_does(tmp_path: Path) -> None:
    path, clock = tmp_path / "1-t.log", Clock()
    path.write_bytes(b"".join(clock.record("a") for _ in range(2000)))
    stream, got = Stream(path), 0
    stream.look()
    with path.open("ab") as file:
        while (chunk := stream.read(LEAST)) is not None:
            file.write(clock.record("b") * 1000)
            file.flush()
            got += chunk.data.count(b"\n")
    assert got == 2000
    stream.close()


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(0, 70), st.sets(st.integers(0, 59), max_size=2))
def test_tail_is_the_end_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], wanted: int, cuts: set[int]
) -> None:
    path, clock = tmp_path_factory.mktemp("logs") / "1-t.log", Clock()
    for number, size in enumerate(sizes):
        if number in cuts and path.exists():
            rotate(path)
        with path.open("ab") as file:
            if size % 3 == 0:
                file.write(clock.record("x" * size, "P"))
            if size % 5 == 0:
                file.write(clock.record("attempt 2", stream="gorae"))
            file.write(clock.record(f"{number} " + "y" * size * (2 if size % 7 == 0 else 1)))
    stream, whole = Stream(path), Stream(path)
    stream.look()
    missing = stream.begin_at_tail(wanted)
    found, everything = texts(stream, Joiner()), texts(whole, Joiner())
    stream.close()
    whole.close()
    assert [t.lstrip("x") for t in found] == [t.lstrip("x") for t in everything[len(everything) - len(found) :]]
    assert len(found) == min(wanted, len(sizes))
    assert missing == wanted - len(found)


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 9000)), min_size=1, max_size=60),
    st.sets(st.integers(0, 59), max_size=2),
    st.integers(0, 60000),
    st.integers(0, 60000),
)
def test_since_and_until_leave_out_nothing_that_is_wanted(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, int]], cuts: set[int], since: int, until: int
) -> None:
    path, at, wanted = tmp_path_factory.mktemp("logs") / "1-t.log", SECOND, list[str]()
    for number, (pause, size) in enumerate(lines):
        at += pause
        if number in cuts and path.exists():
            rotate(path)
        with path.open("ab") as file:
            file.write(made(at, "stdout", f"{number} ".encode() + b"z" * size))
        if SECOND + since <= at <= SECOND + until:
            wanted.append(str(number))
    stream, joiner = Stream(path), Joiner()
    stream.look(SECOND + until)
    stream.begin_since(SECOND + since)
    found = []
    while (chunk := stream.read(LEAST)) is not None:
        made_of = [joiner.feed(raw) for raw in chunk.data.split(b"\n")]
        found += [line for line in made_of if isinstance(line, Line)]
    stream.close()
    assert [line.text.split()[0].decode() for line in found if SECOND + since <= line.at] == wanted


def test_a_long_log_is_read_from_about_where_it_is_wanted(tmp_path: Path) -> None:
    path, clock = tmp_path / "1-t.log", Clock()
    path.write_bytes(b"".join(clock.record(f"{n} " + "x" * 100) for n in range(50_000)))
    stream = Stream(path)
    stream.look()
    stream.begin_since(clock.at - 1000)
    assert path.stat().st_size - stream.place().offset < 1 << 16
    stream.close()


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9000)), max_size=30), min_size=1, max_size=5))
def test_batches_are_in_order_of_time_and_whole(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[list[tuple[int, int]]]
) -> None:
    directory = tmp_path_factory.mktemp("logs") / "shop" / "web"
    directory.mkdir(parents=True)
    expected, sources = list[tuple[int, str]](), list[Source]()
    for number, lines in enumerate(tasks):
        at, path = SECOND, directory / f"1-t{number}.log"
        with path.open("wb") as file:
            for index, (pause, size) in enumerate(lines):
                at += pause
                file.write(made(at, "stdout", f"{number}.{index} ".encode() + b"z" * size))
                expected.append((at, f"{number}.{index}"))
        sources.append(Source(path))
        sources[-1].look()
    decoder, found, ends = Decoder(), list[tuple[int, str]](), dict[str, int]()
    for parts in batches(sources):
        for part in parts:
            assert part.offset == ends.get(part.task, 0)
            ends[part.task] = part.offset + len(part.data)
        found += [(item.at, item.text.split()[0].decode()) for _, item in decoder.feed(parts) if isinstance(item, Line)]
    for source in sources:
        source.stream.close()
    assert sorted(found) == sorted(expected)
    assert [at for at, _ in found] == sorted(at for at, _ in found)


def test_what_was_dropped_meanwhile_is_told(tmp_path: Path) -> None:
    path, clock = tmp_path / "1-t.log", Clock()
    path.write_bytes(clock.record("a"))
    stream, joiner = Stream(path), Joiner()
    assert texts(stream, joiner) == ["a"]
    place = stream.place()
    for text in ("b", "c"):
        rotate(path)
        path.write_bytes(clock.record(text))
    stream.forget(2)  # the one it holds
    assert not stream.lost
    stream.forget(1)
    aside(path, 1).unlink()
    stream.look()
    chunk = stream.read(LEAST)
    assert chunk is not None and chunk.lost and chunk.data.endswith(b" c\n")
    stream.close()
    aside(path, 2).unlink()
    back = Stream(path)
    back.look()
    back.begin_after(place)
    chunk = back.read(LEAST)
    assert chunk is not None and chunk.lost and chunk.offset == 0
    back.close()


def test_a_place_beyond_the_end_loses_nothing_in_silence(tmp_path: Path) -> None:
    path, clock = tmp_path / "1-t.log", Clock()
    path.write_bytes(clock.record("a") + clock.record("b"))
    stream = Stream(path)
    stream.look()
    stream.read(LEAST)
    name, end, _ = stream.place()
    for offset, lost, text in ((end, False, None), (end + 1, True, b" a\n"), (2**62, True, b" a\n")):
        back = Stream(path)
        back.look()
        back.begin_after(Place(name, offset))
        chunk = back.read(LEAST)
        if text is None:
            assert chunk is None
        else:
            assert chunk is not None and chunk.lost == lost and text in chunk.data
        back.close()
    stream.close()
