"""05-services.md, healthcheck; and x-gorae-healthcheck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import problems, service


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param("", None, id="none given"),
        pytest.param("healthcheck: {test: curl -f x || exit 1}", {"test": ("CMD-SHELL", "curl -f x || exit 1")}, id="text is for a shell"),
        pytest.param("healthcheck: {test: [CMD, a, b]}", {"test": ("CMD", "a", "b")}, id="CMD"),
        pytest.param("healthcheck: {test: [CMD-SHELL, a b]}", {"test": ("CMD-SHELL", "a b")}, id="CMD-SHELL"),
        pytest.param("healthcheck: {test: [NONE]}", {"disable": True}, id="NONE"),
        pytest.param("healthcheck: {disable: true, test: [CMD, a]}", {"disable": True}, id="disable"),
        pytest.param("healthcheck: {disable: false}", {}, id="not disabled"),
        pytest.param("healthcheck: {interval: 5s}", {"interval": 5.0}, id="only adjusts the image's"),
        pytest.param("healthcheck: {test: []}", {}, id="an empty list is the image's"),
        pytest.param(
            "healthcheck: {test: [CMD, a], interval: 1m30s, timeout: 10s, retries: 3, start_period: 0s, start_interval: 5s}",
            {"test": ("CMD", "a"), "interval": 90.0, "timeout": 10.0, "retries": 3, "start_period": 0.0, "start_interval": 5.0},
            id="all",
        ),
        pytest.param("healthcheck: {interval: 0s, retries: 0}", {}, id="0 is the default"),
        pytest.param(
            "x-gorae-healthcheck: {http: {port: 8000, path: /health}, interval: 2s}",
            {"http_port": 8000, "http_path": "/health", "interval": 2.0},
            id="http",
        ),
        pytest.param("x-gorae-healthcheck: {tcp: {port: 5432}}", {"tcp_port": 5432}, id="tcp"),
        pytest.param(
            "healthcheck: {test: [CMD, a], interval: 9s, retries: 7}\nx-gorae-healthcheck: {tcp: {port: 1}, interval: 2s}",
            {"tcp_port": 1, "interval": 2.0, "retries": 7},
            id="gorae's probe goes before the command, its times too",
        ),
        pytest.param("healthcheck: {disable: true}\nx-gorae-healthcheck: {tcp: {port: 1}}", {"disable": True}, id="disable is for both"),
    ],
)  # fmt: skip
def test_healthcheck(tmp_path: Path, keys: str, found: dict[str, Any] | None) -> None:
    check = service(tmp_path, keys).healthcheck
    assert (check.model_dump(exclude_defaults=True) if check else None) == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("healthcheck: {test: [curl, x]}", "a list must begin with CMD, CMD-SHELL or NONE"),
        ("healthcheck: {test: [CMD]}", "there is no command after CMD"),
        ("healthcheck: {interval: 5}", "write the unit too, as in 5s"),
        ("healthcheck: {retries: -1}", "it must be a whole number, 0 or more"),
        ("healthcheck: {retries: 1.5}", "it must be a whole number, 0 or more"),
        ("healthcheck: {interval: -5s}", "it is less than nothing"),
        ("healthcheck: {start_period: -5s}", "it is less than nothing"),
        ("healthcheck: {retry: 1}", "did you mean retries?"),
        ("x-gorae-healthcheck: {}", "it takes one of http and tcp"),
        ("x-gorae-healthcheck: {http: {port: 1}, tcp: {port: 1}}", "it takes one of http and tcp"),
        ("x-gorae-healthcheck: {http: {path: /}}", "`port` is missing"),
        ("x-gorae-healthcheck: {http: {port: 0}}", "a port is 1 to 65535"),
        ("x-gorae-healthcheck: {http: {port: 1, path: health}}", "a path begins with / and has no spaces"),
        ('x-gorae-healthcheck: {http: {port: 1, path: "/ HTTP/1.0\\r\\n"}}', "a path begins with / and has no spaces"),
    ],
)
def test_refused(tmp_path: Path, keys: str, message: str) -> None:
    (problem,) = problems(tmp_path, f"services:\n  a:\n    image: x\n    {keys}\n")
    assert message in problem
