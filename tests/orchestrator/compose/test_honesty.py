"""What gorae makes of each key that a project uses, as told, and what of it hinders `up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.compose.errors import Report
from orchestrator.compose.honesty import findings, judge

from .support import composed


def told(folder: Path, keys: str, top: str = "") -> list[tuple[str, str, str]]:
    """(verdict, key, line:column) of the findings of a service; and of the file, where `top` is."""
    text = f"services:\n  a:\n    image: x\n    {keys}\n  b: {{image: x}}\n{top}\n"
    found = [finding for finding in findings(composed(folder, text).written) if finding.key != "services.b.image"]
    return [
        (finding.verdict, finding.key.removeprefix("services.a."), f"{finding.mark.line}:{finding.mark.column}")
        for finding in found
        if finding.key != "services.a.image"
    ]


@pytest.mark.parametrize(
    ("keys", "top", "found"),
    [
        pytest.param("user: u", "", [("supported", "user", "4:5")], id="supported"),
        pytest.param("privileged: true", "", [("refused", "privileged", "4:5")], id="refused"),
        pytest.param("blkio_config: {weight: 5}", "", [("refused", "blkio_config", "4:5")], id="refused with what is below"),
        pytest.param("attach: false", "", [("warned", "attach", "4:5")], id="warned of"),
        pytest.param("cap_add: []", "", [("supported", "cap_add", "4:5")], id="nothing of what is refused"),
        pytest.param("environment: {A: 1, B: 2}", "", [("supported", "environment", "4:5")], id="a mapping of names is one"),
        pytest.param(
            "deploy: {replicas: 2, placement: {constraints: [c]}, update_config: {parallelism: 1}}",
            "",
            [("supported", "deploy.replicas", "4:14"), ("warned", "deploy.placement", "4:27"), ("differs", "deploy.update_config", "4:58"), ("supported", "deploy.update_config.parallelism", "4:74")],
            id="each key of a mapping",
        ),
        pytest.param("deploy: {mode: replicated}", "", [("supported", "deploy.mode", "4:14")], id="a value that is spared"),
        pytest.param("deploy: {mode: some}", "", [("refused", "deploy.mode", "4:20")], id="a value that is not: its place"),
        pytest.param("pull_policy: if_not_present", "", [("supported", "pull_policy", "4:5")], id="the old word of a value"),
        pytest.param("networks: [default]", "networks: {default: {driver: bridge}}", [("supported", "networks", "4:5"), ("supported", "networks.default.driver", "6:22")], id="the name that is spared"),
        pytest.param("network_mode: host", "", [("differs", "network_mode", "4:19")], id="a network that is not its own"),
        pytest.param("networks: [nn]", "networks: {nn: {driver: macvlan, external: true}}", [("supported", "networks", "4:5"), ("refused", "networks.nn.driver", "6:25"), ("differs", "networks.nn.external", "6:34")], id="a driver"),
        pytest.param("networks: {nn: {aliases: [x]}}", "networks: {nn: }", [("supported", "networks.nn.aliases", "4:21"), ("supported", "networks", "6:1")], id="another name"),
    ],
)  # fmt: skip
def test_findings(tmp_path: Path, keys: str, top: str, found: list[tuple[str, str, str]]) -> None:
    assert told(tmp_path, keys, top) == found


def test_what_differs_is_told_and_looked_into(tmp_path: Path) -> None:
    found = told(tmp_path, "depends_on: {b: {condition: service_started, restart: true}}")
    assert found[0] == ("differs", "depends_on", "4:5")
    assert ("supported", "depends_on.b.restart", "4:50") in found


def test_what_a_build_cannot_honour_is_told(tmp_path: Path) -> None:
    build = "build: {context: ., platforms: [linux/arm64], secrets: [{source: s, target: t, uid: '1', mode: 0o400}]}"
    found = [(verdict, key) for verdict, key, _ in told(tmp_path, build, "secrets: {s: {environment: S}}")]
    assert ("differs", "build.platforms") in found
    assert [key for verdict, key in found if verdict == "warned"] == ["build.secrets[0].uid", "build.secrets[0].mode"]


def test_entries_of_a_list_are_told_one_by_one(tmp_path: Path) -> None:
    found = told(tmp_path, "volumes: ['/a:/a', '/b:/b:shared', {type: npipe, target: /t}]")
    assert [(verdict, key) for verdict, key, _ in found if verdict == "refused"] == [("refused", "volumes[2].type")]


def test_what_is_implied_or_unused_is_not_told(tmp_path: Path) -> None:
    found = told(tmp_path, "user: u", "volumes: {unused: {driver: nfs}}")
    assert found == [("supported", "user", "4:5"), ("supported", "volumes", "6:1")]


def test_judge_refuses_and_warns_with_place_and_reason(tmp_path: Path) -> None:
    text = "services:\n  a: {image: x, attach: false, user: u, deploy: {mode: some}, privileged: true}\n"
    report = Report()
    judge(composed(tmp_path, text).written, report)
    assert [str(problem) for problem in report.problems] == [
        "compose.yaml:2:56: cannot use services.a.deploy.mode: 'some': Compose has no such mode",
        "compose.yaml:2:63: cannot use services.a.privileged: gorae does not support it yet",
    ]
    assert list(report.warnings) == ["compose.yaml:2:17: services.a.attach is ignored: gorae logs shows every service"]


def test_every_refusal_is_a_sentence(tmp_path: Path) -> None:
    text = "services:\n  a: {image: x, configs: [c], cap_add: [A], gpus: all, privileged: true}\nconfigs: {c: {content: t}}\n"
    report = Report()
    judge(composed(tmp_path, text).written, report)
    assert len(report.problems) == 5
    assert all(problem.message.startswith("cannot use ") and problem.mark for problem in report.problems)
