"""A task's name files as text."""

from __future__ import annotations

import ipaddress
from unittest.mock import Mock

import pytest

from agent.decide.hosts import hosts, resolv

LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@pytest.mark.parametrize(
    ("peers", "lines"),
    [
        ({}, ""),
        ({"redis": ("10.181.0.17",)}, "10.181.0.17\tredis\n"),
        (
            {"web": ("10.181.0.20", "10.181.0.16", "10.181.0.9"), "db": ("10.181.0.18",)},
            "10.181.0.18\tdb\n10.181.0.16\tweb\n10.181.0.9\tweb\n10.181.0.20\tweb\n",
        ),
        ({"me": ("10.181.0.99",)}, ""),
        ({"bad name": ("10.0.0.1",), "evil\n1.2.3.4 bank": ("10.0.0.1",), "": ("10.0.0.1",)}, ""),
    ],
    ids=["alone", "one", "own-address-first-then-by-number", "own-hostname-is-not-overruled", "what-is-no-name"],
)
def test_hosts(peers: dict[str, tuple[str, ...]], lines: str) -> None:
    assert hosts("me", "10.181.0.16", peers) == f"{LOCAL}10.181.0.16\tme\n{lines}"


def test_a_task_with_ipv6_has_both_addresses_first() -> None:
    peers = {"web": ("10.181.0.17", "fd67::11", "10.181.0.16", "fd67::10")}
    assert hosts("me", "10.181.0.16", peers, address_6="fd67::10") == (
        f"{LOCAL}10.181.0.16\tme\nfd67::10\tme\n10.181.0.16\tweb\nfd67::10\tweb\n10.181.0.17\tweb\nfd67::11\tweb\n"
    )


def test_the_whole_name_comes_first() -> None:
    """`hostname -f` says the first name of the line its short one is in (gethostbyname(3), h_name)."""
    assert hosts("me", "10.181.0.16", {}, "example.org") == f"{LOCAL}10.181.0.16\tme.example.org me\n"


def test_a_peers_address_is_parsed_once_for_all_who_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred tasks write a hundred lines each whenever one comes or goes."""
    parse = Mock(wraps=ipaddress.ip_address)
    monkeypatch.setattr(ipaddress, "ip_address", parse)
    peers = {f"many{number}": (f"10.9.8.{number}",) for number in range(100)}
    for number, name in enumerate(peers):
        text = hosts(f"{name}-1", f"10.9.8.{number}", peers)
        assert text.count("\n") == 103
    assert parse.call_count == 200


def test_a_peer_with_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not appear to be an IP"):
        hosts("me", "10.181.0.16", {"x": ("1.2.3.4\n6.6.6.6 bank",)})


@pytest.mark.parametrize(
    ("host", "search", "options", "task"),
    [
        ("nameserver 192.0.2.53\n", None, (), "options ndots:0\n"),
        ("search lan\nnameserver 192.0.2.53\n", None, (), "search lan\noptions ndots:0\n"),
        ("search a\ndomain b\n", None, (), "search b\noptions ndots:0\n"),
        ("options edns0 trust-ad\nsearch .\n", None, (), "options edns0 trust-ad ndots:0\n"),
        ("options ndots:2\noptions timeout:1\n", None, (), "options ndots:2 timeout:1\n"),
        ("search lan\n", ("one", "two"), (), "search one two\noptions ndots:0\n"),
        ("search lan\n", (".",), (), "options ndots:0\n"),
        ("search lan\n", (), (), "options ndots:0\n"),
        ("options edns0\n", None, ("ndots:3",), "options ndots:3\n"),
        ("options edns0\n", None, ("rotate",), "options rotate ndots:0\n"),
        ("# nothing\nnameserver\nsearch\n", None, (), "options ndots:0\n"),
        ("", None, (), "options ndots:0\n"),
    ],
    ids=[
        "as-it-is",
        "the-hosts-search-list",
        "the-last-one-counts",
        "systemd-resolved",
        "the-hosts-ndots",
        "a-list-of-its-own",
        "a-dot-is-none",
        "none",
        "ndots-of-its-own",
        "options-of-its-own",
        "malformed",
        "empty",
    ],
)
def test_resolv(host: str, search: tuple[str, ...] | None, options: tuple[str, ...], task: str) -> None:
    assert resolv(host, search, options) == f"nameserver 127.0.0.11\n{task}"
