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


def code(program: Sealed) -> int:
    fds, path = program.lend()
    return subprocess.run([path], pass_fds=fds, check=False).returncode


def test_it_runs_and_nobody_writes_to_it(program: Sealed) -> None:
    (fd,), path = program.lend()
    assert program.lend() == ([fd], path), "one copy for all calls"
    assert code(program) == 0
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.write(again, b"x")
    os.close(again)


def test_a_program_that_was_replaced_is_copied_anew(program: Sealed, tmp_path: Path) -> None:
    program.lend()
    shutil.copy(shutil.which("false") or "/bin/false", tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "program")
    assert code(program) == 1
    (tmp_path / "program").unlink()
    with pytest.raises(FileNotFoundError):
        program.lend()


def test_where_no_copy_can_be_made_the_program_itself_is_run(
    program: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refused)
    assert program.lend() == ([], str(tmp_path / "program"))
