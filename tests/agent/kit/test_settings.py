from __future__ import annotations

from pathlib import Path

import pytest

from agent.images.layer_writer import Limits
from agent.kit.errors import UserError
from agent.kit.settings import KEYS, default_address, pool, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("[images]", {}),
        ("[images]\nentries = 5", {"images": {"entries": 5}}),
        ('[images]\nunpacked = "3g"\nreserve = "10Mb"', {"images": {"unpacked": 3 << 30, "reserve": 10 << 20}}),
        ('[images]\nunpacked = "17"', {"images": {"unpacked": 17}}),
    ],
    ids=["empty", "no-key", "number", "sizes", "bytes"],
)
def test_what_is_set(tmp_path: Path, text: str, expected: dict[str, dict[str, int]]) -> None:
    file = tmp_path / "gorae.toml"
    file.write_text(text)
    assert read(file) == expected
    Limits(**expected.get("images", {}))


def test_no_file_sets_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "gorae.toml") == {}
    assert pool(tmp_path / "gorae.toml") == "10.181.0.0/16"


def test_a_pool(tmp_path: Path) -> None:
    file = tmp_path / "gorae.toml"
    file.write_text('[network]\npool = "172.20.0.0/16"')
    assert (read(file), pool(file)) == ({}, "172.20.0.0/16")


@pytest.mark.parametrize(
    ("text", "address"),
    [("", ""), ('[publish]\ndefault_address = "127.0.0.1"', "127.0.0.1"), ('[publish]\ndefault_address = ""', "")],
)
def test_where_ports_are_published(tmp_path: Path, text: str, address: str) -> None:
    file = tmp_path / "gorae.toml"
    file.write_text(text)
    assert (read(file), default_address(file)) == ({}, address)


def test_every_key_is_a_limit() -> None:
    Limits(**dict.fromkeys(KEYS["images"], 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[images", "Expected"),
        ("[image]\nentries = 5", r"there is no section \[image\]"),
        ("images = 5", r"there is no section \[images\]"),
        ("[images]\nentry = 5", r"\[images\] has no key entry"),
        ("[images]\nentries = 0", "entries must be a whole number of 1 or more"),
        ("[images]\nentries = true", "entries must be"),
        ("[images]\nentries = 1.5", "entries must be"),
        ('[images]\nunpacked = "5x"', "unpacked must be"),
        ('[images]\nunpacked = "-5g"', "unpacked must be"),
        ('[network]\npool = "10.77.0.0/20"', "pool must be a private /16"),
        ('[network]\npool = "8.8.0.0/16"', "pool must be a private /16"),
        ("[network]\npool = 5", "pool must be a private /16"),
        ('[publish]\ndefault_address = "localhost"', "default_address must be an address of this host"),
        ("[publish]\ndefault_address = 5", "default_address must be an address of this host"),
        ("[publish]\nport = 5", r"\[publish\] has no key port"),
    ],
    ids=[
        "no-toml",
        "section",
        "no-section",
        "key",
        "zero",
        "truth",
        "fraction",
        "unit",
        "negative",
        "small",
        "of the world",
        "no text",
        "a name for an address",
        "a number for an address",
        "no key of ports",
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "gorae.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=why) as caught:
        read(file)
    assert caught.value.code == "bad-settings"
    assert str(file) in caught.value.message
