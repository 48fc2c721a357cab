"""What files leave unsaid: names, the default network, implied dependencies, defaults of builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import document

STARTED = {"condition": "service_started", "required": True}
RESTARTED = {**STARTED, "restart": True}


def service(folder: Path, keys: str, environ: dict[str, str] | None = None, top: str = "") -> dict[str, Any]:
    text = f"services:\n  a:\n    image: x\n    {keys}\n  b: {{image: x}}\n  c: {{image: x}}\n{top}"
    found: dict[str, Any] = document(folder, text, environ)["services"]["a"]
    return found


@pytest.mark.parametrize(
    ("keys", "needs"),
    [
        pytest.param("depends_on: [b]", {"b": STARTED}, id="depends_on"),
        pytest.param("links: [b, 'c:alias']", {"b": RESTARTED, "c": RESTARTED}, id="links"),
        pytest.param("volumes_from: [b, 'c:ro']", {"b": STARTED, "c": STARTED}, id="volumes_from"),
        pytest.param("volumes_from: ['container:b']", None, id="volumes_from of a container"),
        pytest.param("network_mode: service:b", {"b": RESTARTED}, id="network_mode"),
        pytest.param("network_mode: container:b", None, id="network_mode of a container"),
        pytest.param("pid: service:b", {"b": RESTARTED}, id="pid"),
        pytest.param("ipc: service:b", {"b": RESTARTED}, id="ipc"),
        pytest.param("uts: service:b", {"b": RESTARTED}, id="uts"),
        pytest.param("ipc: shareable", None, id="ipc, another word"),
        pytest.param(
            "links: [b]\n    depends_on: {b: {condition: service_healthy}}",
            {"b": {"condition": "service_healthy", "required": True}},
            id="what is said goes before what is implied",
        ),
    ],
)  # fmt: skip
def test_implied_dependencies(tmp_path: Path, keys: str, needs: dict[str, Any] | None) -> None:
    assert service(tmp_path, keys).get("depends_on") == needs


@pytest.mark.parametrize(
    ("keys", "top", "networks", "declared"),
    [
        pytest.param("user: u", "", {"default": None}, {"default"}, id="none named: default"),
        pytest.param("networks: {}", "", {"default": None}, {"default"}, id="an empty mapping"),
        pytest.param("networks: []", "", {"default": None}, {"default"}, id="an empty list"),
        pytest.param("networks: [n]", "networks: {n: }", {"n": None}, {"default", "n"}, id="another"),
        pytest.param("networks: [n, default]", "networks: {n: }", {"n": None, "default": None}, {"default", "n"}, id="both"),
        pytest.param("network_mode: host", "", None, {"default"}, id="network_mode"),
        pytest.param("network_mode: none", "networks: {m: }", None, {"default"}, id="what nobody uses is not there"),
    ],
)  # fmt: skip
def test_networks(tmp_path: Path, keys: str, top: str, networks: dict[str, Any] | None, declared: set[str]) -> None:
    text = f"services:\n  a:\n    image: x\n    {keys}\n  b: {{image: x}}\n{top}\n"
    found = document(tmp_path, text)
    assert (found["services"]["a"].get("networks"), set(found["networks"])) == (networks, declared)


def test_no_default_network_that_nobody_uses(tmp_path: Path) -> None:
    assert "networks" not in document(tmp_path, "services: {a: {image: x, network_mode: host}}\n")


@pytest.mark.parametrize(
    ("section", "use"),
    [("networks", "networks: [k]"), ("volumes", "volumes: ['kk:/v']"), ("secrets", "secrets: [k]"), ("configs", "configs: [k]")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("{}", "p_{key}"),
        ("{name: own}", "own"),
        ("{name: '${N}'}", "shell"),
        ("{external: true}", "{key}"),
        ("{external: true, name: own}", "own"),
        ("{external: {name: own}}", "own"),
        ("{external: false}", "p_{key}"),
    ],
)
def test_names(tmp_path: Path, section: str, use: str, entry: str, name: str) -> None:
    key = "kk" if section == "volumes" else "k"
    source = "file: /f, " if section in ("secrets", "configs") and "external: t" not in entry else ""
    source = "" if "external: {" in entry else source
    text = f"services:\n  a:\n    image: x\n    {use}\n{section}: {{{key}: {{{source}{entry[1:]}}}\n"
    assert document(tmp_path, text, {"N": "shell"})[section][key]["name"] == name.format(key=key)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param("build: ctx", {"context": "@/ctx", "dockerfile": "Dockerfile"}, id="text"),
        pytest.param("build: {}", {"context": "@", "dockerfile": "Dockerfile"}, id="no context"),
        pytest.param("build: {dockerfile: D}", {"context": "@", "dockerfile": "D"}, id="dockerfile"),
        pytest.param("build: {dockerfile_inline: FROM x}", {"context": "@", "dockerfile_inline": "FROM x"}, id="inline"),
        pytest.param("build: {args: [SET, UNSET, A=1]}", {"context": "@", "dockerfile": "Dockerfile", "args": {"SET": "v", "A": "1"}}, id="args without a value"),
        pytest.param("build: https://h/r.git#main:d", {"context": "https://h/r.git#main:d", "dockerfile": "Dockerfile"}, id="remote"),
    ],
)  # fmt: skip
def test_build(tmp_path: Path, keys: str, found: dict[str, Any]) -> None:
    assert service(tmp_path, keys, {"SET": "v"})["build"] == found


@pytest.mark.parametrize(
    ("keys", "key", "found"),
    [
        ("pull_policy: if_not_present", "pull_policy", "missing"),
        ("scale: 3\n    deploy: {}", "deploy", {"replicas": 3}),
        ("scale: 3\n    deploy: {replicas: 3}", "deploy", {"replicas": 3}),
        ("scale: 3", "deploy", None),
        ("pre_start: [{command: [c]}, {image: i}]", "pre_start", [{"command": ["c"], "image": "x"}, {"image": "i"}]),
    ],
)
def test_defaults(tmp_path: Path, keys: str, key: str, found: Any) -> None:
    result = service(tmp_path, keys).get(key)
    if key == "pre_start":
        result = [{name: one[name] for name in ("command", "image") if one.get(name)} for one in result]
    elif isinstance(result, dict):
        result = {name: result[name] for name in ("replicas",)}
    assert result == found
