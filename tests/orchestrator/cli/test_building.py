"""build: what buildah is asked, what is built when, and what happens without it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import UserError
from orchestrator.cli import building
from orchestrator.cli.main import main
from orchestrator.compose.load import load, read
from tests.orchestrator.cli.fakes import FakeDaemon

PLAIN = ["--format=docker", "--tag=shop-web", "--layers", "--force-rm", "--isolation=chroot", "--network=host"]


def project(folder: Path, text: str) -> dict[str, Any]:
    (folder / "compose.yaml").write_text("name: shop\n" + text)
    return read([folder / "compose.yaml"], environ={"SET": "v"}, cwd=folder).document()


def asked(folder: Path, section: str, *, more: str = "", build_arg: tuple[str, ...] = ()) -> list[str]:
    found = project(folder, f"services: {{web: {{build: {section}}}}}\n{more}")
    arguments = argparse.Namespace(no_cache=False, build_arg=list(build_arg))
    return [word.replace(str(folder), "@") for word in building.command(found, "web", arguments)]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUILDAH_ISOLATION", raising=False)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        pytest.param("ctx", ["--file=@/ctx/Dockerfile"], id="context"),
        pytest.param("{dockerfile: d/D}", ["--file=@/d/D"], id="dockerfile is the context's"),
        pytest.param("{dockerfile: /abs/D}", ["--file=/abs/D"], id="dockerfile elsewhere"),
        pytest.param("{context: 'https://h/r.git', dockerfile: D}", ["--file=D"], id="dockerfile of a repository"),
        pytest.param("{dockerfile_inline: FROM x}", ["--file=-"], id="dockerfile_inline"),
        pytest.param("{args: [SET, UNSET, A=b c]}", ["--build-arg=A=b c", "--build-arg=SET=v"], id="args"),
        pytest.param("{labels: {a: 'b=c'}}", ["--label=a=b=c"], id="labels"),
        pytest.param("{target: one}", ["--target=one"], id="target"),
        pytest.param("{platforms: [linux/arm64]}", ["--platform=linux/arm64"], id="platforms"),
        pytest.param("{secrets: [s]}", ["--secret=id=s,src=@/s.txt"], id="secret of a file"),
        pytest.param("{secrets: [{source: e, target: x}]}", ["--secret=id=x,env=SET"], id="secret of the environment"),
        pytest.param("{extra_hosts: ['h:1.2.3.4']}", ["--add-host=h:1.2.3.4"], id="extra_hosts"),
        pytest.param("{ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}}", ["--ulimit=nofile=1:2", "--ulimit=nproc=3"], id="ulimits"),
        pytest.param("{ssh: [default]}", ["--ssh=default"], id="ssh"),
        pytest.param("{shm_size: 1m}", ["--shm-size=1048576"], id="shm_size"),
        pytest.param("{network: none}", ["--network=none"], id="network"),
        pytest.param("{pull: true}", ["--pull=always"], id="pull"),
        pytest.param("{no_cache: true}", ["--no-cache"], id="no_cache"),
        pytest.param("{additional_contexts: {c: ./d}}", ["--build-context=c=@/d"], id="additional_contexts"),
        pytest.param("{cache_from: [x], cache_to: [y], isolation: z, sbom: true}", [], id="what buildah does not need"),
    ],
)  # fmt: skip
def test_what_buildah_is_asked(tmp_path: Path, section: str, words: list[str]) -> None:
    secrets = "secrets: {s: {file: s.txt}, e: {environment: SET}}"
    found = asked(tmp_path, section, more=secrets)
    usual = {*PLAIN, "--file=@/Dockerfile", "--pull=false"}
    assert [word for word in found if word not in usual] == [word for word in words if word not in usual]
    assert len([word for word in found if word.startswith(("--file", "--pull", "--network"))]) == 3


@pytest.mark.parametrize(("section", "args"), [("{args: {A: b}}", ()), (".", ("A=b",))], ids=["file", "command line"])
def test_no_step_comes_from_the_cache_of_another_argument(tmp_path: Path, section: str, args: tuple[str, ...]) -> None:
    assert not {"--layers", "--force-rm"} & set(asked(tmp_path, section, build_arg=args))  # buildah wants both or none


def test_a_build_that_fails_leaves_no_container(tmp_path: Path) -> None:
    assert "--force-rm" in asked(tmp_path, ".")


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    found = asked(tmp_path, "{args: {A: file}}", build_arg=("A=line",))
    assert found.index("--build-arg=A=file") < found.index("--build-arg=A=line")


def test_a_secret_that_nothing_here_holds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot build web: the secret s has no file and no environment"):
        asked(tmp_path, "{secrets: [s]}", more="secrets: {s: {external: true}}")


THREE = """\
services:
  a: {build: {additional_contexts: {x: 'service:c'}}}
  b: {image: plain}
  c: {image: 'own:1', build: .}
"""


def test_others_are_built_upon_what_came_first(tmp_path: Path) -> None:
    found = project(tmp_path, THREE)
    assert building.buildable(found) == ["c", "a"]
    words = building.command(found, "a", argparse.Namespace(no_cache=False, build_arg=[]))
    assert "--build-context=x=container-image://localhost/own:1" in words


def test_builds_in_a_circle_are_refused(tmp_path: Path) -> None:
    text = THREE.replace("build: .", "build: {additional_contexts: {y: 'service:a'}}")
    with pytest.raises(UserError, match="cannot build a, c: each waits for another"):
        building.buildable(project(tmp_path, text))


def test_the_stack_has_names_for_what_is_built(tmp_path: Path) -> None:
    project(tmp_path, THREE + "  D: {build: ., pull_policy: missing}\n")
    services = load([tmp_path / "compose.yaml"], environ={}, cwd=tmp_path).stack.services
    assert {name: (one.image, one.pull_policy) for name, one in services.items()} == {
        "a": ("shop-a", "build"),
        "b": ("plain", "missing"),
        "c": ("own:1", "build"),
        "D": ("shop-d", "missing"),
    }


def test_without_buildah(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("compose.yaml").write_text("name: shop\nservices: {web: {build: .}}\n")
    daemon.answers["GET", "/v1/images"] = {"images": []}
    monkeypatch.setenv("PATH", "/nowhere")
    for words in (["build"], ["up"], ["up", "--build"]):
        assert main(words) == 1
        assert "cannot build web: buildah is not installed\ntry  apt-get install buildah" in capsys.readouterr().err
    assert {(method, target) for method, target, _ in daemon.asked} == {("GET", "/v1/images")}


@pytest.mark.parametrize(
    ("name", "why"), [("db", "it has no build section"), ("nope", "it is no service of these files")]
)
def test_what_cannot_be_built(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], name: str, why: str) -> None:
    Path("compose.yaml").write_text("name: shop\nservices: {web: {build: .}, db: {image: x}}\n")
    assert main(["build", name]) == 1
    assert f"cannot build {name}: {why}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("here", "words", "policy", "expected"),
    [
        pytest.param(["shop-web:latest"], [], "", [], id="here"),
        pytest.param([], [], "", ["web"], id="missing"),
        pytest.param([], [], ", pull_policy: missing", [], id="to be pulled"),
        pytest.param([], ["--no-build"], "", [], id="no-build"),
        pytest.param(["shop-web:latest"], ["--build"], "", ["web"], id="asked for"),
        pytest.param(["shop-web:latest"], ["--pull", "build"], "", ["web"], id="asked for as a policy"),
        pytest.param(["shop-web:latest"], [], ", pull_policy: build", ["web"], id="pull_policy"),
    ],
)
def test_what_up_builds(
    daemon: FakeDaemon,
    monkeypatch: pytest.MonkeyPatch,
    here: list[str],
    words: list[str],
    policy: str,
    expected: list[str],
) -> None:
    Path("compose.yaml").write_text(f"name: shop\nservices: {{web: {{build: .{policy}}}}}\n")
    daemon.answers["GET", "/v1/images"] = {"images": [{"id": "sha256:1", "names": here}]}
    built: list[str] = []

    def note(arguments: Any, project: Any, services: list[str], *_: Any) -> None:
        built.extend(services)

    monkeypatch.setattr(building, "build", note)
    main(["up", *words])
    assert built == expected
