"""Files made to hurt: each ends as a stack or a ComposeError, in a moment and in little room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.compose.errors import MAX_PROBLEMS
from orchestrator.compose.load import ComposeError, load

from . import hostile
from .hostile import Files
from .measured import Loader, loader, slowness
from .support import write

SECONDS, MIB = 2.0, 200


@pytest.fixture(scope="module", name="processes")
def _processes() -> Iterator[Loader]:
    with loader() as found:
        yield found


def bearable(processes: Loader, folder: Path, files: Files) -> None:
    """Three tries to be fast: a busy machine slows even the processor's time down, and a slow one is given longer."""
    hostile.write(folder, files)
    seconds = SECONDS
    for _ in range(3):
        cost = processes.load(folder)
        if cost.seconds < seconds:
            break
        seconds = SECONDS * max(1.0, slowness())
    assert not cost.crash
    assert (cost.seconds < seconds, cost.mib < MIB) == (True, True), (seconds, cost)
    assert len(cost.problems) <= MAX_PROBLEMS + 1
    for problem in cost.problems:
        assert problem.startswith("cannot ") or ": cannot " in problem
        assert len(problem) < 1000 and problem.isprintable()


@pytest.mark.parametrize("name", hostile.SHAPES)
def test_a_shape(tmp_path: Path, processes: Loader, name: str) -> None:
    bearable(processes, tmp_path, hostile.SHAPES[name])


@pytest.mark.parametrize("name", hostile.LISTS)
def test_a_long_list(tmp_path: Path, processes: Loader, name: str) -> None:
    bearable(processes, tmp_path, hostile.LISTS[name])


@pytest.mark.parametrize("name", hostile.EXTENDS)
def test_extends(tmp_path: Path, processes: Loader, name: str) -> None:
    bearable(processes, tmp_path, hostile.EXTENDS[name])


@pytest.mark.parametrize("name", hostile.INCLUDES)
def test_include(tmp_path: Path, processes: Loader, name: str) -> None:
    bearable(processes, tmp_path, hostile.INCLUDES[name])


@pytest.mark.parametrize("name", hostile.TEXTS)
def test_a_text(tmp_path: Path, processes: Loader, name: str) -> None:
    bearable(processes, tmp_path, hostile.TEXTS[name])


@pytest.mark.parametrize("key", hostile.TAKERS)
def test_a_long_value(tmp_path: Path, processes: Loader, key: str) -> None:
    for text in hostile.long_values(key):
        bearable(processes, tmp_path, {"compose.yaml": text})


@pytest.mark.parametrize("name", hostile.ENV_FILES)
@pytest.mark.parametrize("file", [".env", "e.env"])
def test_an_env_file(tmp_path: Path, processes: Loader, name: str, file: str) -> None:
    services = hostile.services(
        5000 if file == "e.env" else 1, "{image: x, env_file: [{path: e.env, required: false}]}"
    )
    bearable(processes, tmp_path, {"compose.yaml": services, file: hostile.ENV_FILES[name]})


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "\udcff"
    write(folder, {"compose.yaml": "services: {a: {image: x, volumes: [./a:/b]}}\n"})
    with pytest.raises(
        ComposeError, match=r"cannot use the path \./a: the name of a folder on the way is not in UTF-8"
    ):
        load(None, project="p", environ={}, cwd=folder)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "services: {a: {image: x, env_file: /dev/zero}}\n"})
    with pytest.raises(ComposeError, match="cannot read /dev/zero: it is no regular file"):
        load(None, project="p", environ={}, cwd=tmp_path)


def test_no_control_character_reaches_the_terminal(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": 'services: {a: {image: x, "\\e[2Jfoo": 1}}\n'})
    with pytest.raises(ComposeError) as caught:
        load(None, project="p", environ={}, cwd=tmp_path)
    assert str(caught.value).isprintable()
