"""Which files, which variables, which name (03-compose-file.md, 04-version-and-name.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose.load import ComposeError, Loaded, load

from .support import MINIMAL, write


def image(name: str) -> str:
    return f"services: {{a: {{image: {name}}}}}\n"


def run(folder: Path, environ: dict[str, str] | None = None, **arguments: Any) -> Loaded:
    return load(arguments.pop("files", None), environ=environ or {}, cwd=folder, **arguments)


@pytest.mark.parametrize(
    ("present", "used"),
    [
        (("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"), ("compose.yaml",)),
        (("compose.yml", "docker-compose.yml", "docker-compose.yaml"), ("compose.yml",)),
        (("docker-compose.yml", "docker-compose.yaml"), ("docker-compose.yml",)),
        (("docker-compose.yaml",), ("docker-compose.yaml",)),
        (("compose.yaml", "compose.override.yaml"), ("compose.yaml", "compose.override.yaml")),
        (("compose.yaml", "docker-compose.override.yml"), ("compose.yaml", "docker-compose.override.yml")),
        (("compose.yaml", "compose.override.yml", "compose.override.yaml"), ("compose.yaml", "compose.override.yml")),
    ],
)
def test_search(tmp_path: Path, present: tuple[str, ...], used: tuple[str, ...]) -> None:
    write(tmp_path, {name: image("x") for name in present})
    assert [path.name for path in run(tmp_path).files] == list(used)


def test_more_than_one_candidate_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": MINIMAL, "docker-compose.yml": MINIMAL})
    assert run(tmp_path).warnings == ("compose.yaml is used; there is also docker-compose.yml",)


def test_search_goes_up(tmp_path: Path) -> None:
    write(tmp_path, {"top/compose.yaml": MINIMAL, "top/sub/deep/x": ""})
    found = run(tmp_path / "top/sub/deep")
    assert (found.files, found.stack.name) == ((tmp_path / "top/compose.yaml",), "top")


def test_a_named_file_brings_no_override(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": MINIMAL, "compose.override.yaml": image("over")})
    found = run(tmp_path, files=[Path("compose.yaml")])
    assert found.stack.services["a"].image == "x"


@pytest.mark.parametrize(
    ("environ", "dotenv"),
    [
        ({"COMPOSE_FILE": "x.yaml:sub/y.yaml"}, ""),
        ({"COMPOSE_FILE": "x.yaml,sub/y.yaml", "COMPOSE_PATH_SEPARATOR": ","}, ""),
        ({}, "COMPOSE_FILE=x.yaml:sub/y.yaml\n"),
    ],
    ids=["environment", "separator", ".env"],
)
def test_compose_file(tmp_path: Path, environ: dict[str, str], dotenv: str) -> None:
    files = {"x.yaml": image("x"), "sub/y.yaml": image("y"), "compose.yaml": image("z"), ".env": dotenv}
    write(tmp_path, files)
    found = run(tmp_path, environ)
    assert found.files == (tmp_path / "x.yaml", tmp_path / "sub/y.yaml")
    assert found.stack.services["a"].image == "y"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="cannot find a Compose file: there is none of ") as caught:
        run(tmp_path)
    assert caught.value.hint == "name one with -f FILE, or go to its folder"


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match=r"^cannot read no\.yaml: No such file or directory$") as caught:
        run(tmp_path, files=[Path("no.yaml")])
    assert caught.value.hint == "check the path and its permissions"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "compose.yaml")
    with pytest.raises(ComposeError, match=r"cannot read compose\.yaml: it is no regular file"):
        run(tmp_path, files=[Path("compose.yaml")])


ASKS = "services: {a: {image: x, environment: {A: '${A-}', B: '${B-}', C: '${C-}'}}}\n"


@pytest.mark.parametrize(
    ("files", "environ", "arguments", "found"),
    [
        pytest.param({".env": "A=file\nB=file\nC=${A}-x\n"}, {"A": "shell"}, {}, ("shell", "file", "shell-x"), id="the shell over .env"),
        pytest.param(
            {".env": "C=3\n", "1.env": "A=1\nB=1\n", "2.env": "B=2\n"},
            {},
            {"env_files": [Path("1.env"), Path("2.env")]},
            ("1", "2", ""),
            id="--env-file: the last wins, no .env",
        ),
        pytest.param(
            {"1.env": "A=1\n", "2.env": "B=${A}2\n"}, {"COMPOSE_ENV_FILES": "1.env,2.env"}, {}, ("1", "12", ""), id="COMPOSE_ENV_FILES"
        ),
    ],
)  # fmt: skip
def test_variables(
    tmp_path: Path,
    files: dict[str, str],
    environ: dict[str, str],
    arguments: dict[str, Any],
    found: tuple[str, str, str],
) -> None:
    write(tmp_path, {"compose.yaml": ASKS, **files})
    environment = run(tmp_path, environ, **arguments).stack.services["a"].environment
    assert (environment["A"], environment["B"], environment["C"]) == found


def test_the_env_file_here_goes_before_the_one_of_the_stack(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": ASKS, ".env": "A=stack\nB=stack\n", "sub/.env": "A=here\n"})
    environment = run(tmp_path / "sub").stack.services["a"].environment
    assert (environment["A"], environment["B"]) == ("here", "stack")


def test_env_file_never_reaches_the_container_by_itself(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": MINIMAL, ".env": "A=1\n"})
    assert run(tmp_path).stack.services["a"].environment == {}


def test_an_env_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": MINIMAL})
    with pytest.raises(ComposeError, match=r"cannot read no\.env: No such file"):
        run(tmp_path, env_files=[Path("no.env")])


@pytest.mark.parametrize(
    ("written", "environ", "given", "name"),
    [
        pytest.param("", {}, None, "my_projx", id="the folder's, made valid"),
        pytest.param("name: My.Name\n", {}, None, "myname", id="the file's, made valid"),
        pytest.param("name: ${N:-foo}\n", {}, None, "foo", id="interpolated"),
        pytest.param("name: foo\n", {"COMPOSE_PROJECT_NAME": "env"}, None, "env", id="COMPOSE_PROJECT_NAME"),
        pytest.param("name: foo\n", {"COMPOSE_PROJECT_NAME": "env"}, "given", "given", id="-p"),
        pytest.param(
            "name: one\n---\nname: two\n---\nservices: {}\n---\n", {}, None, "two", id="the last file that has it"
        ),
    ],
)
def test_name(tmp_path: Path, written: str, environ: dict[str, str], given: str | None, name: str) -> None:
    text = f"{written}services: {{a: {{image: x, environment: [COMPOSE_PROJECT_NAME], labels: ['p=${{COMPOSE_PROJECT_NAME}}']}}}}\n"
    write(tmp_path, {"My_Proj.X/compose.yaml": text})
    stack = run(tmp_path / "My_Proj.X", environ, project=given).stack
    assert stack.name == name
    assert stack.services["a"].environment == {"COMPOSE_PROJECT_NAME": name}
    assert stack.services["a"].labels == {"p": name}


@pytest.mark.parametrize(
    ("environ", "given"),
    [({}, "Bad.Name"), ({"COMPOSE_PROJECT_NAME": "Bad"}, None), ({}, "-x"), ({}, "x" * 64)],
    ids=["-p", "COMPOSE_PROJECT_NAME", "first character", "length"],
)
def test_bad_name(tmp_path: Path, environ: dict[str, str], given: str | None) -> None:
    write(tmp_path, {"compose.yaml": MINIMAL})
    with pytest.raises(ComposeError, match="cannot name the stack ") as caught:
        run(tmp_path, environ, project=given)
    assert caught.value.hint == "choose one with -p NAME"


def test_a_folder_without_a_name(tmp_path: Path) -> None:
    write(tmp_path, {"가/compose.yaml": MINIMAL})
    with pytest.raises(ComposeError, match="cannot name the stack '가'"):
        run(tmp_path / "가")


def test_paths_outside_are_shown_whole(tmp_path: Path) -> None:
    write(tmp_path, {"a/compose.yaml": "foo: 1\n", "b/x": ""})
    with pytest.raises(ComposeError) as caught:
        run(tmp_path / "b", files=[tmp_path / "a/compose.yaml"])
    assert str(caught.value).startswith(f"{tmp_path}/a/compose.yaml:1:1: cannot use foo")
