"""What people see: whole tables, at the width of a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import board, render
from orchestrator.cli.render import Column, Screen
from tests.orchestrator.cli.fakes import document, service, stack, task


def screen(width: int = 80) -> Screen:
    made = Screen(io.StringIO())
    made.width = width
    return made


def test_the_overview() -> None:
    healthy = task(health="healthy")
    crash = {"log_tail": ["", "cannot connect to queue:5672: connection refused"]}
    failing = task(state="backoff", attempt=5, message="exit code 1", next_at=1012.0, pid=None, evidence=crash)
    shown = document(
        stack(
            "visits",
            service("web", task(1), task(2), task(3), ports=["0.0.0.0:8080 → 80"], since=880.0),
            service("redis", healthy, since=-300000.0),
        ),
        stack("shop", service("worker", failing, since=959.0), state="backoff", converged=False),
    )
    assert (
        "\n".join(board.overview(shown, screen()))
        == """\
STACK   SERVICE  READY  STATE                           SINCE  PORTS
visits  web      3/3    running                         2m     0.0.0.0:8080 → 80
visits  redis    1/1    running, healthy                3d
shop    worker   0/1    backoff: exit code 1, 5th       41s
                        time; next try in 12 s
        last line: cannot connect to queue:5672: connection refused"""
    )


def test_long_names_are_shortened_and_ports_stacked() -> None:
    row = service(
        "a-service-with-quite-a-long-name", ports=["0.0.0.0:8080 → 80", "127.0.0.1:9000-9010 → 9000-9010/udp"]
    )
    lines = list(board.overview(document(stack("a-stack-with-a-long-name", row)), screen()))
    assert lines[1:] == [
        "a-stack-wi…-name  a-service-wi…-name  1/1    running  1m     0.0.0.0:8080 → 80",
        " " * 61 + "127.0.0.1:90…10/udp",
    ]
    assert max(map(len, lines)) <= 80


def test_the_containers_of_a_stack() -> None:
    shown = document(stack("shop", service("web", task(1), task(2, state="starting", address=None, pid=None))))
    assert (
        "\n".join(board.tasks(shown, screen(), detail=True))
        == """\
CONTAINER  STATE     SINCE  RESTARTS  ADDRESS      PID
web.1      running   1m     0         10.181.0.16  4711
web.2      starting  1m     0

image  redis:7"""
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(service("a", task(health="starting")), "running, not healthy yet", id="probing"),
        pytest.param(service("a", task(health="unhealthy")), "running, unhealthy", id="unhealthy"),
        pytest.param(service("a", state="waiting", message="waits for db"), "waiting: waits for db", id="waiting"),
        pytest.param(
            service("a", state="waiting", message="waiting for db"), "waiting for db", id="a message with the state"
        ),
        pytest.param(service("a", state="stopped", message="by the user"), "stopped", id="a stop needs no reason"),
        pytest.param(
            service("a", task(state="backoff", attempt=4, message="exit code 1, 3 times in a row", next_at=1003.4)),
            "backoff: exit code 1, 3 times in a row; next try in 3 s",
            id="the agent counted already",
        ),
        pytest.param(service("a", state="failed", message="x\x1b[2Jy"), "failed: x·[2Jy", id="no escape sequences"),
    ],
)
def test_state_text(row: dict[str, object], expected: str) -> None:
    assert board.state_text(row, 1000.0) == expected


@given(st.text(max_size=200), st.integers(16, 60))
def test_wrapping_keeps_to_the_width_and_every_word(text: str, width: int) -> None:
    lines = render.wrap(text, width)
    assert all(render.cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(st.text(max_size=60), st.integers(4, 30))
def test_shortened_text_fits(text: str, width: int) -> None:
    assert render.cells(render.cut(text, width)) <= width
    assert render.cells(render.shorten(text, width)) <= width


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=90)), max_size=5))
def test_a_table_of_anything_fits(rows: list[tuple[str, str]]) -> None:
    columns = [Column("NAME", most=20), Column("TEXT", flexible=True)]
    for block in render.table(columns, [list(row) for row in rows], 60):
        assert all(render.cells(line) <= 60 for line in block)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", 3), ("고래", 4), ("e\u0301", 1), ("→", 1), ("\x1b[31mred\x1b[0m", 3)],
)
def test_cells(text: str, expected: int) -> None:
    assert render.cells(text) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400 * 3, "3d")]
)
def test_span(seconds: float, expected: str) -> None:
    assert render.span(seconds) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st")]
)
def test_ordinal(number: int, expected: str) -> None:
    assert render.ordinal(number) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456_789, "123 MB")])
def test_size(count: int, expected: str) -> None:
    assert render.size(count) == expected


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_drawn_again_fit_and_only_what_is_cut_says_so(width: int) -> None:
    waiting = "cannot start shop/web: `sleep 1000000`: there is no such command in the image, nor in its PATH"
    services = (
        service("web", task(state="failed", pid=None, message=waiting), state="failed", message=waiting),
        service("a-name-of-more-than-24-letters", task()),
    )
    shown = screen(width)
    shown.colours = True
    lines = board.brief(document(stack("shop", *services)), shown)
    assert all(render.cells(line) <= width for line in lines)
    assert all("\x1b[" in line for line in lines)
    assert [line.endswith("…") for line in lines] == [width < 120, False]
