"""The cases of tests/corpus: what to load, what must come out, and how far we are from it.

    python -m tests.support.corpus [--only GLOB] [--show] [--group] [--oracle]
    python -m tests.support.corpus --files PATH…        any Compose file or folder, ours beside the oracle
    python -m tests.support.corpus --record FOLDER…     write what the oracle makes of a folder with a probe.json into it

GORAE_ORACLE: a docker-compose binary, version 5.6.1; only the last two and --oracle need it.
"""

from __future__ import annotations

import argparse
import collections
import csv
import fnmatch
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.support import alike
from tests.support.canonical import Difference, canonical, differences, without_extensions
from tests.support.deliberate import deliberate, deliberate_refusal

ROOT = Path(__file__).resolve().parents[1] / "corpus"
Verdict = Literal["equal", "refused alike", "refused otherwise", "different"]


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
    def expected(self) -> dict[str, Any] | None:
        """The canonical model; None: the files must be refused."""
        path = self.folder / "expected.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def error(self) -> str:
        return (self.folder / "expected-error.txt").read_text().strip()


@dataclass(frozen=True, slots=True)
class Outcome:
    """`deliberate`: names of the rules that excuse a difference. `problems`: why it was refused, if it was."""

    case: Case
    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    problems: tuple[str, ...] = ()
    deliberate: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        return self.verdict in ("equal", "refused alike")

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.case.id}"]
        if not (self.case.folder / "expected.json").exists() and (self.case.folder / "expected-error.txt").exists():
            lines.append(f"    must be refused: {self.case.error}")
        lines += [f"    {difference}" for difference in self.differences]
        lines += [f"    refused: {problem}" for problem in self.problems]
        return "\n".join(lines)


Loader = Callable[[Case, Path], dict[str, Any]]  # (case, its copy) -> model; raises Refused


@functools.cache
def cases() -> tuple[Case, ...]:
    """All of them: those of index.tsv, then our own."""
    with (ROOT / "index.tsv").open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    listed = [case_of(ROOT / row["folder"], tuple(filter(None, row["files"].split(",")))) for row in rows]
    return (*listed, *(case_of(path.parent) for path in sorted((ROOT / "own").glob("*/probe.json"))))


def case_of(folder: Path, files: tuple[str, ...] = ()) -> Case:
    name = str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder)
    probe = folder / "probe.json"
    if not probe.exists():
        return Case(name, folder, files)
    how = json.loads(probe.read_text())
    parser = argparse.ArgumentParser(exit_on_error=True)
    parser.add_argument("-p", dest="project")
    parser.add_argument("--env-file", action="append", default=[])
    args = parser.parse_args(how["args"])
    return Case(
        name,
        folder,
        tuple(how["files"]),
        how["environment"],
        args.project,
        tuple(args.env_file),
        tuple(how["profiles"]),
    )


def in_place(case: Case, scratch: Path) -> Path:
    """A copy of the case in a folder named `proj`, deep enough for `../../..`: the folder's name is the project's."""
    here = scratch / "a/b/c/d/proj"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(case.folder, here, ignore=shutil.ignore_patterns("expected*.*", "probe.json"))
    return here


def where(case: Case, here: Path) -> Path:
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
            cwd=where(case, here),
            profiles=list(case.profiles),
            env_files=[here / name for name in case.env_files] or None,
            project=case.project,
        )
    except ComposeError as error:
        raise Refused([as_recorded(str(problem), here) for problem in error.problems]) from error
    model: dict[str, Any] = json.loads(as_recorded(json.dumps(composed.document()), here))
    return model


def with_oracle(case: Case, here: Path) -> dict[str, Any]:
    """What docker compose prints, by the recipe of tests/corpus/README.md."""
    arguments = [os.environ["GORAE_ORACLE"]]
    for profile in case.profiles:
        arguments += ["--profile", profile]
    arguments += ["-p", case.project] if case.project is not None else []
    for name in case.env_files:
        arguments += ["--env-file", name]
    for name in case.files:
        arguments += ["-f", str(here / name)]
    done = subprocess.run(
        [*arguments, "config", "--format", "json"],
        cwd=where(case, here),
        env={"HOME": "/home/u", **case.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise Refused([as_recorded(done.stderr.strip().splitlines()[-1], here)])
    model: dict[str, Any] = without_extensions(json.loads(as_recorded(done.stdout.replace("$$", "$"), here)))
    return model


def judge(case: Case, load: Loader, scratch: Path, expect: Loader | None = None) -> Outcome:
    """Load the case and say how it compares with what is recorded, or with what `expect` makes of it."""
    here = in_place(case, scratch)
    try:
        expected, error = (expect(case, here), "") if expect else (case.expected, "")
    except Refused as refusal:
        expected, error = None, str(refusal)
    try:
        ours = load(case, here)
    except Refused as refusal:
        if expected is not None:
            excuse = deliberate_refusal(refusal.problems, expected)
            verdict: Verdict = "equal" if excuse else "different"
            return Outcome(case, verdict, problems=refusal.problems, deliberate=(excuse,) if excuse else ())
        same = alike.alike(error or case.error, refusal.problems)
        return Outcome(case, "refused alike" if same else "refused otherwise", problems=refusal.problems)
    if expected is None:
        return Outcome(case, "different", (Difference((), f"refused: {error or case.error}", "accepted"),))
    found = list(differences(canonical(expected), canonical(ours)))
    left = tuple(difference for difference in found if deliberate(difference) is None)
    excuses = tuple(sorted({name for difference in found if (name := deliberate(difference))}))
    return Outcome(case, "different" if left else "equal", left, deliberate=excuses)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The line that says how far we are."""
    count = collections.Counter(outcome.verdict for outcome in outcomes)
    otherwise = count["refused otherwise"]
    return (
        f"compose corpus: {count['equal']} equal, {count['refused alike']} refused alike, "
        f"{count['different']} different"
        + (f", {otherwise} refused for another reason" if otherwise else "")
        + f" (of {len(outcomes)})"
    )


def grouped(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Failing cases by the place of their first difference, the most frequent first."""
    groups = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.fine:
            continue
        if outcome.differences:
            groups[outcome.differences[0].group if outcome.differences[0].path else "must be refused"].append(outcome)
        else:
            first = re.sub(r"^\S+:\d+:\d+: ", "", outcome.problems[0])
            words = re.sub(r"[\"'`‘“][^\"'`’”]*[\"'`’”]|\d+", "…", first)
            groups[f"{outcome.verdict if outcome.verdict != 'different' else 'refused'}: {words[:90]}"].append(outcome)
    for name, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield f"{len(members):4}  {name}    e.g. {members[0].case.id}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests.support.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", metavar="GLOB", help="cases whose id matches; a part of the id will do")
    parser.add_argument("--show", action="store_true", help="every difference, both models, and the files")
    parser.add_argument("--group", action="store_true", help="count the failing cases by place")
    parser.add_argument("--oracle", action="store_true", help="judge the oracle in our place: checks the comparison")
    parser.add_argument("--files", nargs="+", type=Path, metavar="PATH", help="compose files, or folders of some")
    parser.add_argument("--record", nargs="+", type=Path, metavar="FOLDER", help="write expected.json or -error.txt")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="compose-corpus-") as made:
        scratch = Path(made)
        if args.record:
            for folder in args.record:
                record(case_of(folder.resolve()), scratch)
            return 0
        if args.files:
            chosen = [of_path(path.resolve()) for path in args.files]
            outcomes = [judge(case, with_ours, scratch, with_oracle) for case in chosen]
        else:
            glob = args.only if set(args.only) & set("*?[") else f"*{args.only}*"
            chosen = [case for case in cases() if fnmatch.fnmatchcase(case.id, glob)]
            outcomes = [judge(case, with_oracle if args.oracle else with_ours, scratch) for case in chosen]
        for outcome in outcomes:
            if args.show:
                show(outcome, scratch, with_oracle if args.files else None)
            elif not outcome.fine and not args.group:
                print("\n".join(str(outcome).splitlines()[:7]))
    for line in grouped(outcomes) if args.group else ():
        print(line)
    print(summary(outcomes))
    return int(not all(outcome.fine for outcome in outcomes))


def of_path(path: Path) -> Case:
    return case_of(path) if path.is_dir() else Case(str(path), path.parent, (path.name,))


def record(case: Case, scratch: Path) -> None:
    for name in ("expected.json", "expected-error.txt"):
        (case.folder / name).unlink(missing_ok=True)
    try:
        model = with_oracle(case, in_place(case, scratch))
    except Refused as refusal:
        (case.folder / "expected-error.txt").write_text(f"{refusal}\n")
    else:
        (case.folder / "expected.json").write_text(json.dumps(model, sort_keys=True, separators=(",", ":")) + "\n")


def show(outcome: Outcome, scratch: Path, expect: Loader | None) -> None:
    case = outcome.case
    print(f"{'=' * 100}\n{outcome}\nexcused by: {', '.join(outcome.deliberate) or '-'}")
    for name in case.files or sorted(path.name for path in case.folder.glob("*compose*.y*ml")):
        print(f"--- {case.folder / name}\n{(case.folder / name).read_text()}")
    here = in_place(case, scratch)
    for title, load in (
        ("expected", expect or (lambda case, _: case.expected or {"refused": case.error})),
        ("ours", with_ours),
    ):
        try:
            model = load(case, here)
        except Refused as refusal:
            model = {"refused": list(refusal.problems)}
        print(f"--- {title}\n{json.dumps(model, indent=1, sort_keys=True, ensure_ascii=False)}")


if __name__ == "__main__":
    sys.exit(main())
