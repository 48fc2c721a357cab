"""What containers use, as text."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli import usage
from orchestrator.cli.render import cells
from orchestrator.cli.verbs.top import clock

TASK: dict[str, Any] = {
    **{"stack": "shop", "service": "web", "slot": 1, "cpu_percent": 12.34, "memory": 38_500_000, "pids": 12},
    **{"memory_limit": 256_000_000, "pids_limit": 4096, "cpus_limit": None},
    **{"received_rate": 1234.0, "sent_rate": 340.0, "read_rate": 0.0, "written_rate": 1_500_000.0},
}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((None, "-"), (0, "0"), (999, "999"), (1000, "1.0k"), (38_500_000, "38.5M"), (256_000_000, "256M")),
        *((999_499, "999k"), (999_600, "1.0M"), (99_960, "100k"), (4_000_000_000, "4.0G"), (3e18, "3000P")),
    ],
)
def test_amounts_are_short(number: float | None, text: str) -> None:
    assert usage.amount(number) == text


def test_a_row() -> None:
    assert usage.row(TASK, None) == ["shop/web.1", "12.3%", "36.7M/244M", "1.2k/340", "0/1.5M", "12/4096"]


def test_what_is_not_known_is_a_dash_and_no_limit_is_silent() -> None:
    unknown = dict.fromkeys(TASK) | {"stack": "shop", "service": "web", "slot": 1}
    assert usage.row(unknown, "shop") == ["web.1", *"-----"]
    assert usage.row({**TASK, "memory_limit": None, "pids_limit": -1}, "shop")[2::3] == ["36.7M", "12"]


def test_a_table_keeps_to_eighty_columns() -> None:
    wide = {**TASK, "service": "a-service-with-quite-a-long-name", "cpu_percent": 3199.9, "slot": 100}
    lines = usage.lines({"tasks": [TASK, wide]}, 80, None)
    assert len(lines) == 3 and max(map(cells, lines)) <= 80
    assert "3199.9%" in lines[2] and "36.7M/244M" in lines[2]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0.00s"), (1.256, "1.26s"), (125, "2:05"), (3725, "1:02:05")])
def test_time_of_the_processor(seconds: float, text: str) -> None:
    assert clock(seconds) == text
