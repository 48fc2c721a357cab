"""05-services.md, ports and expose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose.model import Service
from orchestrator.compose.ports import exposed, parse

from .support import problems, service


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3000", [(3000, "", "tcp", "")]),
        ("3000-3001", [(3000, "", "tcp", ""), (3001, "", "tcp", "")]),
        ("8000:80", [(80, "8000", "tcp", "")]),
        ("9090-9091:8080-8081", [(8080, "9090", "tcp", ""), (8081, "9091", "tcp", "")]),
        ("8000-8005:80", [(80, "8000-8005", "tcp", "")]),
        ("127.0.0.1:8001:80", [(80, "8001", "tcp", "127.0.0.1")]),
        ("127.0.0.1::80", [(80, "", "tcp", "127.0.0.1")]),
        ("[::1]:6001:80", [(80, "6001", "tcp", "::1")]),
        ("::1:6001:80", [(80, "6001", "tcp", "::1")]),
        ("53:53/UDP", [(53, "53", "udp", "")]),
        ("80:80/sctp", [(80, "80", "sctp", "")]),
        ("80/", [(80, "", "tcp", "")]),
        ("0:80", [(80, "0", "tcp", "")]),
        (":80", [(80, "", "tcp", "")]),
    ],
)
def test_short(text: str, found: list[tuple[int, str, str, str]]) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the container's port is missing"),
        ("80:", "the container's port is missing"),
        ("0", "'0' is no port: 1 to 65535, or a range as 8000-8010"),
        ("70000:80", "'70000' is no port"),
        ("90-80", "'90-80' is no port"),
        ("http", "'http' is no port"),
        ("80:80/icmp", "the protocol 'icmp' is unknown; tcp, udp and sctp are known"),
        ("1.2.3:80:80", "'1.2.3' is no IP address of the host"),
        ("127.0.0.1:80", "'127.0.0.1' is no port"),
        ("8000-8002:80-81", "the ranges 8000-8002 and 80-81 differ in length"),
        ("8000:80-81", "the ranges 8000 and 80-81 differ in length"),
        ("1" * 200, "a port is written as"),
    ],
)
def test_no_port(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse(text)
    assert message in str(caught.value)


@given(st.text(alphabet="0123456789:-/[]tcpudp.", max_size=30))
def test_any_text_is_ports_or_a_value_error(text: str) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    assert found and all(1 <= port.target <= 65535 for port in found)


@given(st.integers(1, 65000), st.integers(1, 65000), st.integers(0, 500))
def test_ranges_keep_their_distance(first: int, target: int, count: int) -> None:
    found = parse(f"{first}-{first + count}:{target}-{target + count}")
    assert [int(port.published) - port.target for port in found] == [first - target] * (count + 1)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param("ports: [3001]", [(3001, None, "tcp", "")], id="a bare number"),
        pytest.param("ports: [22:22]", [(22, 22, "tcp", "")], id="no base 60"),
        pytest.param("ports: [{target: 80}]", [(80, None, "tcp", "")], id="long, target alone"),
        pytest.param("ports: [{target: 80, published: '8080'}]", [(80, 8080, "tcp", "")], id="long, published as text"),
        pytest.param(
            "ports: [{target: 80, published: 8080, protocol: udp, mode: host, host_ip: 127.0.0.1, name: n, app_protocol: h}]",
            [(80, 8080, "udp", "127.0.0.1")],
            id="long, all",
        ),
        pytest.param(
            "ports: ['80:80', '80:80/tcp', '81:80']", [(80, 80, "tcp", ""), (80, 81, "tcp", "")], id="said twice"
        ),
        pytest.param("ports: []", [], id="empty"),
        pytest.param("ports: ['0:80']", [(80, None, "tcp", "")], id="0 is any free port"),
    ],
)
def test_ports_of_a_service(tmp_path: Path, keys: str, found: list[tuple[int, int | None, str, str]]) -> None:
    ports = service(tmp_path, keys).ports
    assert [(port.target, port.published, port.protocol, port.host_ip) for port in ports] == found


@pytest.mark.parametrize(
    ("entry", "published", "among"),
    [
        ("'80'", None, None),
        ("'0:80'", None, None),
        ("'8000:80'", 8000, None),
        ("'8000-8005:80'", None, (8000, 8005)),
        ("{target: 80, published: 8000-8005, mode: host}", None, (8000, 8005)),
        ("{target: 80, published: 8000-8000}", 8000, None),
    ],
)
def test_what_the_agent_may_pick(
    tmp_path: Path, entry: str, published: int | None, among: tuple[int, int] | None
) -> None:
    found = service(tmp_path, f"ports: [{entry}]")
    (port,) = found.ports
    assert (port.target, port.published, port.among) == (80, published, among)
    assert Service.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("value", "text"), [(80, "80"), ("81/udp", "81/udp"), ("90-92", "90-92")])
def test_expose(value: str | int, text: str) -> None:
    assert exposed(value) == text


@pytest.mark.parametrize("value", ["80:81", "", "x", 0, "80/icmp"])
def test_not_exposed(value: str | int) -> None:
    with pytest.raises(ValueError, match=r"is no port|is unknown"):
        exposed(value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("ports:", "4:5: cannot use an empty value as services.a.ports: it must be a list"),
        ("ports: [null]", "4:13: cannot use an empty value as services.a.ports[0]: it must be text, a whole number or a mapping"),
        ("ports: ['80:80', x]", "4:22: cannot use services.a.ports[1]: 'x' is no port: 1 to 65535, or a range as 8000-8010"),
        ("ports: [{published: 80}]", "4:13: cannot use services.a.ports[0]: `target` is missing"),
        ("ports: [{target: 0}]", "4:13: cannot publish 0 → 0 in services.a: it is no port: 1 to 65535"),
        ("ports: [{target: 80, published: x}]", "4:13: cannot publish x → 80 in services.a: it is no port: 1 to 65535"),
        ("ports: [80/sctp]", "4:13: cannot use services.a.ports[0].protocol: 'sctp': gorae publishes tcp and udp"),
        ("ports: [{target: 80, published: 8005-8000}]", "4:13: cannot publish 8005-8000 → 80 in services.a: it is no port: 1 to 65535"),
        ("ports: [{target: 80, published: 0-7}]", "4:13: cannot publish 0-7 → 80 in services.a: it is no port: 1 to 65535"),
        ("expose: [80, x]", "4:18: cannot use 'x' as services.a.expose[1]: 'x' is no port: 1 to 65535, or a range as 8000-8010"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, keys: str, message: str) -> None:
    assert problems(tmp_path, f"services:\n  a:\n    image: x\n    {keys}\n") == [f"compose.yaml:{message}"]
