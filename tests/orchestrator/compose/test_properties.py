"""What holds for any files: merging, variables, and reading what was printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.compose.errors import ComposeError, Report
from orchestrator.compose.interpolate import interpolate
from orchestrator.compose.load import load, read
from orchestrator.compose.merge import merge
from orchestrator.compose.nodes import BAD, Mark, Node, plain
from orchestrator.compose.printed import escaped
from orchestrator.compose.validate import validate
from tests.support.canonical import canonical, differences
from tests.support.cases import Case, cases

PLACE = Mark("f", 1, 1)


def tree(value: Any) -> Node:
    if isinstance(value, dict):
        value = {key: tree(child) for key, child in value.items()}
    elif isinstance(value, list):
        value = [tree(child) for child in value]
    return Node(value, PLACE, PLACE)


NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(alphabet="abc/:$", min_size=1, max_size=5)
# Services in canonical form, of keys that merge by name, by place, as a list, or not at all.
SERVICES = st.fixed_dictionaries(
    {},
    optional={
        "image": TEXTS,
        "user": TEXTS,
        "command": st.lists(TEXTS, max_size=2),
        "environment": st.dictionaries(NAMES, st.none() | TEXTS, max_size=3),
        "labels": st.dictionaries(NAMES, TEXTS, max_size=3),
        "dns": st.lists(NAMES, max_size=2, unique=True),
        "volumes": st.lists(
            st.fixed_dictionaries({"type": st.just("bind"), "source": TEXTS, "target": NAMES}),
            max_size=2,
            unique_by=lambda mount: mount["target"],
        ),
        "deploy": st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "labels": st.dictionaries(NAMES, TEXTS)}),
        "ulimits": st.dictionaries(NAMES, st.integers(0, 3) | st.just({"soft": 1, "hard": 2})),
    },
)  # fmt: skip
PROJECTS = st.fixed_dictionaries({"services": st.dictionaries(NAMES, SERVICES, max_size=3)})


@given(PROJECTS)
def test_merging_nothing_changes_nothing(project: dict[str, Any]) -> None:
    assert plain(merge(tree(project), tree({}))) == project
    assert plain(merge(tree({}), tree(project))) == project


@given(PROJECTS)
def test_merging_the_same_again_changes_nothing(project: dict[str, Any]) -> None:
    assert plain(merge(tree(project), tree(project))) == project


@given(PROJECTS, PROJECTS, PROJECTS)
def test_it_does_not_matter_which_two_of_three_merge_first(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]
) -> None:
    left = merge(merge(tree(one), tree(two)), tree(three))
    right = merge(tree(one), merge(tree(two), tree(three)))
    assert plain(left) == plain(right)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet="$${}AB:-?+ ", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_variables_are_replaced_or_reported(value: Any) -> None:
    report = Report()
    found = interpolate(tree(value), {"A": "v", "B": ""}.get, report)
    bad = sum(node.value is BAD for node in _all(found))
    assert bool(bad) == bool(report.problems)


@given(VALUES)
def test_doubled_dollars_come_back_as_they_were(value: Any) -> None:
    report = Report()
    found = interpolate(tree(escaped(value)), {}.get, report)
    assert repr(plain(found)) == repr(plain(tree(value)))
    assert not report.problems


@given(VALUES)
def test_any_tree_is_a_file_or_is_reported(value: Any) -> None:
    report = Report()
    found = validate(tree(value), report)
    assert isinstance(found.value, dict) or found.value is None or report.problems


def _all(node: Node) -> list[Node]:
    below = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else []
    return [node, *(found for child in below for found in _all(child))]


def _sample() -> list[Case]:
    """Enough to see every key; the corpus itself is test_corpus.py's."""
    accepted = (case for case in cases() if (case.folder / "expected.json").exists())
    return [case for case in accepted if crc32(case.id.encode()) % 8 == 0]


# Printed by the reference in a way that it does not read itself, or not printed at all, or read into another key.
ONE_WAY = ("blkio_config", "label_file", "models", "pre_start", "ulimits")


@pytest.mark.parametrize("case", _sample(), ids=lambda case: case.id)
def test_what_was_printed_is_read_as_the_same(case: Case, tmp_path: Path) -> None:
    model: dict[str, Any] = json.loads(json.dumps(case.expected).replace("@CASE@", "/case"))
    for service in model.get("services", {}).values():
        for key in ONE_WAY:
            service.pop(key, None)
        if "dockerfile_inline" not in service.get("build", {"dockerfile_inline": ""}):
            service["build"].setdefault("dockerfile", "Dockerfile")  # an empty one is not printed
        needs = service.get("depends_on", {})
        for name in needs.keys() - model["services"].keys():  # of an inactive profile
            del needs[name]
    first = _again(model, tmp_path)
    assert first == _again(first, tmp_path)
    assert [str(found) for found in differences(canonical(model), canonical(first))] == []


def _again(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "compose.yaml"
    path.write_text(json.dumps(escaped(model), ensure_ascii=False))
    return read([path], environ={"HOME": "/home/u"}, cwd=folder, profiles=["*"]).document()


TOKENS = [
    "x",
    "1",
    "$A",
    "/a:/b",
    "{}",
    "[]",
    "!reset",
    "!override []",
    "[x, x]",
    "{x: y}",
    "''",
    "null",
    "true",
    "-1",
    ".inf",
    "80:80",
    "5s",
]
KEYS = ["image", "build", "ports", "volumes", "networks", "extends", "env_file", "environment", "deploy", "healthcheck", "secrets", "configs", "depends_on", "scale", "gpus", "develop", "models", "provider", "pre_start", "tmpfs", "label_file", "links", "ulimits", "extra_hosts", "blkio_config"]  # fmt: skip
PLACES = [
    "services.a.{}",
    "services.b.{}",
    "services.a",
    "networks.n",
    "volumes.v",
    "secrets.s",
    "configs.c",
    "models.m",
    "include",
    "services",
]


@st.composite
def odd_files(draw: st.DrawFn) -> str:
    """Files that are nearly right: every value at most one step from what its key takes."""
    top: dict[str, Any] = {"services": {"a": {"image": "x"}, "b": {"image": "x"}}}
    for _ in range(draw(st.integers(1, 4))):
        *above, last = draw(st.sampled_from(PLACES)).format(draw(st.sampled_from(KEYS))).split(".")
        inner = top
        for part in above:
            inner = inner.setdefault(part, {}) if isinstance(inner.get(part, {}), dict) else {}
        value = draw(
            st.sampled_from(TOKENS)
            | st.lists(st.sampled_from(TOKENS), max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "source",
                        "target",
                        "path",
                        "type",
                        "file",
                        "service",
                        "test",
                        "external",
                        "name",
                        "resources",
                        "context",
                        "condition",
                        "watch",
                        "b",
                    ]
                ),
                st.sampled_from(TOKENS),
                max_size=3,
            )
        )
        inner[last] = value
    return _flow(top)  # fmt: skip


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(child)}" for key, child in value.items()) + "}"
    return "[" + ", ".join(map(_flow, value)) + "]" if isinstance(value, list) else str(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(odd_files(), odd_files(), st.booleans())
def test_odd_files_make_a_project_or_a_compose_error(tmp_path: Path, one: str, two: str, interpolated: bool) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for path, text in zip(files, (one, two), strict=True):
        path.write_text(text)
    how: dict[str, Any] = {"environ": {"HOME": "/h", "A": "1"}, "cwd": tmp_path, "project": "p", "profiles": ["*"]}
    try:
        json.dumps(read(files, interpolated=interpolated, **how).document())
        load(files, **how)
    except ComposeError as error:
        assert all(problem.message.startswith("cannot ") for problem in error.problems)
        marks = [(problem.message, problem.mark) for problem in error.problems]
        assert len(set(marks)) == len(marks)
