"""13-merge.md: !reset and !override at every depth; and several documents in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import composed, document, refusals

BASE = """\
services:
  a:
    image: x
    command: [c]
    user: u
    ports: ['1:1', '2:2']
    environment: {A: 1, B: 2}
    deploy: {replicas: 2, resources: {limits: {memory: 1g, pids: 5}}}
    networks: {n: {aliases: [one], priority: 3}}
    depends_on: [b]
  b: {image: y}
networks: {n: {driver: bridge, labels: {l: 1}}}
"""


def value(model: dict[str, Any], path: str) -> Any:
    found: Any = model
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


@pytest.mark.parametrize(
    ("over", "path", "found"),
    [
        pytest.param("services: {b: !reset , a: {depends_on: !reset }}", "services.b", None, id="a whole service"),
        pytest.param("services: {a: {user: !reset }}", "services.a.user", None, id="a scalar"),
        pytest.param("services: {a: {user: !reset v}}", "services.a.user", None, id="what is reset has no value"),
        pytest.param("services: {a: {ports: !reset []}}", "services.a.ports", None, id="a list"),
        pytest.param("services: {a: {ports: !reset ['3:3']}}", "services.a.ports", None, id="a list, whatever is in it"),
        pytest.param("services: {a: {command: !reset []}}", "services.a.command", None, id="a command: the image's"),
        pytest.param("services: {a: {environment: !reset {}}}", "services.a.environment", None, id="a mapping"),
        pytest.param("services: {a: {environment: {A: !reset }}}", "services.a.environment", {"B": "2"}, id="one key of a mapping"),
        pytest.param("services: {a: {deploy: {resources: {limits: {pids: !reset 5}}}}}", "services.a.deploy.resources.limits", {"memory": "1073741824"}, id="four levels down"),
        pytest.param("services: {a: {networks: {n: {aliases: !reset []}}}}", "services.a.networks.n", {"priority": 3}, id="in a network of a service"),
        pytest.param("services: {a: {networks: !reset }}", "services.a.networks", {"default": None}, id="networks: the default one is back"),
        pytest.param("networks: {n: {labels: !reset {}}}", "networks.n", {"name": "p_n", "driver": "bridge"}, id="at the top level"),
        pytest.param("services: {a: {hostname: !reset h}}", "services.a.hostname", None, id="what was not there"),
        pytest.param("services: {a: !override {image: z}}", "services.a", {"image": "z", "command": None, "entrypoint": None, "networks": {"default": None}}, id="override a service"),
        pytest.param("services: {a: {environment: !override {C: 3}}}", "services.a.environment", {"C": "3"}, id="override a mapping"),
        pytest.param("services: {a: {environment: !override [C=3]}}", "services.a.environment", {"C": "3"}, id="override, in the short form"),
        pytest.param("services: {a: {ports: !override ['3:3']}}", "services.a.ports", [{"mode": "ingress", "target": 3, "published": "3", "protocol": "tcp"}], id="override a list"),
        pytest.param("services: {a: {ports: !override []}}", "services.a.ports", None, id="override with nothing"),
        pytest.param("services: {a: {deploy: {resources: !override {limits: {pids: 9}}}}}", "services.a.deploy", {"placement": None, "replicas": 2, "resources": {"limits": {"pids": 9}}}, id="override below"),
        pytest.param("services: {a: {user: !override v}}", "services.a.user", "v", id="override a scalar"),
    ],
)  # fmt: skip
def test_over(tmp_path: Path, over: str, path: str, found: Any) -> None:
    result = value(document(tmp_path, {"base.yaml": BASE, "over.yaml": over}), path)
    if isinstance(found, dict):
        assert result == {key: one for key, one in found.items() if key != "placement"}
    else:
        assert result == found


def test_a_reset_of_a_key_nobody_knows_is_warned_of(tmp_path: Path) -> None:
    found = composed(tmp_path, {"base.yaml": BASE, "over.yaml": "services: {a: {prots: !reset []}}\n"})
    assert found.warnings == (
        "over.yaml:1:16: services.a.prots is ignored: Compose has no such key; did you mean ports?",
    )


def test_a_tag_counts_for_the_files_before_only(tmp_path: Path) -> None:
    files = {
        "1.yaml": "services: {a: {image: x, environment: {A: 1}}}\n",
        "2.yaml": "services: {a: {environment: !override {B: 2}}}\n",
        "3.yaml": "services: {a: {environment: {A: 3}}}\n",
    }
    assert value(document(tmp_path, files), "services.a.environment") == {"A": "3", "B": "2"}


def test_tags_without_a_base(tmp_path: Path) -> None:
    found = document(
        tmp_path, "services: {a: {image: x, user: !reset u, environment: !override {A: 1}}, b: !reset {}}\n"
    )
    assert found["services"] == {
        "a": {
            "image": "x",
            "environment": {"A": "1"},
            "command": None,
            "entrypoint": None,
            "networks": {"default": None},
        }
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("services: {a: {image: x}}\n---\nservices: {a: {user: u}}\n", {"image": "x", "user": "u"}, id="two"),
        pytest.param("---\nservices: {a: {image: x}}\n...\n---\nservices: {a: {image: y}}\n", {"image": "y"}, id="the last wins"),
        pytest.param("services: {a: {image: x, user: u}}\n---\nservices: {a: {user: !reset }}\n", {"image": "x"}, id="reset"),
        pytest.param("x-a: &a {user: u}\nservices: {a: {image: x}}\n---\nservices: {a: {user: v}}\n", {"image": "x", "user": "v"}, id="extensions"),
        pytest.param("services: {a: {extends: b}, b: {image: x}}\n---\nservices: {b: {image: y}}\n", {"image": "x"}, id="extends sees its own document"),
    ],
)  # fmt: skip
def test_documents_merge_like_files(tmp_path: Path, text: str, found: dict[str, Any]) -> None:
    service = document(tmp_path, text)["services"]["a"]
    assert {key: service[key] for key in ("image", "user") if key in service} == found


def test_documents_of_an_included_and_an_extended_file(tmp_path: Path) -> None:
    other = "services: {b: {image: x, user: u}}\n---\nservices: {b: {user: v}}\n"
    files = {
        "compose.yaml": "include: [inc/b.yml]\nservices: {a: {extends: {file: ext/b.yml, service: b}}}\n",
        "inc/b.yml": other,
        "ext/b.yml": other,
    }
    found = document(tmp_path, files)["services"]
    assert (found["a"]["user"], found["b"]["user"]) == ("v", "v")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {a: {image: x}}\n---\n", "compose.yaml:3:1: cannot use an empty document as a Compose file: it must be a mapping"),
        ("services: {a: {image: x}}\n---\n[]\n", "compose.yaml:3:1: cannot use a list as a Compose file: it must be a mapping"),
        ("x: &x 1\n---\nservices: {a: {image: *x}}\n", "compose.yaml:1:1: cannot use x: Compose has no such key"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusals(tmp_path, text)[0] == message
