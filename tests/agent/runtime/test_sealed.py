"""The copy runs, cannot be written to, and follows its program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runtime.sealed import Sealed


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Sealed]:
    shutil.copy(shutil.which("true") or "/bin/true", tmp_path / "program")
    made = Sealed(str(tmp_path / "program"))
    yield made
    made.close()


def test_it_runs_and_nobody_writes_to_it(program: Sealed) -> None:
    path = program.path()
    assert path.startswith("/proc/") and program.path() == path, "one copy for all calls"
    assert subprocess.run([path], check=False).returncode == 0
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    os.close(fd)


def test_a_program_that_was_replaced_is_copied_anew(program: Sealed, tmp_path: Path) -> None:
    program.path()
    shutil.copy(shutil.which("false") or "/bin/false", tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "program")
    assert subprocess.run([program.path()], check=False).returncode == 1
    (tmp_path / "program").unlink()
    with pytest.raises(FileNotFoundError):
        program.path()


def test_where_no_copy_can_be_made_the_program_itself_is_run(
    program: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refused)
    assert program.path() == str(tmp_path / "program")
