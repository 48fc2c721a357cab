"""Several files (13-merge.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import loaded, problems


def merged(folder: Path, base: str, over: str) -> dict[str, Any]:
    tail = "  b: {image: x}\n  c: {image: x}\nvolumes: {v: , w: }\n"
    files = {
        "base.yaml": f"services:\n  a:\n    image: x\n    {base}\n{tail}",
        "over.yaml": f"services:\n  a:\n    {over}\n",
    }
    return loaded(folder, files).stack.services["a"].model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("base", "over", "found"),
    [
        pytest.param("user: one", "user: two", {"user": "two"}, id="scalars are replaced"),
        pytest.param("environment: {A: 1, B: 2}", "environment: [B=3, C=4]", {"environment": {"A": "1", "B": "3", "C": "4"}}, id="map and list by key"),
        pytest.param("labels: [x=1]", "labels: {y: 2, x: 9}", {"labels": {"x": "9", "y": "2"}}, id="labels"),
        pytest.param("command: [a, b]", "command: c", {"command": ("c",)}, id="command is replaced"),
        pytest.param("entrypoint: x", "entrypoint: []", {"entrypoint": ()}, id="entrypoint is replaced"),
        pytest.param("command: [a]", "command:", {}, id="no command: the image's"),
        pytest.param("environment: {A: 1}", "environment: {A: }", {}, id="no value: unset"),
        pytest.param("environment: {A: 1}", "environment:", {"environment": {"A": "1"}}, id="no variables: kept"),
        pytest.param("ports: ['1:1']", "ports:", {"ports": ({"target": 1, "published": 1},)}, id="no ports: kept"),
        pytest.param(
            "healthcheck: {test: [CMD, a], interval: 5s}",
            "healthcheck: {test: [CMD, b]}",
            {"healthcheck": {"test": ("CMD", "b"), "interval": 5.0}},
            id="healthcheck.test is replaced, the rest merged",
        ),
        pytest.param("healthcheck: {test: [CMD, a]}", "healthcheck: {disable: true}", {"healthcheck": {"disable": True}}, id="disabled later"),
        pytest.param(
            "depends_on: [b]",
            "depends_on: {c: {condition: service_healthy}}",
            {"depends_on": {"b": {}, "c": {"condition": "service_healthy"}}},
            id="depends_on",
        ),
        pytest.param(
            "ports: ['8080:80']",
            "ports: ['8081:80', '8080:80/tcp', '9090:90']",
            {"ports": ({"target": 80, "published": 8080}, {"target": 80, "published": 8081}, {"target": 90, "published": 9090})},
            id="ports: the whole port is the key",
        ),
        pytest.param(
            "volumes: ['v:/work:ro', '/x:/x']",
            "volumes: ['w:/work']",
            {"mounts": ({"type": "volume", "source": "w", "target": "/work"}, {"type": "bind", "source": "/x", "target": "/x"})},
            id="volumes: a target's whole entry, in its old place",
        ),
        pytest.param(
            "tmpfs: /a", "tmpfs: [/b, /a]", {"mounts": ({"type": "tmpfs", "target": "/a"}, {"type": "tmpfs", "target": "/b"})}, id="tmpfs"
        ),
        pytest.param("expose: ['80']", "expose: ['80', 81]", {"expose": ("80", "81")}, id="expose"),
        pytest.param(
            "deploy: {resources: {limits: {memory: 1g}}}",
            "deploy: {replicas: 2, resources: {limits: {pids: 5}}}",
            {"replicas": 2, "resources": {"memory": 2**30, "pids": 5}},
            id="mappings all the way down",
        ),
    ],
)  # fmt: skip
def test_merge(tmp_path: Path, base: str, over: str, found: dict[str, Any]) -> None:
    assert merged(tmp_path, base, over) == {"image": "x", **found}


def test_a_service_may_be_called_like_a_key(tmp_path: Path) -> None:
    files = {
        "a.yaml": "services: {labels: {image: x, deploy: {replicas: 2}}, environment: {image: x}}\n",
        "b.yaml": "services: {labels: {deploy: {mode: replicated}}, environment: {image: y}}\n",
    }
    services = loaded(tmp_path, files).stack.services
    assert (services["labels"].replicas, services["environment"].image) == (2, "y")


def test_relative_paths_begin_at_the_first_file(tmp_path: Path) -> None:
    files = {
        "first.yaml": "services: {a: {image: x}}\n",
        "sub/second.yaml": "services: {a: {volumes: [./y:/y], env_file: e.env}}\n",
        "e.env": "WHERE=root\n",
        "sub/e.env": "WHERE=sub\n",
    }
    found = loaded(tmp_path, files).stack.services["a"]
    assert found.environment == {"WHERE": "root"}
    assert found.mounts[0].source == str(tmp_path / "y")


def test_documents_of_one_file_merge_like_files(tmp_path: Path) -> None:
    text = "services:\n  a: {image: x}\n---\nservices:\n  a: {command: y}\n  b: {image: z}\n"
    services = loaded(tmp_path, text).stack.services
    assert (services["a"].image, services["a"].command, services["b"].image) == ("x", ("y",), "z")


def test_a_problem_names_the_file_it_is_in(tmp_path: Path) -> None:
    files = {"a.yaml": "services: {a: {image: x}}\n", "b.yaml": "services:\n  a:\n    volumes: [v:/v]\n"}
    assert problems(tmp_path, files) == [
        "b.yaml:3:15: cannot mount the volume v in a: no volume of that name is declared"
    ]


def test_each_file_is_checked_on_its_own(tmp_path: Path) -> None:
    files = {"a.yaml": "services: {a: {image: x, foo: 1}}\n", "b.yaml": "services: {a: {bar: 1}}\n"}
    assert [problem.split(": ")[0] for problem in problems(tmp_path, files)] == ["a.yaml:1:26", "b.yaml:1:16"]
