"""Coverage-guided fuzzing of the Compose reader: any files at all end as a project or a ComposeError, within 2 s of
processor time and 200 MiB.

    python -m tests.fuzz.compose [--seconds 600] [--seed 1] [--json FILE] [--keep FOLDER]

atheris (libFuzzer for Python) comes from PyPI into a scratch folder, for this run alone: no test needs it. It begins with
the files of tests/corpus and changes bytes, or values as the table of keys says (target.py); what makes the reader go
where it has not been is changed further. Each input is loaded, printed, and read without interpolation, with the files
it includes and extends. A finding that --keep has put into tests/orchestrator/compose/found/ is a test case, and a file
to begin with, from then on.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.compose.keys import TABLE
from tests.support.cases import Case, cases

PACKAGE = "atheris==3.0.0"
MAX_BYTES = 8192
_GRAMMAR = [
    "<<: *",
    "&a ",
    "*a",
    "!reset ",
    "!override ",
    "${A:-",
    "${A:?",
    "b.yaml",
    "#.env",
    "#b.yaml",
    r"\x0a---\x0a",
]
FOUND = Path(__file__).parents[1] / "orchestrator/compose/found"


def seed(case: Case) -> bytes:
    """The case's files as documents of one, its .env, and the first other file that they name as b.yaml."""
    paths = [case.folder / name for name in case.files] or sorted(case.folder.glob("*compose.y*ml"))
    text = b"\n---\n".join(path.read_bytes() for path in paths if path.is_file())
    parts = {".env": case.folder / ".env"}
    for path in sorted(case.folder.rglob("*.y*ml")):
        name = str(path.relative_to(case.folder)).encode()
        if path not in paths and name in text and "b.yaml" not in parts:
            text, parts["b.yaml"] = text.replace(name, b"b.yaml"), path
    more = (b"\n#" + name.encode() + b"\n" + path.read_bytes() for name, path in parts.items() if path.is_file())
    return text + b"".join(more)


def prepare(corpus: Path, words: Path) -> None:
    """What libFuzzer begins with, and its dictionary."""
    corpus.mkdir()
    seeds = [*(seed(case) for case in cases()), *(path.read_bytes() for path in FOUND.iterdir())]
    for number, data in enumerate(found for found in seeds if len(found) <= MAX_BYTES):
        (corpus / str(number)).write_bytes(data)
    keys = {part for key in TABLE for part in key.split(".") if part not in ("*", "[]")}
    words.write_text("".join(f'"{word}"\n' for word in [*sorted(keys), *_GRAMMAR]))


def fuzz(seconds: int, seed: int, scratch: Path) -> dict[str, Any]:
    """The figures; `findings`: why, of each. The inputs stay in `scratch`/found."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(scratch / "packages"), PACKAGE], check=True)
    prepare(scratch / "corpus", scratch / "words")
    found = scratch / "found"
    found.mkdir()
    flags = [f"-seed={seed}", f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-dict={scratch / 'words'}"]
    backstops = ["-timeout=30", "-rss_limit_mb=1024", f"-artifact_prefix={found}/ended-by-"]
    path = ":".join([str(scratch / "packages"), *sys.path[1:]])
    with (scratch / "log").open("w") as log:
        command = [sys.executable, "-m", "tests.fuzz.target", str(found), *flags, *backstops, str(scratch / "corpus")]
        ended = subprocess.run(command, stdout=log, stderr=log, env={"PYTHONPATH": path}, check=False)
    text = (scratch / "log").read_text(errors="replace")
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    runs = re.findall(r"^#(\d+)", text, re.MULTILINE)
    began = re.search(r"INITED cov: (\d+)", text)
    if not began:
        sys.exit(f"cannot fuzz: the process ended with status {ended.returncode}\n{text[-2000:]}")
    findings = [path.read_text() for path in sorted(found.glob("found-*.txt"))]
    findings += [f"{path.name}: libFuzzer ended with status {ended.returncode}\n" for path in found.glob("ended-by-*")]
    worst = json.loads((found / "worst.json").read_text())
    return {
        "seconds": seconds,
        "seed": seed,
        "inputs": int(runs[-1]),
        "kept_for_new_coverage": int(covered[-1][2]),
        "branches": {"at_first": int(began[1]), "at_last": int(covered[-1][0])},
        "worst": {"seconds": round(worst["seconds"], 2), "mib": round(worst["mib"], 1)},
        "findings": findings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--keep", type=Path, help="copy what was found there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = fuzz(arguments.seconds, arguments.seed, Path(name))
        inputs = [path for path in (Path(name) / "found").iterdir() if not path.suffix]
        if arguments.keep and inputs:
            arguments.keep.mkdir(exist_ok=True)
            for path in inputs:
                shutil.copy(path, arguments.keep)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    branches, worst = figures["branches"], figures["worst"]
    print(f"{figures['inputs']} inputs in {figures['seconds']} s, from {len(cases())} files of the corpus")
    print(f"branches taken: {branches['at_first']} by the corpus, {branches['at_last']} at the end")
    print(f"the worst input: {worst['seconds']} s of processor time (limit 2), {worst['mib']} MiB (limit 200)")
    print(f"findings: {len(figures['findings'])}")
    print("\n".join(figures["findings"]), end="")
    if figures["findings"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
