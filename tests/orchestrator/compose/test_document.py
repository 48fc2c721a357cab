"""A tree → plain values: what is left out because it says nothing, and what stays though it looks so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import document


def service(folder: Path, keys: str) -> dict[str, Any]:
    found: dict[str, Any] = document(folder, f"services:\n  a:\n    image: x\n    {keys}\n")["services"]["a"]
    return found


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("user: ''", "user"),
        ("cap_add: []", "cap_add"),
        ("labels: {}", "labels"),
        ("privileged: false", "privileged"),
        ("oom_score_adj: 0", "oom_score_adj"),
        ("cpus: 0", "cpus"),
        ("mem_limit: 0", "mem_limit"),
        ("shm_size: 0b", "shm_size"),
        ("deploy:", "deploy"),
        ("develop:", "develop"),
        ("env_file: []", "env_file"),
        ("extends: b\n  b: {image: y}", "extends"),
        ("x-any: 1", "x-any"),
    ],
)
def test_says_nothing(tmp_path: Path, keys: str, name: str) -> None:
    assert name not in service(tmp_path, keys)


@pytest.mark.parametrize(
    ("keys", "name", "found"),
    [
        ("user: u", "command", None),
        ("user: u", "entrypoint", None),
        ("command: []", "command", []),
        ("entrypoint: ''", "entrypoint", []),
        ("init: false", "init", False),
        ("attach: false", "attach", False),
        ("scale: 0", "scale", 0),
        ("deploy: {replicas: 0}", "deploy", {"replicas": 0}),
        ("healthcheck: {retries: 0, test: []}", "healthcheck", {"retries": 0}),
        ("environment: {A: '', B: }", "environment", {"A": "", "B": None}),
        ("labels: {a: '', b: }", "labels", {"a": "", "b": ""}),
        ("memswap_limit: -1", "memswap_limit", "-1"),
        ("networks: {default: {}}", "networks", {"default": {}}),
    ],
)
def test_stays(tmp_path: Path, keys: str, name: str, found: Any) -> None:
    result = service(tmp_path, keys)
    assert name in result
    if name == "deploy":
        assert result[name]["replicas"] == 0
    elif name == "healthcheck":
        assert result[name]["retries"] == 0
    else:
        assert result[name] == found or (found == {"default": {}} and not result[name]["default"])


def test_names_are_in_alphabetical_order_whatever_the_file_says(tmp_path: Path) -> None:
    text = "services:\n  b: {image: x, environment: [Z=1, A=1], labels: [z, a]}\n  a: {image: x}\n"
    found = document(tmp_path, text)
    assert list(found["services"]) == ["a", "b"]
    assert list(found["services"]["b"]["environment"]) == ["A", "Z"]
    assert list(found["services"]["b"]["labels"]) == ["a", "z"]


def test_the_top_level(tmp_path: Path) -> None:
    text = "name: n\nversion: '3'\nx-y: 1\nservices: {a: {image: x, models: [m]}}\nmodels: {m: {model: x}}\nvolumes: {v: }\n"
    assert set(document(tmp_path, text)) == {"name", "services", "networks"}
