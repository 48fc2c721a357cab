"""How far our reading of Compose files is from the cases of tests/corpus, or from docker compose itself.

    python -m tests.support.corpus [--only GLOB] [--show] [--group] [--oracle]
    python -m tests.support.corpus --files PATH…        any Compose file or folder, ours beside the oracle
    python -m tests.support.corpus --record FOLDER…     write what the oracle makes of a folder with a probe.json into it

GORAE_ORACLE: a docker-compose binary, version 5.6.1; only the last two and --oracle need it.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.support.alike import alike
from tests.support.canonical import Difference, canonical, differences
from tests.support.cases import Case, Loader, Refused, case_of, cases, in_place, with_oracle, with_ours
from tests.support.deliberate import deliberate, deliberate_refusal

Verdict = Literal["equal", "refused alike", "refused otherwise", "different"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`error`: what the other side said when it refused. `deliberate`: names of the rules that excuse a difference."""

    case: Case
    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    error: str = ""
    problems: tuple[str, ...] = ()
    deliberate: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        return self.verdict in ("equal", "refused alike")

    @property
    def group(self) -> str:
        """What failures with one cause have in common."""
        if self.differences:
            return self.differences[0].group
        if not self.problems:
            return "accepted, must be refused"
        bare = re.sub(r"^\S+:\d+:\d+: ", "", self.problems[0])
        words = re.sub(r"[\"'`‘“][^\"'`’”]*[\"'`’”]|\d+", "…", bare)
        return f"{'refused' if self.verdict == 'different' else self.verdict}: {words[:90]}"

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.case.id}"]
        lines += [f"    must be refused: {self.error}"] if self.error else []
        lines += [f"    {difference}" for difference in self.differences]
        lines += [f"    ours refuses: {problem}" for problem in self.problems]
        return "\n".join(lines)


OUTCOMES: pytest.StashKey[list[Outcome]] = pytest.StashKey()  # what one run of pytest has judged, for its summary


def recorded(case: Case, here: Path) -> dict[str, object]:
    """The loader that reads what is kept in the case's folder."""
    return case.expected


def judge(case: Case, load: Loader, scratch: Path, expect: Loader = recorded) -> Outcome:
    """Load the case with both and compare. `scratch`: an empty folder, for a copy of the case."""
    here = in_place(case, scratch)
    error = ""
    try:
        expected = expect(case, here)
    except Refused as refusal:
        error = str(refusal)
    try:
        ours = load(case, here)
    except Refused as refusal:
        if error:
            same = alike(error, refusal.problems)
            return Outcome(case, "refused alike" if same else "refused otherwise", (), error, refusal.problems)
        excuse = deliberate_refusal(refusal.problems, expected)
        if excuse:
            return Outcome(case, "equal", problems=refusal.problems, deliberate=(excuse,))
        return Outcome(case, "different", problems=refusal.problems)
    except Exception as crash:  # one broken case must not hide the others; it counts as a failure
        frame = traceback.extract_tb(crash.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return Outcome(case, "different", (), error, (f"crash: {type(crash).__name__} at {place}: {crash}",))
    if error:
        return Outcome(case, "different", error=error)
    found = [(item, deliberate(item)) for item in differences(canonical(expected), canonical(ours))]
    left = tuple(item for item, excuse in found if excuse is None)
    excuses = tuple(sorted({excuse for _, excuse in found if excuse}))
    return Outcome(case, "different" if left else "equal", left, deliberate=excuses)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The line that says how far we are."""
    count = collections.Counter(outcome.verdict for outcome in outcomes)
    otherwise = count["refused otherwise"]
    return (
        f"compose corpus: {count['equal']} equal, {count['refused alike']} refused alike, {count['different']} different"
        + (f", {otherwise} refused for another reason" if otherwise else "")
        + f" (of {len(outcomes)})"
    )


def grouped(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Failing cases by what they have in common, the most frequent first."""
    groups = collections.defaultdict(list)
    for outcome in outcomes:
        if not outcome.fine:
            groups[outcome.group].append(outcome.case.id)
    for name, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield f"{len(members):4}  {name}    e.g. {members[0]}"


def show(outcome: Outcome, scratch: Path, expect: Loader) -> None:
    """All about one case: differences, files, both models."""
    case = outcome.case
    print(f"{'=' * 100}\n{outcome}\n    excused by: {', '.join(outcome.deliberate) or '-'}")
    for path in sorted(path for path in case.folder.rglob("*") if path.is_file() and "expected" not in path.name):
        print(f"--- {path}\n{path.read_text(errors='replace')}")
    here = in_place(case, scratch)
    for title, load in (("expected", expect), ("ours", with_ours)):
        try:
            text = json.dumps(load(case, here), indent=1, sort_keys=True, ensure_ascii=False)
        except Refused as refusal:
            text = f"refused: {refusal}"
        except Exception:
            text = traceback.format_exc()
        print(f"--- {title}\n{text}")


def record(case: Case, scratch: Path) -> None:
    """Write the oracle's answer beside the case."""
    for name in ("expected.json", "expected-error.txt"):
        (case.folder / name).unlink(missing_ok=True)
    try:
        model = with_oracle(case, in_place(case, scratch))
    except Refused as refusal:
        (case.folder / "expected-error.txt").write_text(f"{refusal}\n")
    else:
        text = json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        (case.folder / "expected.json").write_text(text + "\n")


def _of_path(path: Path) -> Case:
    return case_of(path) if path.is_dir() else Case(str(path), path.parent, (path.name,))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="GLOB", help="cases whose id matches; a part of the id will do")
    parser.add_argument("--show", action="store_true", help="every difference, the files and both models")
    parser.add_argument("--group", action="store_true", help="count the failing cases by place")
    parser.add_argument("--oracle", action="store_true", help="judge the oracle in our place: checks the comparison")
    parser.add_argument("--files", nargs="+", type=Path, metavar="PATH", help="compose files, or folders of some")
    parser.add_argument("--record", nargs="+", type=Path, metavar="FOLDER", help="write expected.json or -error.txt")
    args = parser.parse_args(argv)
    glob = args.only if set(args.only) & set("*?[") else f"*{args.only}*"
    chosen = [case for case in cases() if fnmatch.fnmatchcase(case.id, glob)]
    if args.files or args.record:
        chosen = [_of_path(path.resolve()) for path in args.files or args.record]
    with tempfile.TemporaryDirectory(prefix="compose-corpus-") as made:
        scratch = Path(made)
        if args.record:
            for case in chosen:
                record(case, scratch)
            return 0
        expect = with_oracle if args.files else recorded
        outcomes = [judge(case, with_oracle if args.oracle else with_ours, scratch, expect) for case in chosen]
        for outcome in outcomes:
            if args.show:
                show(outcome, scratch, expect)
            elif not outcome.fine and not args.group:
                print("\n".join(str(outcome).splitlines()[:7]))
    for line in grouped(outcomes) if args.group else ():
        print(line)
    print(summary(outcomes))
    return int(not all(outcome.fine for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
