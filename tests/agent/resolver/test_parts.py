"""The cache's bounds, the order of servers, names read back as they were written."""

from __future__ import annotations

import dns.message
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.decide import zone as written
from agent.resolver import codec
from agent.resolver.cache import LONGEST, LONGEST_NO, Cache
from agent.resolver.servers import SULK, Servers, nameservers
from agent.resolver.zone import Zone, reverse
from tests.agent.decide.make import task


def asked(name: str, *texts: str, code: int = 0, soa: int | None = None) -> tuple[codec.Query, codec.Reply]:
    query = dns.message.make_query(name, "A", id=7)
    made = dns.message.make_response(query)
    made.set_rcode(code)
    for text in texts:
        made.answer.append(dns.rrset.from_text(*text.split(" ", 4)))
    if soa is not None:
        made.authority.append(dns.rrset.from_text("org.", soa, "IN", "SOA", "a. b. 1 2 3 4 5"))
    read = codec.Query(query.to_wire())
    return read, codec.Reply(made.to_wire(), read, 7)


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        (asked("a.org", "a.org. 60 IN A 192.0.2.1"), 60),
        (asked("a.org", "a.org. 86400 IN A 192.0.2.1"), LONGEST),
        (asked("a.org", "a.org. 0 IN A 192.0.2.1"), 0),
        (asked("a.org", code=3, soa=20), 20),
        (asked("a.org", code=3, soa=3600), LONGEST_NO),
        (asked("a.org", soa=3600), LONGEST_NO),
        (asked("a.org", code=3), 0),
        (asked("a.org", code=2, soa=60), 0),
    ],
    ids=[
        "its-time",
        "bounded",
        "never",
        "no-such-name",
        "no-such-name-bounded",
        "no-such-record",
        "no-time",
        "failure",
    ],
)
def test_how_long_an_answer_is_kept(made: tuple[codec.Query, codec.Reply], seconds: int) -> None:
    query, reply = made
    cache = Cache()
    cache.put(query, (), reply, 1000.0)
    assert (cache.get(query, (), 1000.0) is not None) is (seconds > 0)
    assert cache.get(query, ("192.0.2.53",), 1000.0) is None, "another server may say otherwise"
    if seconds:
        assert cache.get(query, (), 1000.0 + seconds - 0.01) is not None
        assert cache.get(query, (), 1000.0 + seconds) is None
        assert (len(cache), cache.size) == (0, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 100)), max_size=60), st.integers(1, 5))
def test_the_cache_stays_within_its_bounds_and_keeps_what_is_used(steps: list[tuple[int, int]], entries: int) -> None:
    cache = Cache(entries, 200)
    recent: list[int] = []
    for number, ttl in steps:
        query, reply = asked(f"n{number}.org", f"n{number}.org. {ttl} IN A 192.0.2.1")
        if cache.get(query, (), 0.0) is None:
            cache.put(query, (), reply, 0.0)
        recent = [n for n in recent if n != number] + [number]
        assert len(cache) <= entries and cache.size <= 200
        assert cache.get(query, (), 0.0) is not None
    kept = [n for n in recent if cache.get(asked(f"n{n}.org")[0], (), 0.0) is not None]
    assert kept == recent[len(recent) - len(kept) :]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", ("192.0.2.1", "fe80::1%eth0")),
        ("; nameserver 1.1.1.1\nnameserver\nnameserver example.org\n", ("127.0.0.1",)),
        ("", ("127.0.0.1",)),
    ],
)
def test_nameservers(text: str, found: tuple[str, ...]) -> None:
    assert nameservers(text) == found


def test_a_server_that_failed_comes_last_for_a_while() -> None:
    servers = Servers("/nonexistent")
    own = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    servers.failed("192.0.2.1", 100.0)
    assert servers.order(own, 101.0) == ["192.0.2.2", "192.0.2.3", "192.0.2.1"]
    assert servers.order(own, 100.0 + SULK) == list(own)
    servers.failed("192.0.2.2", 200.0)
    servers.answered("192.0.2.2")
    assert servers.order(own, 200.0) == list(own)


def test_the_zone_is_read_as_decide_wrote_it() -> None:
    places = [
        written.Place("shop", task("t1", "web", 1), "10.181.0.16"),
        written.Place("shop", task("t2", "web", 2), "10.181.0.17"),
        written.Place("shop", task("t3", "db", 1), "10.181.0.18"),
    ]
    seen = written.sights(places, {("shop", "web"): ("10.181.0.16", "10.181.0.17"), ("shop", "db"): ("10.181.0.18",)})
    read = Zone(written.text(seen))

    def ask(who: str, name: str, kind: int = codec.A) -> bytes | None:
        return read.askers[who].answer(codec.Query(dns.message.make_query(name, kind).to_wire()), 0)

    def found(who: str, name: str) -> set[str]:
        answer = ask(who, name)
        assert answer is not None
        return {str(item) for rrset in dns.message.from_wire(answer).answer for item in rrset}

    assert found("t3", "web") == found("t3", "tasks.web") == {"10.181.0.16", "10.181.0.17"}
    assert found("t1", "web") == {"10.181.0.16"}
    assert found("t1", "tasks.web") == {"10.181.0.16", "10.181.0.17"}
    assert found("t1", "web.shop_default") == {"10.181.0.16", "10.181.0.17"}
    assert found("t1", "shop-db-1") == found("t1", "db") == {"10.181.0.18"}
    answer = ask("t1", reverse("10.181.0.18"), codec.PTR)
    assert answer is not None and str(dns.message.from_wire(answer).answer[0][0]) == "shop-db-1.shop_default."
    assert ask("t1", "elsewhere") is None
