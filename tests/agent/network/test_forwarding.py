"""ip_forward is lent, not taken: through crashes, reboots and other instances."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.network.forwarding import Forwarding
from tests.support.netns import Namespace

pytestmark = pytest.mark.host
SYSCTL = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture(autouse=True)
def alone(host: Namespace) -> Namespace:
    return host


def everyone(_: str) -> bool:
    return True


def nobody(_: str) -> bool:
    return False


def value() -> str:
    return SYSCTL.read_text().strip()


@pytest.mark.parametrize("before", ["0", "1"])
def test_it_is_as_before_afterwards(tmp_path: Path, before: str) -> None:
    SYSCTL.write_text(before)
    one = Forwarding("one", tmp_path / "f.json")
    assert [one.require(), one.require()] == [before == "1"] * 2
    assert value() == "1"
    one.release(everyone)
    assert value() == before
    assert not (tmp_path / "f.json").exists()
    one.release(everyone)
    assert value() == before


def test_the_last_instance_puts_it_back(tmp_path: Path) -> None:
    one, two = (Forwarding(name, tmp_path / "f.json") for name in ("one", "two"))
    assert [one.require(), two.require()] == [False, False], "the second sees what was before the first"
    one.release(everyone)
    assert value() == "1"
    two.release(everyone)
    assert value() == "0"


def test_an_instance_that_died_without_a_word_does_not_keep_it(tmp_path: Path) -> None:
    Forwarding("dead", tmp_path / "f.json").require()
    one = Forwarding("one", tmp_path / "f.json")
    assert one.require() is False
    one.release(nobody)
    assert value() == "0"


def test_an_agent_that_died_in_between_still_knows_what_was_before(tmp_path: Path) -> None:
    Forwarding("one", tmp_path / "f.json").require()
    again = Forwarding("one", tmp_path / "f.json")
    assert again.require() is False
    again.release(everyone)
    assert value() == "0"


def test_someone_elses_zero_is_respected(tmp_path: Path) -> None:
    one = Forwarding("one", tmp_path / "f.json")
    one.require()
    SYSCTL.write_text("0")
    one.release(everyone)
    assert value() == "0"


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"boot": "another", "before": "1", "instances": ["one"]})])
def test_a_torn_or_old_registry_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    one = Forwarding("one", tmp_path / "f.json")
    assert one.require() is False
    one.release(everyone)
    assert value() == "0"
