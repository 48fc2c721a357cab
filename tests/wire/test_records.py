"""conmon's records, bytes for bytes; batches and the places in them."""

from __future__ import annotations

import itertools
import json
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import UserError
from agent.wire.batches import Decoder, Gap, Item, Part, Place, cursor, decode, encode, length, places, told
from agent.wire.records import HEADER, LINE_CAP, Joiner, Line, Mark, mark, record, rows, stamp

T = b"2026-01-02T03:04:05.123456789+00:00"
AT = 1767323045123456789


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"F a"], [b"a"]),
        ([b"P a", b"P b", b"F c"], [b"abc"]),
        ([b"P a", b"F "], [b"a"]),
        ([b"F "], [b""]),
        ([b"F a  b "], [b"a  b "]),
        ([b"F \xff\x00"], [b"\xff\x00"]),
        ([b"P \xe2\x82", b"F \xac"], ["€".encode()]),
        ([b"X a", b"F b"], [b"b"]),
    ],
    ids=["whole", "parts", "empty end", "empty", "spaces", "binary", "a character cut in two", "unknown tag"],
)
def test_joining(lines: list[bytes], expected: list[bytes]) -> None:
    joiner = Joiner()
    found = [joiner.feed(T + b" stdout " + line) for line in lines]
    assert [each.text for each in found if isinstance(each, Line)] == expected
    assert list(joiner.rest()) == []


@pytest.mark.parametrize(
    "text",
    [
        *("t:1:2", "t:1:2:3:4", "t", ":1:2:3", "t:-5:0:0", "t:1:-2:0", "t:1:2:-3", "t: 1:2:3", "t:1_0:2:3"),
        *("t:0x3:2:3", "t:8000000000000000:0:0", "t:1:fffffffffffffffff:0", "t:1:2:A", "t:1::0", "t:1:2:٣"),
    ],
)
def test_what_is_no_place_in_a_log_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="that is no place in a log"):
        places(text)


@given(st.dictionaries(st.text("ab-1", min_size=1, max_size=5), st.tuples(*[st.integers(0, 2**63 - 1)] * 3)))
def test_a_cursor_says_what_it_was_made_of(at: dict[str, tuple[int, int, int]]) -> None:
    wanted = {task: Place(*numbers) for task, numbers in at.items()}
    assert places(cursor(wanted)) == wanted


def test_a_forged_count_of_lines_seen_swallows_none() -> None:
    data = b"".join(record(AT, "stdout", b"%d" % number) for number in range(3))
    decoder = Decoder(after={"t": Place(5, 0, 2)})
    found = decoder.feed([Part("shop", "web", 1, "t", 5, 0, False, data)])
    assert [item.text for _, item in found if isinstance(item, Line)] == [b"0", b"1", b"2"]


def test_streams_are_joined_apart_and_the_rest_is_kept() -> None:
    joiner = Joiner()
    assert joiner.feed(T + b" stdout P a") is None
    assert not joiner.between
    assert joiner.feed(T + b" stderr F e") == Line(AT, "stderr", b"e")
    assert list(joiner.rest()) == [Line(AT, "stdout", b"a")]
    assert joiner.between


@pytest.mark.parametrize("time", [T, b"2026-01-02T05:34:05.123456789+02:30"], ids=["utc", "east"])
def test_time(time: bytes) -> None:
    assert stamp(time) == AT
    assert record(AT, "stdout", b"x") == T + b" stdout F x\n"


def test_an_endless_line_comes_in_pieces_and_ends() -> None:
    joiner = Joiner()
    pieces = [T + b" stdout P " + b"x" * 100_000] * 30 + [T + b" stdout F end", T + b" stdout F next"]
    found = [each for each in map(joiner.feed, pieces) if isinstance(each, Line)]
    assert b"".join(each.text for each in found[:-1]) == b"x" * 3_000_000 + b"end"
    assert [each.partial for each in found] == [True] * (len(found) - 2) + [False, False]
    assert max(len(each.text) for each in found) <= LINE_CAP + 100_000


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"a b c", b"not-a-time stdout F x", b"\xff\xfe stdout F x", T + b" stdin F x", T + b" gorae F x"],
)
def test_torn_records_are_passed_over(line: bytes) -> None:
    assert Joiner().feed(line) is None


def test_an_attempt_is_told_once() -> None:
    joiner = Joiner()
    fed = [joiner.feed(raw[:-1]) for raw in (mark(AT, 1), mark(AT + 1, 1), mark(AT + 2, 2))]
    assert fed == [Mark(AT, 1), None, Mark(AT + 2, 2)]


PIECED = [
    ("stdout", b"a", "P"),
    ("stdout", b"b", "P"),
    ("stdout", b"c"),
    ("stderr", b"x"),
    ("stderr", b"d", "P"),
    ("stderr", b"e"),
]
RAW = st.binary(max_size=40).map(lambda text: text.replace(b"\n", b" ") + b" stdout F ")
RECORDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["stdout", "stderr"]), RAW, st.just("F")),
        st.tuples(st.sampled_from(["stdout", "gorae"]), RAW, st.sampled_from("FFFP")),
        st.tuples(st.just("torn"), RAW, st.just("F")),
    ),
    max_size=12,
)


@given(RECORDS)
def test_the_short_way_is_the_long_way_or_none(parts: list[tuple[str, bytes, str]]) -> None:
    data = b"".join(text + b"\n" if kind == "torn" else record(AT, kind, text, tag) for kind, text, tag in parts)
    joiner = Joiner()
    long = [joiner.feed(raw) for raw in data.split(b"\n")[:-1]]
    short = rows(data)
    if short is not None:
        assert [line[HEADER:-1] for line in short] == [line.text for line in long if isinstance(line, Line)]
        assert joiner.between
    else:
        assert any(kind not in ("stdout", "stderr") or tag == "P" for kind, _, tag in parts)


def test_parts_that_lie_together_go_the_short_way() -> None:
    data = b"".join(record(AT, *each) for each in PIECED)
    assert rows(data) == [
        record(AT, "stdout", b"abc"),
        record(AT, "stderr", b"x"),
        record(AT, "stderr", b"de"),
    ]
    for broken in (data[:-49], record(AT, "stdout", b"a", "P") + record(AT, "stderr", b"b")):
        assert rows(broken + record(AT, "stdout", b"a", "P")) is None


def part(data: bytes, task: str = "t1", offset: int = 0, *, lost: bool = False) -> Part:
    return Part("shop", "web", 1, task, 5, offset, lost, data)


def test_batches_come_back_as_they_were() -> None:
    parts = [part(record(AT, "stdout", b"\xff\0"), "ö"), part(b"", "t2"), part(mark(AT, 3), "t3", 99, lost=True)]
    line, _, data = encode(parts).partition(b"\n")
    head = json.loads(line)["batch"]
    assert length(head) == len(data)
    assert decode(head, data) == parts


def test_places_come_back_as_they_were_and_others_are_refused() -> None:
    found = {"t1": Place(AT, 77, 3), "t2": Place()}
    assert places(cursor(found)) == found
    assert places("") == {}
    for bad in ("t1", "t1:1:2", "t1:x:2:3", "a:b:c:d:e"):
        with pytest.raises(UserError, match="cannot go on after"):
            places(bad)


PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr", "gorae"]), st.sampled_from("FFP"), st.integers(0, 2)), max_size=20
)


@given(PIECES, st.lists(st.booleans(), max_size=20))
def test_who_breaks_off_and_goes_on_sees_each_line_once(pieces: list[tuple[str, str, int]], breaks: list[bool]) -> None:
    """Whatever was open when it broke off: a line of one stream while the other went on."""
    raws = [
        mark(AT + n, n + 1) if stream == "gorae" else record(AT + n, stream, b"%d" % n, tag)
        for n, (stream, tag, _) in enumerate(pieces)
    ]
    whole = Decoder()
    expected = [item for _, item in whole.feed([part(b"".join(raws))])]
    starts = list(itertools.accumulate((len(raw) for raw in raws), initial=0))
    decoder, got, at = Decoder(), list[Item](), 0
    left = deque(breaks)
    while at < len(raws):
        got += [item for _, item in decoder.feed([part(raws[at], offset=starts[at])])]
        at += 1
        if left and left.popleft():
            place = places(cursor(decoder.places))["t1"]
            decoder, at = Decoder(after={"t1": place}), starts.index(place.offset)
    assert [(item.at, getattr(item, "text", None)) for item in got] == [
        (item.at, getattr(item, "text", None)) for item in expected
    ]


def test_lines_of_several_tasks_are_in_order_of_time() -> None:
    one = record(AT, "stdout", b"a") + record(AT + 2, "stdout", b"c")
    found = Decoder().feed([part(one), part(record(AT + 1, "stderr", b"b"), "t2")])
    assert [item.text for _, item in found if isinstance(item, Line)] == [b"a", b"b", b"c"]


def test_what_was_lost_is_told_and_ends_an_open_line() -> None:
    decoder = Decoder()
    assert decoder.feed([part(record(AT, "stdout", b"half", "P"))]) == []
    found = [item for _, item in decoder.feed([part(record(AT + 9, "stdout", b"x"), offset=900, lost=True)])]
    assert found == [Line(AT, "stdout", b"half"), Gap(AT + 9), Line(AT + 9, "stdout", b"x")]


def test_documents() -> None:
    whose = {"stack": "shop", "service": "web", "slot": 1, "task": "t1", "at": AT / 1e9}
    assert told(part(b""), Line(AT, "stderr", b"\xff", True)) == {
        **{"kind": "line", **whose, "stream": "stderr", "text": "\ufffd", "partial": True, "base64": "/w=="}
    }
    assert told(part(b""), Mark(AT, 3)) == {"kind": "attempt", **whose, "attempt": 3}
    assert told(part(b""), Gap(AT)) == {"kind": "gap", **whose}
