"""The sample stack says what its comments promise, and costs little to read."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from orchestrator.compose.load import load

FILE = Path(__file__).parents[3] / "specs/visits/compose.yaml"


def test_visits() -> None:
    found = load([FILE], environ={}, cwd=FILE.parent)
    web, redis = found.stack.services["web"], found.stack.services["redis"]
    assert (found.stack.name, found.warnings) == ("visits", ())
    assert (web.image, web.replicas, redis.image) == ("gorae/visits-web:1", 3, "gorae/redis:7")
    assert [(port.published, port.target) for port in web.ports] == [(8080, 8000)]
    assert web.depends_on["redis"].condition == "service_healthy"
    assert web.healthcheck and (web.healthcheck.http_port, web.healthcheck.http_path) == (8000, "/health")
    assert redis.healthcheck and redis.healthcheck.test == ("CMD", "redis-cli", "ping")
    assert [(mount.type, mount.source, mount.target) for mount in redis.mounts] == [("volume", "data", "/data")]
    assert found.stack.volumes["data"].name == "visits_data"


def test_the_port_can_be_chosen() -> None:
    found = load([FILE], environ={"VISITS_PORT": "9090"}, cwd=FILE.parent)
    assert found.stack.services["web"].ports[0].published == 9090


def test_loading_it_again_takes_a_few_milliseconds() -> None:
    load([FILE], environ={}, cwd=FILE.parent)
    started = time.process_time()
    for _ in range(10):
        load([FILE], environ={}, cwd=FILE.parent)
    assert (time.process_time() - started) / 10 < 0.010


def test_importing_the_package_costs_status_nothing() -> None:
    heavy = "import sys, orchestrator.compose; print(sorted({'yaml', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, check=True, cwd=FILE.parents[2]
    )
    assert done.stdout.strip() == "[]"
