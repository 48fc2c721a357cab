"""The bench in small, so that a change that makes gorae several times slower is seen at once. Bounds are loose on
purpose: the exact figures are deploy/soak's and README's."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.bench import execs, images, network, stats
from tests.bench.bench import measure, tell
from tests.bench.compose import pipeline, seconds, stack
from tests.bench.health import probe_cost
from tests.host.conftest import import_images, sample_tars
from tests.support.host import Host


@pytest.mark.host
def test_the_figures_in_small() -> None:
    with Host() as host:
        import_images(host, sample_tars("busybox"), "busybox")
        result = measure(host, [10], 3.0)
        watching = stats.watched(host, 10, 4)
    print(tell(result))
    assert result["up"][10]["ratio"] < 12
    assert result["recovery_ms"]["median"] < 150
    assert result["status_ms"]["ratio"] < 6
    assert result["look_ups"]["ratio"] > 0.2
    assert result["memory"]["per_container_mib"] < 2
    assert result["memory"]["fixed_mib"] < 140
    assert result["idle_percent"] < 10
    print(stats.tell(watching))
    assert watching["total_ms"] < 20, "the bound is for ten times as many"


@pytest.mark.host
def test_a_probe_in_small() -> None:
    assert asyncio.run(probe_cost(20))["ratio"] < 3


def test_reading_a_compose_file_is_linear_in_its_size(tmp_path: Path) -> None:
    taken = {}
    for count in (40, 160):
        file = tmp_path / f"{count}.yaml"
        file.write_text(stack(count))
        taken[count] = min(seconds(partial(pipeline, file)) for _ in range(5)) / count
    assert taken[160] < 2 * taken[40]


@pytest.mark.host
def test_unpacking_in_small() -> None:
    found = images.measure(10 << 20, 1)
    print(images.tell(found))
    assert all(row["ratio"] < 8 for row in found["unpack"].values())  # a child's start is most of it
    assert found["two_at_once"] < 1.5


@pytest.mark.host
def test_the_network_in_small() -> None:
    found = network.measure(rounds=1, seconds=1, trips=1000, tasks=10, services=200)
    print(network.tell(found))
    assert all(path["ratio"] > 0.2 and path["more_us"] < 500 for path in found["paths"].values())
    assert found["set_up"]["both_ms"] < 200
    assert found["one_endpoint"]["processor_ms"] < 60


@pytest.mark.host
def test_an_exec_in_small() -> None:
    figures = execs.measure(10)
    print(figures)
    assert figures["median"]["api_ratio"] < 4
    assert figures["median"]["cli_ratio"] < 10
    assert figures["least"]["cli_cpu_ms"] < 2.5 * figures["least"]["python_cpu_ms"]
