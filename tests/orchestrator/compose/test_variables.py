"""The variables that files ask for, and the hash of a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose.hashes import service_hash
from orchestrator.compose.load import load, read
from orchestrator.compose.printed import as_yaml
from orchestrator.compose.variables import Variable, variables
from orchestrator.decide import expand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("$A", [("A", False, "", "")], id="plain"),
        pytest.param("${A}", [("A", False, "", "")], id="in braces"),
        pytest.param("${A:-x} ${B-y}", [("A", False, "x", ""), ("B", False, "y", "")], id="defaults"),
        pytest.param("${A:?why} ${B?}", [("A", True, "", ""), ("B", True, "", "")], id="required"),
        pytest.param("${A:+x} ${B+y}", [("A", False, "", "x"), ("B", False, "", "y")], id="alternates"),
        pytest.param("${A:-${B:-c}}", [("A", False, "${B:-c}", ""), ("B", False, "c", "")], id="nested"),
        pytest.param("${A:+${B?x}}", [("A", False, "", "${B?x}"), ("B", True, "", "")], id="nested, required"),
        pytest.param("${A:?${B}}", [("A", True, "", "")], id="not in the message"),
        pytest.param("$$A $5 $", [], id="no variable"),
        pytest.param("${A ${B", [], id="not closed"),
        pytest.param("$A ${A:-x} ${A-y}", [("A", False, "x", "")], id="the first default counts"),
        pytest.param("${A?} ${A:-x}", [("A", True, "x", "")], id="required in one place is required"),
    ],
)
def test_variables(text: str, expected: list[tuple[str, bool, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(f"services: {{a: {{image: x, labels: {{$KEY: '{text}'}}}}}}")
    composed = read([file], environ={}, cwd=tmp_path, interpolated=False)
    assert variables(composed.everything) == [Variable(*one) for one in expected]


def test_a_hostile_nesting_ends(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {a: {image: '" + "${A:-" * 2000 + "}" * 2000 + "'}}")
    found = variables(read([file], environ={}, cwd=tmp_path, interpolated=False).everything)
    assert {variable.name for variable in found} <= {"A"}


SHORT = """
services:
  a:
    image: x
    command: run ${B:-it now}
    ports: ["${P:-80}:9000", "$Q:81", "82:82"]
    volumes: ["${V:-/v}:/x", "${W:-w}:/y", "w:/z"]
    devices: ["${D:-/dev/d}:/d"]
volumes: {w: }
"""


def test_names_with_a_variable_left_in_them_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {a: {image: x, depends_on: [$B], networks: [$C], secrets: [$D]}}")
    raw = read([file], environ={}, cwd=tmp_path, interpolated=False)
    assert [variable.name for variable in variables(raw.root)] == ["B", "C", "D"]
    assert raw.document()["services"]["a"]["networks"] == ["$C"]


def test_short_forms_stay_short_where_a_variable_is_left_in_them(tmp_path: Path) -> None:
    file, printed = tmp_path / "compose.yaml", tmp_path / "printed.yaml"
    file.write_text(SHORT)
    raw = read([file], environ={}, cwd=tmp_path, interpolated=False)
    assert [variable.name for variable in variables(raw.everything)] == ["B", "D", "P", "Q", "V", "W"]
    assert raw.warnings == ()
    service = raw.document()["services"]["a"]
    assert service["command"] == "run ${B:-it now}"
    assert service["ports"][:2] == ["${P:-80}:9000", "$Q:81"]
    assert service["ports"][2]["target"] == 82
    printed.write_text(as_yaml(raw.document()))
    meant = [read([path], environ={"Q": "1"}, cwd=tmp_path).document() for path in (file, printed)]
    assert meant[0] == meant[1]


BASE = """
services:
  a:
    image: x
    command: run it
    ports: ["80:80"]
    volumes: ["v:/v", "/srv:/srv"]
  b: {image: y}
volumes: {v: {name: one}, w: {}}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("image: x", "image: x:2", id="image"),
        pytest.param("run it", "run it again", id="command"),
        pytest.param('"80:80"', '"81:80"', id="a port"),
        pytest.param("v:/v", "w:/v", id="another volume"),
        pytest.param("name: one", "name: two", id="another name of the volume"),
        pytest.param("name: one", "name: one, driver_opts: {type: tmpfs}", id="what is behind the volume"),
        pytest.param("name: one", "name: one, external: true", id="whose volume it is"),
        pytest.param("name: one", "name: one, labels: {a: b}", id="labels of the volume"),
        pytest.param(
            '"v:/v"', "{type: volume, source: v, target: /v, volume: {labels: {a: b}}}", id="labels of a mount"
        ),
        pytest.param(
            '"v:/v"', "{type: volume, source: v, target: /v, volume: {subpath: a}}", id="a part of the volume"
        ),
        pytest.param('"v:/v"', '"/v"', id="an anonymous volume"),
        pytest.param("/srv:/srv", "/srv:/srv:rprivate", id="no propagation"),
        pytest.param("/srv:/srv", "/srv:/srv:rslave", id="propagation"),
        pytest.param("image: x", "image: x\n    volumes_from: [b]", id="volumes of another"),
        pytest.param("/srv:/srv", "/srv:/srv:ro", id="read only"),
        pytest.param("command: run it", "command: run it\n    environment: {A: b}", id="a variable"),
        pytest.param("command: run it", "command: run it\n    labels: {A: b}", id="a label"),
        pytest.param("command: run it", "command: run it\n    user: '1'", id="a user"),
        pytest.param("command: run it", "command: [run, it]", id="another form"),
        pytest.param("image: x", "scale: 3\n    image: x", id="replicas"),
        pytest.param("image: x", "image: x\n    restart: always", id="restart"),
        pytest.param("image: x", "image: x\n    mem_limit: 1g", id="a limit"),
        pytest.param("image: x", "image: x\n    depends_on: [b]", id="a dependency"),
        pytest.param("image: x", "image: x\n    stop_signal: SIGINT", id="a signal"),
        pytest.param("image: x", "image: x\n    healthcheck: {test: exit 0}", id="a health check"),
        pytest.param("image: x", "image: x\n    x-gorae-healthcheck: {tcp: {port: 1}}", id="a probe"),
        pytest.param("image: x", "image: x\n    deploy: {resources: {limits: {cpus: 1}}}", id="deploy"),
        pytest.param("image: x", "image: x\n    attach: false", id="what is ignored"),
        pytest.param("/srv:/srv", "/srv:/srv:z", id="what is ignored in a mount"),
        pytest.param('"80:80"', "{target: 80, published: 80, name: web}", id="a port's name"),
        pytest.param("image: y", "image: z", id="another service"),
        pytest.param("image: x", "image: x\n    networks: [default]", id="the default network by its name"),
        pytest.param("image: x", "image: x\n    network_mode: bridge", id="the default network, as Docker calls it"),
        pytest.param('    ports: ["80:80"]', "    network_mode: none", id="no network"),
        pytest.param('    ports: ["80:80"]', "    network_mode: 'service:b'", id="a network of another"),
        pytest.param('    ports: ["80:80"]', "    network_mode: host", id="the network of the host"),
        pytest.param("image: x", "image: x\n    networks: {default: {aliases: [n]}}", id="an alias"),
        pytest.param("image: x", "image: x\n    networks: {default: {priority: 1}}", id="what is ignored of a network"),
        pytest.param("w: {}}", "w: {}}\nnetworks: {default: {internal: true}}", id="an internal network"),
        pytest.param("w: {}}", "w: {}}\nnetworks: {default: {name: shared}}", id="a shared network"),
        pytest.param("w: {}}", "w: {}}\nnetworks: {default: {labels: [n]}}", id="labels of a network"),
        pytest.param("w: {}}", "w: {}}\nnetworks: {default: {external: true, name: p_default}}", id="the same name"),
    ],
)
def test_the_hash_changes_when_the_template_does(old: str, new: str, tmp_path: Path) -> None:
    assert BASE.count(old) == 1
    before, after = (_hashes(text, tmp_path) for text in (BASE, BASE.replace(old, new)))
    assert (before[0] != after[0]) == (before[1] != after[1])


def test_the_hash_changes_with_the_volumes_that_are_taken_over(tmp_path: Path) -> None:
    text = BASE.replace("image: x", "image: x\n    volumes_from: [b]").replace(
        "{image: y}", "{image: y, volumes: [%s]}"
    )
    found = [_hashes(text % mount, tmp_path) for mount in ("w:/w", "w:/other", "w:/w:ro")]
    assert len({ours for ours, _ in found}) == len({template for _, template in found}) == 3


def test_a_hash_is_stable(tmp_path: Path) -> None:
    """Over versions, too: people keep them. Change this only with a reason, and say so in the notes of the release."""
    assert _hashes(BASE, tmp_path)[0] == "ea85349b73c39841e1dd69ed9f37b9bcdb758e9c19b91bf92f822f6c6db1cf80"


def _hashes(text: str, folder: Path) -> tuple[str, str]:
    """(ours, the template that decides whether containers are replaced)"""
    file = folder / "compose.yaml"
    file.write_text(text)
    where: dict[str, Any] = {"environ": {}, "cwd": folder, "project": "p"}
    stack = load([file], **where).stack
    return service_hash(read([file], **where).document(), "a"), expand.service(stack, "a", "sha256:1").template
