from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import UserError
from orchestrator.decide.order import order
from tests.support.orchestrating import stack


def model(**depends: str) -> dict[str, object]:
    services = {name: {"image": "i", "depends_on": {dep: {} for dep in deps.split()}} for name, deps in depends.items()}
    return dict(stack(**services).services)


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        (model(b="", a=""), ("a", "b")),
        (model(web="db cache", db="", cache="db"), ("db", "cache", "web")),
        (model(a="b", b="c", c="d", d=""), ("d", "c", "b", "a")),
    ],
    ids=["equals by name", "a diamond", "a chain"],
)
def test_dependencies_come_first(services: dict[str, object], expected: tuple[str, ...]) -> None:
    assert order(services) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("services", "code", "words"),
    [
        (model(web="db", db="web"), "dependency-cycle", "db → web → db"),
        (model(a="a"), "dependency-cycle", "a → a"),
        (model(x="b", b="c", c="d", d="b"), "dependency-cycle", "b → c → d → b"),
        (model(web="db"), "dependency-undefined", "web depends on db, which is not defined"),
    ],
    ids=["two", "itself", "a cycle further down", "undefined"],
)
def test_refusals(services: dict[str, object], code: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        order(services)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.message.endswith(words)


def test_an_optional_dependency_may_be_missing() -> None:
    services = stack(web={"image": "i", "depends_on": {"db": {"required": False}}}).services
    assert order(services) == ("web",)


@given(edges=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda e: e[0] > e[1])))
def test_every_acyclic_graph_is_ordered(edges: set[tuple[int, int]]) -> None:
    services = model(**{f"s{n}": " ".join(f"s{b}" for a, b in sorted(edges) if a == n) for n in range(8)})
    got = order(services)  # type: ignore[arg-type]
    assert sorted(got) == sorted(services)
    for a, b in edges:
        assert got.index(f"s{b}") < got.index(f"s{a}")
