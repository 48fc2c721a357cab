"""The kernel's texts, and rates between two looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide import stats
from agent.decide.stats import Sample, document, rate

MEMORY = "anon 100\nfile 300\nactive_file 50\ninactive_file 250\nzswap 0\n"
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      200       2    0    0    0     0       0          0
g0badcafe0:12345      9    0    0    0     0          0         0    67890       8    0    0    0     0       0          0
"""


@pytest.mark.parametrize(
    ("name", "value"), [("anon", 100), ("inactive_file", 250), ("file", 300), ("zswap", 0), ("e_file", None)]
)
def test_a_field_is_found_by_its_whole_name(name: str, value: int | None) -> None:
    assert stats.field(MEMORY, name) == value


@pytest.mark.parametrize("text", ["", "usage_usec", "usage_usec x\n", "usage_usec -1\n", "usage_usec 1 2\n"])
def test_a_torn_field_counts_for_nothing(text: str) -> None:
    assert stats.field(text, "usage_usec") is None


def test_io_is_summed_over_devices_on_v2() -> None:
    text = "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n259:1 rbytes=1 wbytes=2 rios=1 wios=1\n7:0 \n"
    assert stats.io_v2(text) == (11, 22)


def test_io_is_summed_over_devices_on_v1() -> None:
    text = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n259:1 Read 1\nTotal 31\n"
    assert stats.io_v1(text) == (11, 20)


def test_links_are_read_also_without_a_blank_behind_the_colon() -> None:
    assert stats.links(NET) == {"lo": (100, 200), "g0badcafe0": (12345, 67890)}


@given(st.text())
def test_no_text_ends_a_look(text: str) -> None:
    stats.field(text, "a")
    stats.whole(text)
    stats.io_v1(text)
    stats.io_v2(text)
    stats.links(text)


@pytest.mark.parametrize(
    ("before", "now", "value"),
    [
        pytest.param(Sample(1.0, cpu=2.0), Sample(3.0, cpu=3.0), 0.5, id="half a core"),
        pytest.param(None, Sample(3.0, cpu=3.0), None, id="the first look"),
        pytest.param(Sample(1.0), Sample(3.0, cpu=3.0), None, id="not counted before"),
        pytest.param(Sample(1.0, cpu=4.0), Sample(3.0, cpu=3.0), None, id="it went back"),
        pytest.param(Sample(3.0, cpu=2.0), Sample(3.0, cpu=3.0), None, id="no time between"),
    ],
)
def test_rates(before: Sample | None, now: Sample, value: float | None) -> None:
    assert rate(now, before, "cpu") == value


def test_a_document_has_counters_and_rates() -> None:
    before = Sample(10.0, cpu=1.0, memory=5, pids=1, read=0, written=0, received=100, sent=0)
    now = Sample(12.0, cpu=4.0, memory=6, pids=2, read=0, written=4096, received=300, sent=0)
    assert document(now, before) == {
        **{"cpu": 4.0, "cpu_percent": 150.0, "memory": 6, "pids": 2},
        **{"read": 0, "written": 4096, "received": 300, "sent": 0},
        **{"read_rate": 0.0, "written_rate": 2048.0, "received_rate": 100.0, "sent_rate": 0.0},
    }
