"""Our few lines of DNS against a whole library: what it makes we read, what we make it reads, and nothing breaks us."""

from __future__ import annotations

import socket

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.resolver import codec

LABEL = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9_])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=6).map(".".join)
KINDS = st.sampled_from([codec.A, codec.AAAA, codec.PTR, 15, 16, 33, 65])


def ask(name: str = "redis", kind: int = codec.A, **options: object) -> bytes:
    return dns.message.make_query(name, dns.rdatatype.RdataType(kind), **options).to_wire()


def reply_to(wire: bytes, *records: str, code: int = 0) -> dns.message.Message:
    made = dns.message.make_response(dns.message.from_wire(wire))
    made.set_rcode(dns.rcode.Rcode(code))
    for record in records:
        section, _, text = record.partition(": ")
        getattr(made, section).append(dns.rrset.from_text(*text.split(" ", 4)))
    return made


@settings(deadline=None)
@given(NAMES, KINDS, st.booleans(), st.integers(0, 65535), st.booleans())
def test_a_query_is_read_as_the_library_wrote_it(name: str, kind: int, edns: bool, size: int, wanted: bool) -> None:
    options = {"use_edns": 0, "payload": size} if edns else {}
    wire = ask(name, kind, want_dnssec=wanted and edns, **options)
    query = codec.Query(wire)
    assert query.refusal == codec.NOERROR
    assert (query.name, query.kind, query.klass) == (name.lower(), kind, codec.IN)
    assert query.edns is edns
    assert query.room == (max(512, min(size, 4096)) if edns else 512)
    assert query.id == dns.message.from_wire(wire).id


@settings(deadline=None)
@given(NAMES, st.lists(st.ip_addresses(v=4).map(str), max_size=60), st.booleans(), st.booleans())
def test_an_answer_is_read_by_the_library_as_it_was_meant(name: str, given: list[str], edns: bool, tcp: bool) -> None:
    wire = ask(name, use_edns=0 if edns else False)
    query = codec.Query(wire)
    records = b"".join(codec.answer(codec.A, socket.inet_aton(address), 7) for address in given)
    made = codec.respond(query, codec.NOERROR, records, len(given), tcp=tcp)
    read = dns.message.from_wire(made)
    assert dns.message.from_wire(wire).is_response(read)
    assert read.id == query.id and read.rcode() == dns.rcode.NOERROR
    assert (read.edns == 0) is edns
    if read.flags & dns.flags.TC:
        assert not tcp and not read.answer and 12 + len(records) > 400
    else:
        found = [str(item) for rrset in read.answer for item in rrset]
        assert sorted(found) == sorted(set(given))
        assert tcp or len(made) <= query.room


@settings(deadline=None)
@given(st.binary(max_size=120))
@example(b"\0" * 12)
@example(ask()[:-1])
@example(b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1")
def test_no_bytes_break_it(raw: bytes) -> None:
    try:
        query = codec.Query(raw)
    except codec.Malformed:
        assert len(raw) < 12 or raw[2] & 0x80
        return
    made = codec.respond(query, query.refusal)
    assert made[:2] == raw[:2] and made[2] & 0x80 and len(made) <= 512


@settings(deadline=None)
@given(st.data())
def test_no_change_of_a_good_message_breaks_it(data: st.DataObject) -> None:
    wire = ask("web.visits_default", use_edns=0)
    answer = reply_to(wire, "answer: web.visits_default. 60 IN A 192.0.2.1", "authority: . 60 IN NS a.example.")
    for whole, read in ((wire, codec.Query), (answer.to_wire(), lambda raw: codec.Reply(raw, codec.Query(wire), 0))):
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        try:
            read(bytes(changed[: data.draw(st.integers(0, len(changed)))]))
        except codec.Malformed:
            pass


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 100000))
def test_ttls_are_found_and_shortened(first: int, second: int, seconds: int) -> None:
    wire = ask("a.example")
    query = codec.Query(wire)
    raw = reply_to(
        wire, f"answer: a.example. {first} IN CNAME b.example.", f"answer: b.example. {second} IN A 192.0.2.1"
    ).to_wire()
    reply = codec.Reply(raw, query, query.id)
    assert reply.ttl() == min(first, second)
    read = dns.message.from_wire(codec.aged(raw, reply.ttl_at, seconds, 77))
    assert read.id == 77
    assert [rrset.ttl for rrset in read.answer] == [max(0, first - seconds), max(0, second - seconds)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda raw: codec.under(raw, 1), "not an answer", id="another id"),
        pytest.param(lambda raw: raw[:2] + b"\1" + raw[3:], "not an answer", id="a query"),
        pytest.param(lambda raw: raw.replace(b"redis", b"radis"), "another question", id="another name"),
        pytest.param(lambda raw: raw[:-3], "beyond the end", id="cut off"),
        pytest.param(lambda raw: raw[:4] + b"\0\0" + raw[6:], "no question", id="no question"),
    ],
)
def test_what_is_no_answer_to_the_query_is_refused(change: object, why: str) -> None:
    wire = codec.under(ask(), 4711)
    raw = reply_to(wire, "answer: redis. 60 IN A 192.0.2.1").to_wire()
    codec.Reply(raw, codec.Query(wire), 4711)
    with pytest.raises(codec.Malformed, match=why):
        codec.Reply(change(raw), codec.Query(wire), 4711)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(ask()[:2] + b"\x28\0" + ask()[4:], codec.NOTIMP, id="an update"),
        pytest.param(ask()[:4] + b"\0\2" + ask()[6:], codec.FORMERR, id="two questions"),
        pytest.param(ask()[:-3], codec.FORMERR, id="half a question"),
    ],
)
def test_what_is_not_asked_well_is_refused_with_a_code(raw: bytes, code: int) -> None:
    query = codec.Query(raw)
    assert query.refusal == code
    assert dns.message.from_wire(codec.respond(query, code)).rcode() == code


def test_a_strange_name_cannot_pass_for_another() -> None:
    """A dot within a label is no dot between labels."""
    wire = dns.message.make_query(dns.name.Name([b"a.b", b"\xe4", b""]), "A").to_wire()
    assert codec.Query(wire).name == "a\\046b.\\228"
