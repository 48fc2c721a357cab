"""What exec and attach read of a command line, and the keys that leave."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import UserError
from orchestrator.cli import conversing, terminal
from orchestrator.cli.terminal import DETACH_KEYS, Ended, Keys
from orchestrator.cli.verbs import exec as verb


@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_keys_are_found_however_they_come(data: bytes, cuts: list[int]) -> None:
    keys, passed, left = Keys(DETACH_KEYS), b"", False
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for a, b in itertools.pairwise(places):
        if not left:
            more, left = keys.feed(data[a:b])
            passed += more
    sequence = b"\x10\x11"
    if sequence in data:
        assert (passed, left) == (data[: data.index(sequence)], True)
    else:
        assert not left
        assert passed == (data[:-1] if data.endswith(b"\x10") else data)


@pytest.mark.parametrize(
    ("text", "typed", "passed", "left"),
    [
        pytest.param("ctrl-x,x", b"a\x18x", b"a", True, id="control and a letter"),
        pytest.param("ctrl-x,x", b"\x18\x18x", b"\x18", True, id="begun twice"),
        pytest.param("q", b"abq", b"ab", True, id="one letter"),
        pytest.param("ctrl-@", b"a\0", b"a", True, id="zero byte"),
        pytest.param("", b"\x10\x11", b"\x10\x11", False, id="none"),
    ],
)
def test_other_keys(text: str, typed: bytes, passed: bytes, left: bool) -> None:
    assert Keys(text).feed(typed) == (passed, left)


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-é", "ab", "ctrl-p,,", "é"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(UserError):
        Keys(text)


def test_a_variable_without_a_value_is_taken_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1=2")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert verb.variables(["HERE", "A=b=c", "B=", "NOT_SET"]) == {"HERE": "1=2", "A": "b=c", "B": ""}


@pytest.mark.parametrize("asked", [None, False])
def test_without_a_terminal_there_is_none(asked: bool | None) -> None:
    assert conversing.wants_terminal(asked) is False  # pytest's stdin is none


def test_a_terminal_that_is_asked_for_and_not_there() -> None:
    with pytest.raises(UserError) as caught:
        conversing.wants_terminal(True)
    assert caught.value.code == "no-terminal"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_by_way_of_what_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Ended) as caught, terminal.ending():
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 5)
    assert caught.value.number == number
    assert signal.getsignal(number) == before


def test_it_starts_without_anything_heavy() -> None:
    code = "import sys, orchestrator.cli.verbs.exec, orchestrator.cli.conversing; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)}
    )
    assert not {"asyncio", "pydantic", "typing", "dataclasses", "pathlib", "yaml", "http", "ssl"} & set(
        done.stdout.split()
    )
