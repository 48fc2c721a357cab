"""A task's name files as text."""

from __future__ import annotations

import ipaddress
from unittest.mock import Mock

import pytest

from agent.decide.hosts import STUB_NOTE, hosts, nameservers, only_loopback, resolv

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
    ("host", "upstream", "task"),
    [
        ("nameserver 192.0.2.53\nsearch lan\n", "", "nameserver 192.0.2.53\nsearch lan\n"),
        (
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
            "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch lan\n",
            "nameserver 192.0.2.1\nsearch lan\n",
        ),
        ("nameserver 127.0.0.1\noptions ndots:2\n", "", f"{STUB_NOTE}options ndots:2\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", "nameserver 9.9.9.9\n", "nameserver 192.0.2.53\n"),
        ("# nothing\nnameserver\nnameserver example.org\n", "", ""),
        ("", "nameserver 192.0.2.1\n", ""),
    ],
    ids=["as-it-is", "systemd-resolved", "a-stub-without-upstream", "stub-and-real", "malformed", "none"],
)
def test_resolv(host: str, upstream: str, task: str) -> None:
    assert resolv(host, upstream) == task


def test_nameservers_in_order() -> None:
    assert nameservers("nameserver 192.0.2.2\n;nameserver 1.1.1.1\nnameserver ::1\n") == ("192.0.2.2", "::1")
    assert only_loopback("nameserver 127.0.0.53\nnameserver ::1\n")
    assert not only_loopback("")
