"""Durations, sizes, cores, permission bits, command lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("10s", 10),
        ("1m30s", 90),
        ("1h5m30s20ms", 3930.02),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("2ns", 2e-9),
        ("1d", 86400),
        ("1w2d", 777600),
        ("-5s", -5),
        ("+5s", 5),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "1h30", "1y", "--5s", "- 5s", "1s 5s", "s", "1S", "1m30", "٣s", "9" * 50 + "s"]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"10s, 1m30s or 1\.5h"):
        units.duration(text)


def test_a_span_is_no_less_than_nothing() -> None:
    assert units.span("0s") == 0
    with pytest.raises(ValueError, match="less than nothing"):
        units.span("-5s")


@given(st.integers(0, 10**15))
def test_a_duration_has_one_spelling(microseconds: int) -> None:
    text = units.spelled_duration(microseconds / 1e6)
    assert units.spelled_duration(units.duration(text)) == text


@given(st.integers(0, 9999), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert units.duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("1024", 1024),
        (1024, 1024),
        (2048.0, 2048),
        ("1b", 1),
        ("1k", 1024),
        ("2048KB", 2 * 2**20),
        ("64m", 64 * 2**20),
        ("300M", 300 * 2**20),
        ("1gb", 2**30),
        ("1GiB", 2**30),
        ("1.5g", 1536 * 2**20),
        ("1 g", 2**30),
        ("1t", 2**40),
        ("0", 0),
    ],
)
def test_size(value: str | int | float, size: int) -> None:
    assert units.size(value) == size


@pytest.mark.parametrize("value", ["", "10 potatoes", "-1", -1, "1mi", "1ib", "m", "1  g", "0x10", "9" * 60, 0.5e300])
def test_no_size(value: str | int | float) -> None:
    with pytest.raises(ValueError, match="a size is written as"):
        units.size(value)


def test_a_size_beyond_any_memory() -> None:
    with pytest.raises(ValueError, match="larger than any memory"):
        units.size("9000000p")


@pytest.mark.parametrize(("value", "count"), [("0.5", 0.5), (2, 2.0), (1.5, 1.5), ("0", 0.0)])
def test_cores(value: str | int | float, count: float) -> None:
    assert units.cores(value) == count


@pytest.mark.parametrize("value", ["abc", "", -1, "nan", "inf", 1e9])
def test_no_cores(value: str | int | float) -> None:
    with pytest.raises(ValueError, match="a number of cores"):
        units.cores(value)


@pytest.mark.parametrize(("value", "bits"), [("755", 0o755), ("0755", 0o755), ("0o1777", 0o1777), (493, 0o755)])
def test_octal(value: str | int, bits: int) -> None:
    assert units.octal(value) == bits


@pytest.mark.parametrize("value", ["888", "", "rw", -1, 0o10000, "77777777777777777"])
def test_not_octal(value: str | int) -> None:
    with pytest.raises(ValueError, match="octal"):
        units.octal(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ()),
        ("  ", ()),
        ("a b  --c\n", ("a", "b", "--c")),
        ("sh -c 'echo \"hello\" && exit 3'", ("sh", "-c", 'echo "hello" && exit 3')),
        ('--flag="a b"c', ("--flag=a bc",)),
        ("back\\ slash h\\\\i a\\qb", ("back slash", "h\\i", "aqb")),
        ('"b\\nc" "x\\ty" "d\\"e" \'f\\g\'', ("b\nc", "x\ty", 'd"e', "f\\g")),
        ("a $(b c) `d e` f", ("a", "$(b c)", "`d e`", "f")),
        ("'' \"\"", ("", "")),
        ("a # b", ("a", "#", "b")),
        ("'a;b|c' d\\;e", ("a;b|c", "d;e")),
    ],
)
def test_split(line: str, words: tuple[str, ...]) -> None:
    assert units.split(line) == words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a && b", "'&' needs a shell, and none runs; quote it, or write: sh -c '…'"),
        ("a | b", "'|' needs a shell"),
        ("a > b", "'>' needs a shell"),
        ("a; b", "';' needs a shell"),
        ("a (b) c", "'(' needs a shell, and none runs; quote it"),
        ("a b)", "')' needs a shell"),
        ("a 'b", "it ends inside '"),
        ('a "b', 'it ends inside "'),
        ("a $(b", "it ends inside $("),
        ("a b\\", "it ends inside a backslash"),
    ],
)
def test_not_split(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"needs a shell|it ends inside") as caught:
        units.split(line)
    assert message in str(caught.value)


@given(st.lists(st.text(alphabet="ab '\"\\$`();&|", min_size=1)))
def test_quoted_words_come_back(words: list[str]) -> None:
    line = " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in words)
    assert units.split(line) == tuple(words)


@given(st.text())
def test_any_text_is_understood_or_a_value_error(text: str) -> None:
    for understand in (units.duration, units.size, units.cores, units.octal, units.split):
        try:
            understand(text)
        except ValueError as error:
            assert str(error)
