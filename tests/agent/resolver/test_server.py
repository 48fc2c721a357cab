"""What a task is answered, over real sockets: its own names, the outside's, and what is refused."""

from __future__ import annotations

import socket
import threading
import time

import dns.flags
import dns.message
import dns.query
import dns.rrset
import pytest

from agent.resolver import forward, server
from tests.agent.resolver.conftest import PATIENCE, Bench, records

NAMES = {
    "redis": ["10.181.0.17"],
    "many": [f"10.181.1.{n}" for n in range(60)],
    "six": ["fd00::1", "10.181.0.18"],
    "nobody": [],
    "web.visits_default": ["10.181.0.16", "10.181.0.20"],
}


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("redis", "A", ["10.181.0.17"]),
        ("redis.", "A", ["10.181.0.17"]),
        ("ReDiS", "A", ["10.181.0.17"]),
        ("redis", "AAAA", "NODATA"),
        ("redis", "MX", "NODATA"),
        ("redis", "HTTPS", "NODATA"),
        ("redis", "ANY", ["10.181.0.17"]),
        ("six", "AAAA", ["fd00::1"]),
        ("six", "A", ["10.181.0.18"]),
        ("nobody", "A", "NODATA"),
        ("17.0.181.10.in-addr.arpa", "PTR", ["redis."]),
        ("17.0.181.10.in-addr.arpa", "A", "NODATA"),
        (f"1.{'0.' * 27}0.0.d.f.ip6.arpa", "PTR", ["six."]),
        ("example.org", "A", ["192.0.2.80"]),
        ("own", "A", ["10.181.0.16"]),
    ],
)
def test_look_ups(bench: Bench, name: str, kind: str, found: list[str] | str) -> None:
    bench.zone(NAMES, web={"own": {"own": ["10.181.0.16"]}})
    for tcp in (False, True):
        assert bench.look_up(name, kind, tcp=tcp) == found
    outside = name == "example.org"
    assert bool(bench.outside.asked) is outside, "what is ours is never asked of the world"


def test_own_names_come_before_the_networks(bench: Bench) -> None:
    bench.zone(NAMES, web={"own": {"redis": ["10.181.9.9"]}})
    assert bench.look_up("redis") == ["10.181.9.9"]


def test_each_task_sees_its_own_view(bench: Bench) -> None:
    bench.task("other")
    bench.zone(NAMES, web={}, other={"own": {"redis": ["10.181.7.7"]}})
    assert (bench.look_up("redis", task="web"), bench.look_up("redis", task="other")) == (
        ["10.181.0.17"],
        ["10.181.7.7"],
    )


def test_several_addresses_come_in_turn(bench: Bench) -> None:
    bench.zone(NAMES, web={})
    firsts = {bench.look_up("web.visits_default")[0] for _ in range(4)}
    assert firsts == {"10.181.0.16", "10.181.0.20"}


def test_what_is_too_long_for_udp_comes_over_tcp(bench: Bench) -> None:
    bench.zone(NAMES, web={})
    assert bench.ask("many").flags & dns.flags.TC
    assert len(bench.look_up("many", use_edns=0, payload=1232)) == 60
    query = dns.message.make_query("many", "A")
    address, port = bench.addresses["web"]
    answer, by_tcp = dns.query.udp_with_fallback(query, address, PATIENCE, port)
    assert by_tcp and len(answer.answer[0]) == 60


def test_a_task_of_internal_networks_learns_nothing_of_the_world(bench: Bench) -> None:
    """Nor can it tell the world anything: a name that is looked up is a message."""
    bench.zone(NAMES, web={"outside": False})
    assert bench.look_up("example.org") == "NXDOMAIN"
    assert bench.look_up("redis") == ["10.181.0.17"]
    assert not bench.outside.asked


def test_a_task_without_a_place_in_the_zone_asks_the_world(bench: Bench) -> None:
    assert bench.look_up("example.org") == ["192.0.2.80"]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_the_outside_is_asked_over_the_same_under_another_id_and_port(bench: Bench, tcp: bool) -> None:
    bench.outside.answer = records(code=3)  # kept for no time
    for _ in range(8):
        assert bench.look_up("example.org", tcp=tcp) == "NXDOMAIN"
    over, ports, queries = zip(*bench.outside.asked, strict=True)
    assert set(over) == {"tcp" if tcp else "udp"}
    assert len({query.id for query in queries}) > 6 and len(set(ports)) > 6


def test_the_outsides_answers_are_kept_for_their_time(bench: Bench) -> None:
    bench.outside.answer = records("example.org. 1 IN A 192.0.2.80")
    for _ in range(5):
        assert bench.look_up("example.org", use_edns=0) == ["192.0.2.80"]
    assert len(bench.outside.asked) == 1
    bench.outside.answer = records("example.org. 60 IN A 192.0.2.81")
    deadline = time.monotonic() + PATIENCE
    while bench.look_up("example.org", use_edns=0) != ["192.0.2.81"]:
        assert time.monotonic() < deadline
    assert len(bench.outside.asked) == 2


@pytest.mark.parametrize("how", ["closed", "silent", "servfail", "refused", "rubbish"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_the_next_server_is_asked_when_one_does_not_answer(bench: Bench, how: str, tcp: bool) -> None:
    second = bench.another("127.0.0.2")
    second.answer = records("example.org. 60 IN A 192.0.2.82")
    bench.resolv.write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    match how:
        case "closed":
            bench.outside.close()
        case "silent":
            bench.outside.answer = lambda query: None
        case "servfail":
            bench.outside.answer = records(code=2)
        case "refused":
            bench.outside.answer = records(code=5)
        case "rubbish":
            bench.outside.answer = lambda query: b"\0" * 20
    assert bench.look_up("example.org", tcp=tcp) == ["192.0.2.82"]
    asked = len(bench.outside.asked)
    assert bench.look_up("www.example.org", tcp=tcp) == ["192.0.2.82"]
    assert len(bench.outside.asked) == asked, "one that failed is asked last for a while"


def test_all_servers_away_is_a_failure_and_not_silence(bench: Bench) -> None:
    bench.outside.close()
    assert bench.look_up("example.org") == "SERVFAIL"
    assert bench.inside(lambda: (bench.forwarder.total, bench.forwarder.under_way)) == (0, {})


def test_a_lost_datagram_is_sent_again(bench: Bench) -> None:
    bench.outside.answer = lambda query: (
        None if len(bench.outside.asked) == 1 else records("example.org. 1 IN A 192.0.2.80")(query)
    )
    assert bench.look_up("example.org") == ["192.0.2.80"]


def test_a_forged_answer_is_not_taken(bench: Bench) -> None:
    """Right port, wrong id or wrong question, before the true one."""

    def answer(query: dns.message.Message) -> None:
        client = ("127.0.0.1", bench.outside.asked[-1][1])
        forged = records("example.org. 60 IN A 203.0.113.66")
        for made in (forged(dns.message.make_query("example.com", "A", id=query.id)), forged(query)):
            if made.question == query.question:
                made.id = query.id ^ 1
            bench.outside.udp.sendto(made.to_wire(), client)
        bench.outside.udp.sendto(records("example.org. 60 IN A 192.0.2.80")(query).to_wire(), client)

    bench.outside.answer = answer
    assert bench.look_up("example.org") == ["192.0.2.80"]


def test_the_hosts_file_is_read_again_when_it_changes(bench: Bench) -> None:
    second = bench.another("127.0.0.2")
    second.answer = records("example.org. 60 IN A 192.0.2.82")
    assert bench.look_up("a.example.org") == ["192.0.2.80"]
    bench.resolv.write_text("nameserver 127.0.0.2\n")
    deadline = time.monotonic() + PATIENCE
    while not second.asked:
        assert time.monotonic() < deadline
        bench.look_up(f"n{time.monotonic_ns()}.example.org")


def test_a_tasks_own_servers_are_asked_instead_and_their_answers_kept_apart(bench: Bench) -> None:
    second = bench.another("127.0.0.2")
    second.answer = records("example.org. 60 IN A 192.0.2.82")
    bench.task("other")
    bench.zone({}, other={"servers": ["127.0.0.2"]}, web={})
    for _ in range(2):
        assert bench.look_up("example.org", task="other", use_edns=0) == ["192.0.2.82"]
        assert bench.look_up("example.org", task="web", use_edns=0) == ["192.0.2.80"]
    assert (len(second.asked), len(bench.outside.asked)) == (1, 1)


def test_one_task_cannot_take_all_there_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "AT_ONCE_EACH", 3)
    bench.forwarder.step = PATIENCE
    bench.task("other")
    bench.zone(NAMES, web={}, other={})
    answers, speaks = bench.outside.answer, threading.Event()
    bench.outside.answer = lambda query: answers(query) if speaks.wait(PATIENCE) else None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
        greedy.connect(bench.addresses["web"])
        greedy.settimeout(PATIENCE)
        for number in range(5):
            greedy.send(dns.message.make_query(f"n{number}.example.org", "A").to_wire())
        codes = [dns.message.from_wire(greedy.recv(512)).rcode() for _ in range(2)]
        assert codes == [2, 2]
        assert bench.look_up("redis") == ["10.181.0.17"]
        speaks.set()
        assert bench.look_up("example.org", task="other") == ["192.0.2.80"]


def test_connections_are_bounded(bench: Bench) -> None:
    bench.zone(NAMES, web={})
    held = [socket.create_connection(bench.addresses["web"]) for _ in range(server.CONNECTIONS + 4)]
    assert bench.look_up("redis", tcp=True) == ["10.181.0.17"]
    assert bench.inside(lambda: len(bench.server.tasks["web"].clients)) <= server.CONNECTIONS
    for each in held:
        each.close()


@pytest.mark.parametrize(
    "sent",
    [b"\xff\xff", b"\x20\0" + b"x" * 9, b"\0\0", b"\0\x05short"],
    ids=["announces 64 KiB", "announces 8 KiB", "announces nothing", "shorter than a header"],
)
def test_a_connection_that_talks_nonsense_is_closed(bench: Bench, sent: bytes) -> None:
    with socket.create_connection(bench.addresses["web"], PATIENCE) as talker:
        talker.sendall(sent)
        assert talker.recv(10) == b""


def test_queries_of_one_connection_may_come_in_pieces_and_together(bench: Bench) -> None:
    bench.zone(NAMES, web={})
    wires = [
        dns.message.make_query(name, "A", id=n).to_wire() for n, name in enumerate(["redis", "example.org", "six"])
    ]
    stream = b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires)
    with socket.create_connection(bench.addresses["web"], PATIENCE) as talker:
        for at in range(0, len(stream), 7):
            talker.sendall(stream[at : at + 7])
        read = talker.makefile("rb")
        ids = {dns.message.from_wire(read.read(int.from_bytes(read.read(2), "big"))).id for _ in wires}
    assert ids == {0, 1, 2}


def test_a_dropped_task_hears_no_more_and_its_late_answer_harms_nobody(bench: Bench) -> None:
    waiting = threading.Event()

    def answer(query: dns.message.Message) -> dns.message.Message:
        waiting.wait(PATIENCE)
        return records("example.org. 60 IN A 192.0.2.80")(query)

    bench.outside.answer = answer
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(bench.addresses["web"])
        client.send(dns.message.make_query("example.org", "A").to_wire())
        bench.task("other")
        deadline = time.monotonic() + PATIENCE
        while not bench.outside.asked:
            assert time.monotonic() < deadline
        bench.inside(lambda: bench.server.drop("web"))
        waiting.set()
        bench.zone(NAMES, other={})
        assert bench.look_up("redis", task="other") == ["10.181.0.17"]
        assert bench.look_up("example.org", task="other") == ["192.0.2.80"]
    assert bench.inside(lambda: bench.forwarder.total) == 0
