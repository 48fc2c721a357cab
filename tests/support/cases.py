"""The cases of tests/corpus: what to load, in which environment, and what must come out; and the two that load them.

GORAE_ORACLE: a docker-compose binary, version 5.6.1; no test needs it.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.canonical import without_extensions

ROOT = Path(__file__).resolve().parents[1] / "corpus"


class Refused(Exception):
    """A loader would not have the files; `problems`: its messages, one each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Case:
    """`folder` holds the input files; `files` are relative to it, none: found by the search rules."""

    id: str
    folder: Path
    files: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ("*",)

    @property
    def expected(self) -> dict[str, Any]:
        """The canonical model. Raises Refused if the files must be refused."""
        path = self.folder / "expected.json"
        if not path.exists():
            raise Refused([(self.folder / "expected-error.txt").read_text().strip()])
        model: dict[str, Any] = json.loads(path.read_text())
        return model


Loader = Callable[[Case, Path], dict[str, Any]]  # (case, the copy of its folder) -> model; raises Refused


@functools.cache
def cases() -> tuple[Case, ...]:
    """All of them: those of index.tsv, then our own."""
    with (ROOT / "index.tsv").open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    listed = [case_of(ROOT / row["folder"], tuple(filter(None, row["files"].split(",")))) for row in rows]
    return (*listed, *(case_of(path.parent) for path in sorted((ROOT / "own").glob("*/probe.json"))))


def case_of(folder: Path, files: tuple[str, ...] = ()) -> Case:
    """The case in a folder; its probe.json, if there is one, goes before `files`."""
    name = str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder)
    probe = folder / "probe.json"
    if not probe.exists():
        return Case(name, folder, files)
    how = json.loads(probe.read_text())
    parser = argparse.ArgumentParser()
    parser.add_argument("-p", dest="project")
    parser.add_argument("--env-file", action="append", default=[])
    args = parser.parse_args(how["args"])
    named = tuple(how["files"])
    return Case(name, folder, named, how["environment"], args.project, tuple(args.env_file), tuple(how["profiles"]))


def in_place(case: Case, scratch: Path) -> Path:
    """A copy of the case in a folder named `proj`, deep enough for `../../..`: the folder's name is the project's."""
    here = scratch / "a/b/c/d/proj"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(case.folder, here, ignore=shutil.ignore_patterns("expected*.*", "probe.json"))
    return here


def directory(case: Case, here: Path) -> Path:
    """The working directory: the folder of the first file."""
    return (here / case.files[0]).parent if case.files else here


def as_recorded(text: str, here: Path) -> str:
    """Paths of this machine out of a text: the case's folder is @CASE@, what is above it @CASE@/.. and so on."""
    for up in range(5):
        place = "/".join(["@CASE@", *[".."] * up])
        text = re.sub(re.escape(str(here.parents[up - 1] if up else here)) + r"(?![\w.-])", place, text)
    return text


def with_ours(case: Case, here: Path) -> dict[str, Any]:
    from orchestrator.compose.load import ComposeError, read

    try:
        composed = read(
            [here / name for name in case.files],
            environ={"HOME": "/home/u", **case.environment},
            cwd=directory(case, here),
            profiles=list(case.profiles),
            env_files=[here / name for name in case.env_files] or None,
            project=case.project,
        )
        document = composed.document()
    except ComposeError as error:
        raise Refused([as_recorded(str(problem), here) for problem in error.problems]) from error
    model: dict[str, Any] = json.loads(as_recorded(json.dumps(document), here))
    return model


def with_oracle(case: Case, here: Path) -> dict[str, Any]:
    """What docker compose prints, by the recipe of tests/corpus/README.md."""
    arguments = [os.environ["GORAE_ORACLE"]]
    for profile in case.profiles:
        arguments += ["--profile", profile]
    arguments += ["-p", case.project] if case.project is not None else []
    for name in case.env_files:
        arguments += ["--env-file", str(here / name)]
    for name in case.files:
        arguments += ["-f", str(here / name)]
    done = subprocess.run(
        [*arguments, "config", "--format", "json"],
        cwd=directory(case, here),
        env={"HOME": "/home/u", **case.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise Refused([as_recorded(done.stderr.strip().splitlines()[-1], here)])
    model: dict[str, Any] = without_extensions(json.loads(as_recorded(done.stdout.replace("$$", "$"), here)))
    return model
