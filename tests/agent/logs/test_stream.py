"""One task's files: parts joined, generations read in order, places kept through rotation, tails found from the end."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.logs import k8s
from agent.logs.k8s import Joiner
from agent.logs.stream import Stream, generations

T = "2026-01-02T03:04:05.123456789+00:00"


def texts(stream: Stream) -> list[str]:
    return [record.text for record in stream.read()]


def record(text: str, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"{T} {stream} {tag} {text}\n".encode()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"F a"], ["a"]),
        ([b"P a", b"P b", b"F c"], ["abc"]),
        ([b"P a", b"F "], ["a"]),
        ([b"F "], [""]),
        ([b"F a  b "], ["a  b "]),
        ([b"F \xff\x00"], ["\ufffd\x00"]),
        ([b"P \xe2\x82", b"F \xac"], ["€"]),
        ([b"X a", b"F b"], ["b"]),
    ],
    ids=["whole", "parts", "empty end", "empty", "spaces", "binary", "a character cut in two", "unknown tag"],
)
def test_joining(lines: list[bytes], expected: list[str]) -> None:
    joiner = Joiner()
    made = [joiner.feed(T.encode() + b" stdout " + line) for line in lines]
    assert [each.text for each in made if each is not None] == expected
    assert joiner.rest() == []


def test_streams_are_joined_apart_and_the_rest_is_kept() -> None:
    joiner = Joiner()
    assert joiner.feed(f"{T} stdout P a".encode()) is None
    whole = joiner.feed(f"{T} stderr F e".encode())
    assert whole is not None
    assert (whole.stream, whole.text) == ("stderr", "e")
    assert [each.text for each in joiner.rest()] == ["a"]


def test_time() -> None:
    utc = Joiner().feed(record("x").rstrip(b"\n"))
    east = Joiner().feed(b"2026-01-02T05:34:05.123456789+02:30 stdout F x")
    assert utc is not None
    assert east is not None
    assert utc.at == east.at == pytest.approx(1767323045.123456789)


def test_an_endless_line_comes_in_pieces() -> None:
    joiner = Joiner()
    piece = f"{T} stdout P ".encode() + b"x" * 100_000
    made = [each for each in map(joiner.feed, itertools.repeat(piece, 30)) if each is not None]
    rest = joiner.rest()
    assert sum(len(each.text) for each in [*made, *rest]) == 3_000_000
    assert max(len(each.text) for each in made) <= k8s.LINE_CAP + 100_000


@pytest.mark.parametrize(
    "line", [b"", b"x", b"a b c", b"not-a-time stdout F x", b"\xff\xfe stdout F x", T.encode() + b" stdin F x"]
)
def test_torn_records_are_passed_over(line: bytes) -> None:
    assert Joiner().feed(line) is None


def rotate(path: Path) -> None:
    files = generations(path)
    for older, newer in zip(reversed(files), reversed(files[:-1]), strict=False):
        if newer.exists():
            newer.replace(older)


@given(st.lists(st.sampled_from(["write", "half", "part", "read", "rotate"]), max_size=40))
def test_nothing_is_lost_or_doubled_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """As long as the reader is not more than FILES - 1 rotations behind."""
    path = tmp_path_factory.mktemp("logs") / "1-t.log"
    stream, count, got, behind = Stream(path), itertools.count(), list[str](), 0
    expected: list[str] = []
    for step in steps:
        match step:
            case "write" | "part":
                text = str(next(count))
                with path.open("ab") as file:
                    if step == "part":
                        file.write(record("p", "P"))
                        text = f"p{text}"
                    file.write(record(text[1:] if step == "part" else text))
                expected.append(text)
            case "half":  # what a reader may see in the middle of a write
                text = str(next(count))
                with path.open("ab", buffering=0) as file:
                    whole = record(text)
                    file.write(whole[:20])
                    got += texts(stream)
                    behind = 0
                    file.write(whole[20:])
                expected.append(text)
            case "rotate" if behind < 2 and path.exists():
                rotate(path)
                behind += 1
            case "read":
                got += texts(stream)
                behind = 0
    got += texts(stream)
    stream.close()
    assert got == expected


@pytest.mark.parametrize("limit", [None, 1000], ids=["all that is there", "a part"])
def test_one_read_ends_though_the_writer_never_does(tmp_path: Path, limit: int | None) -> None:
    path = tmp_path / "1-t.log"
    path.write_bytes(record("a") * 100)
    stream = Stream(path)
    with path.open("ab") as file:
        got = 0
        for _ in stream.read(limit):
            file.write(record("b") * 2)
            file.flush()
            got += 1
            if got > 1000:
                break
    assert stream.more == (limit is not None)
    assert got == (100 if limit is None else 1000 // len(record("a")))
    rest = sum(1 for _ in stream.read())
    assert rest == 100 + 2 * got - got
    assert not stream.more
    stream.close()


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(0, 70), st.sets(st.integers(0, 59), max_size=2))
def test_tail_is_the_end_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], wanted: int, cuts: set[int]
) -> None:
    path = tmp_path_factory.mktemp("logs") / "1-t.log"
    for number, size in enumerate(sizes):
        if number in cuts:
            rotate(path)
        with path.open("ab") as file:
            if size % 3 == 0:
                file.write(record("x" * size, "P"))
            file.write(record(f"{number} " + "y" * size * (40 if size % 7 == 0 else 1)))
    stream, whole = Stream(path, tail=wanted), Stream(path)
    found, everything = texts(stream), texts(whole)
    stream.close()
    whole.close()
    assert [t.lstrip("x") for t in found[-wanted:] if wanted] == [t.lstrip("x") for t in everything[-wanted:] if wanted]
    assert len(found) <= wanted
