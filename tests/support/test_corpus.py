"""The comparison forgives spelling and nothing else; a refusal counts only when it is about the same thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import deliberate
from tests.support.alike import alike
from tests.support.canonical import canonical, differences
from tests.support.cases import Case, Refused, cases
from tests.support.corpus import judge


def test_deliberate_differences_stay_few() -> None:
    rules = [*deliberate.RULES, *deliberate.REFUSALS]
    assert len(rules) <= 10
    assert all(rule.reason for rule in rules)


def service(**keys: Any) -> dict[str, Any]:
    return {"services": {"a": keys}}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(service(command=None, networks={"n": None}), service(networks={"n": {}}), id="null is absent"),
        pytest.param(service(deploy={"resources": {}, "placement": {}}), service(), id="empty is absent"),
        pytest.param(service(mem_limit="1024"), service(mem_limit=1024), id="bytes"),
        pytest.param(service(cpus="0.5"), service(cpus=0.5), id="processors"),
        pytest.param(service(stop_grace_period="1m30s"), service(stop_grace_period="90s"), id="durations"),
        pytest.param(service(secrets=[{"mode": "0440"}]), service(secrets=[{"mode": "0o440"}]), id="mode in octal"),
        pytest.param(service(ports=[{"published": "80"}]), service(ports=[{"published": 80}]), id="published port"),
        pytest.param(
            service(volumes=[{"type": "bind", "bind": {"create_host_path": True}}]),
            service(volumes=[{"type": "bind"}]),
            id="create_host_path is the default",
        ),
        pytest.param({"x-a": 1, **service(**{"x-b": 2})}, service(), id="extensions"),
    ],
)
def test_one_meaning(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right", "places"),
    [
        pytest.param(service(command=None), service(command=[]), ["services.a.command"], id="empty command"),
        pytest.param(service(environment={"A": None}), service(), ["services.a.environment"], id="removed variable"),
        pytest.param(
            service(environment={"A": None}), service(environment={"A": ""}), ["services.a.environment.A"], id="unset"
        ),
        pytest.param(service(labels={"x-a": "1"}), service(labels={}), ["services.a.labels"], id="a label named x-"),
        pytest.param(
            service(environment={"A": "1"}), service(environment={"A": 1}), ["services.a.environment.A"], id="text"
        ),
        pytest.param(service(privileged=True), service(privileged=1), ["services.a.privileged"], id="true is not 1"),
        pytest.param(
            service(volumes=[{"type": "bind", "bind": {"create_host_path": False}}]),
            service(volumes=[{"type": "bind"}]),
            ["services.a.volumes.0.bind"],
            id="create_host_path",
        ),
        pytest.param(
            service(dns=["a", "b"]), service(dns=["b", "a"]), ["services.a.dns.0", "services.a.dns.1"], id="order"
        ),
        pytest.param(service(networks={"n": None}), service(), ["services.a.networks"], id="a network"),
        pytest.param(
            service(labels={"size": "1024"}),
            service(labels={"size": 1024}),
            ["services.a.labels.size"],
            id="label size",
        ),
        pytest.param(service(mem_limit="1024"), service(mem_limit="1023"), ["services.a.mem_limit"], id="bytes"),
    ],
)
def test_different_meanings(left: dict[str, Any], right: dict[str, Any], places: list[str]) -> None:
    assert [".".join(item.path) for item in differences(canonical(left), canonical(right))] == places


@pytest.mark.parametrize(
    ("expected", "ours", "same"),
    [
        (
            'service "a" refers to undefined volume data: invalid compose project',
            'services.a.volumes[0]: no volume "data"',
            True,
        ),
        (
            'service "a" refers to undefined volume data: invalid compose project',
            'services.a.volumes[0]: no volume "data2"',
            False,
        ),
        ('service "a" refers to undefined volume data: invalid compose project', "cannot mount data twice", False),
        (
            "validating @CASE@/compose.yaml: services.a.user must be a string",
            "services.a.user must be text, not 5",
            True,
        ),
        ("validating @CASE@/compose.yaml: services.a.user must be a string", "services.a.image must be text", False),
        ("validating @CASE@/compose.yaml: services.a.foo false schema", 'there is no key "foo" in a service', True),
        (
            "env file @CASE@/nope.env not found: stat @CASE@/nope.env: no such file",
            "cannot read nope.env: no such file",
            True,
        ),
        ("dependency cycle detected: a -> b -> a", "services a and b depend on each other", True),
        ("dependency cycle detected: a -> b -> a", "services.b depends on c, which is not there", False),
    ],
)
def test_refusals_are_alike(expected: str, ours: str, same: bool) -> None:
    assert alike(expected, [ours]) is same


def test_a_refusal_where_a_model_must_come_out_is_a_failure(tmp_path: Path) -> None:
    def refuse(case: Case, here: Path) -> dict[str, Any]:
        raise Refused(["compose.yaml:1:1: cannot use image"])

    case = next(case for case in cases() if case.id == "probes/interp-forms")
    assert judge(case, refuse, tmp_path).verdict == "different"
