"""05-services.md, extends: a service beneath another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from .support import composed, document, refusals


def service(folder: Path, files: dict[str, str], **environ: str) -> dict[str, Any]:
    found: dict[str, Any] = document(folder, files, environ)["services"]["a"]
    return found


BASE = "services: {b: {image: base, user: u, environment: {A: 1, B: 1}}}\n"


@pytest.mark.parametrize(
    "extends", ["b", "{service: b}", "{service: b, file: b.yml}", "{file: ./b.yml, service: b}"]
)  # fmt: skip
def test_the_forms(tmp_path: Path, extends: str) -> None:
    own = f"services:\n  a: {{extends: {extends}, image: own, environment: [B=2]}}\n"
    files = {
        "compose.yaml": own if "file" in extends else own + BASE.replace("services: {b", "  b").replace("}}}", "}}"),
        "b.yml": BASE,
    }
    found = service(tmp_path, files)
    assert (found["image"], found["user"], found["environment"]) == ("own", "u", {"A": "1", "B": "2"})
    assert "extends" not in found


@pytest.mark.parametrize(
    ("base", "own", "found"),
    [
        pytest.param("command: [a]", "command: b", {"command": ["b"]}, id="command"),
        pytest.param("ports: ['1:1']", "ports: ['2:2']", {"ports": ["1", "2"]}, id="lists are appended"),
        pytest.param("volumes: ['/a:/x', '/b:/y']", "volumes: ['/c:/x']", {"volumes": ["/c", "/b"]}, id="by target"),
        pytest.param("healthcheck: {test: [CMD, a], interval: 5s}", "healthcheck: {test: [CMD, b]}", {"healthcheck": {"test": ["CMD", "b"], "interval": "5s"}}, id="healthcheck"),
        pytest.param("environment: {A: 1, B: 1}", "environment: {A: !reset }", {"environment": {"B": "1"}}, id="reset"),
        pytest.param("environment: {A: 1}", "environment: !override {B: 2}", {"environment": {"B": "2"}}, id="override"),
        pytest.param("user: u", "user:", {"user": "u"}, id="an empty value keeps"),
        pytest.param("depends_on: [c]", "user: u", {"depends_on": {"c": {"condition": "service_started", "required": True}}}, id="depends_on"),
        pytest.param("links: [c]", "user: u", {"links": ["c"]}, id="links"),
    ],
)  # fmt: skip
def test_the_own_word_goes_over_the_base(tmp_path: Path, base: str, own: str, found: dict[str, Any]) -> None:
    text = f"services:\n  a:\n    extends: b\n    {own}\n  b:\n    image: x\n    {base}\n  c: {{image: x}}\n"
    result = service(tmp_path, {"compose.yaml": text})
    for key in ("ports", "volumes"):
        if key in found:
            result[key] = [entry.get("published") or entry["source"] for entry in result[key]]
    assert {key: result.get(key) for key in found} == found


def test_a_chain_through_files(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "services: {a: {extends: {file: one/b.yml, service: b}, environment: {OWN: 1}}}\n",
        "one/b.yml": "services: {b: {extends: {file: ../two/c.yml, service: c}, build: ./b, env_file: b.env}}\n",
        "two/c.yml": "services: {c: {extends: d, volumes: ['./c:/c']}, d: {image: d, labels: {l: 1}, label_file: d.labels}}\n",
        "one/b.env": "B=1\n",
        "two/d.labels": "m=2\n",
    }
    found = service(tmp_path, files)
    assert (found["image"], found["build"]["context"], found["volumes"][0]["source"]) == ("d", "@/one/b", "@/two/c")
    assert found["environment"] == {"B": "1", "OWN": "1"}
    assert found["labels"] == {"l": "1", "m": "2"}


def test_the_order_of_services_does_not_matter(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    rows = [f"  {name}: {{extends: {base}, environment: {{{name}: 1}}}}\n" for name, base in itertools.pairwise(names)]
    last = "  d: {image: x}\n"
    one = service(tmp_path, {"compose.yaml": "services:\n" + "".join([*rows, last])})
    other = service(tmp_path, {"compose.yaml": "services:\n" + "".join([last, *reversed(rows)])})
    assert one == other
    assert one["environment"] == {"a": "1", "b": "1", "c": "1"}


def test_variables_are_those_of_the_project(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "services: {a: {extends: {file: sub/b.yml, service: b}}}\n",
        "sub/b.yml": "services: {b: {image: '${TAG:-none}'}}\n",
        "sub/.env": "TAG=sub\n",
    }
    assert service(tmp_path, files)["image"] == "none"
    assert service(tmp_path, files, TAG="shell")["image"] == "shell"


def test_services_of_the_other_file_that_are_not_extended_are_not_there(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "services: {a: {extends: {file: b.yml, service: b}}}\n",
        "b.yml": "services: {b: {image: x}, c: {image: y}}\nvolumes: {v: }\n",
    }
    assert set(document(tmp_path, files)["services"]) == {"a"}


def test_a_later_file_merges_over_the_extended_service(tmp_path: Path) -> None:
    files = {
        "one.yaml": "services: {a: {extends: b, environment: {A: own}}, b: {image: x, environment: {A: base, B: base}}}\n",
        "two.yaml": "services: {a: {environment: {B: later}}, b: {image: y}}\n",
    }
    found = service(tmp_path, files)
    assert (found["image"], found["environment"]) == ("x", {"A": "own", "B": "later"})


def test_an_unknown_key_beside_service_is_warned_of(tmp_path: Path) -> None:
    found = composed(tmp_path, "services: {a: {extends: {service: b, files: c}}, b: {image: x}}\n")
    assert found.warnings == (
        "compose.yaml:1:38: services.a.extends.files is ignored: Compose has no such key; did you mean file?",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"compose.yaml": "services: {a: {extends: a}}\n"}, "compose.yaml:1:25: cannot extend a: the services extend each other: a → a", id="itself"),
        pytest.param(
            {"compose.yaml": "services: {a: {extends: b}, b: {extends: c}, c: {extends: a}}\n"},
            "compose.yaml:1:25: cannot extend a: the services extend each other: a → b → c → a",
            id="a circle",
        ),
        pytest.param(
            {
                "compose.yaml": "services: {a: {extends: {file: b.yml, service: b}}}\n",
                "b.yml": "services: {b: {extends: {file: compose.yaml, service: a}}}\n",
            },
            "compose.yaml:1:25: cannot extend a: the services extend each other: a → b → a",
            id="a circle through files",
        ),
        pytest.param({"compose.yaml": "services: {a: {extends: b}}\n"}, "compose.yaml:1:25: cannot extend b in a: there is no service b", id="no such service"),
        pytest.param(
            {"compose.yaml": "services: {a: {extends: {file: b.yml, service: b}}}\n", "b.yml": "services: {c: {image: x}}\n"},
            "compose.yaml:1:25: cannot extend b in a: there is no service b in b.yml",
            id="not in the other file",
        ),
        pytest.param(
            {"compose.yaml": "services: {a: {extends: {file: b.yml, service: b}}}\n"},
            "compose.yaml:1:25: cannot read b.yml: No such file or directory (check the path and its permissions)",
            id="no such file",
        ),
        pytest.param(
            {"compose.yaml": "services: {a: {extends: {file: b.yml}}}\n", "b.yml": BASE},
            "compose.yaml:1:25: cannot extend a: `service` is missing (extends: {service: NAME})",
            id="no service named",
        ),
        pytest.param(
            {"compose.yaml": "services: {a: {extends: {file: b.yml, service: b}}}\n", "b.yml": "services: {b: {image: x, portz: []}}\n"},
            "b.yml:1:26: cannot use services.b.portz: Compose has no such key; did you mean ports?",
            id="a mistake in the base",
        ),
        pytest.param(
            {"compose.yaml": "services: {a: {extends: {file: b.yml, service: b}}}\n", "b.yml": "services: {b: {image: x, volumes: ['vol:/v']}}\nvolumes: {vol: }\n"},
            "b.yml:1:36: cannot mount the volume vol in a: no volume of that name is declared (add volumes: {vol: })",
            id="volumes are not imported",
        ),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    assert refusals(tmp_path, files) == [message]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        pytest.param("user: 5", "user: a", id="text"),
        pytest.param("privileged: 5", "privileged: true", id="a truth"),
        pytest.param("cgroup: foo", "cgroup: host", id="a word"),
        pytest.param("healthcheck: {interval: 5}", "healthcheck: {interval: 5s}", id="in a mapping"),
        pytest.param("environment: 5", "environment: {A: b}", id="no mapping at all"),
    ],
)
def test_a_wrong_value_may_be_replaced_in_what_extends_another_file_s_service(
    tmp_path: Path, wrong: str, right: str
) -> None:
    """As in the reference: files are validated with what they extend, and before they are merged."""
    base = f"services: {{b: {{image: x, {wrong}}}}}\n"
    over = "services: {a: {extends: {file: base.yml, service: b}, %s}}\n"
    assert "a" in document(tmp_path, {"compose.yaml": over % right, "base.yml": base})["services"]
    assert len(refusals(tmp_path, {"compose.yaml": over % "hostname: h", "base.yml": base})) == 1
    same = f"services: {{b: {{image: x, {wrong}}}, a: {{extends: b, {right}}}}}\n"
    assert len(refusals(tmp_path, same)) == 1
    assert len(refusals(tmp_path, {"compose.yaml": base, "over.yaml": f"services: {{b: {{{right}}}}}\n"})) == 1
