"""The table of verbs, the documents generated from it, and what start-up may import."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.kit.errors import UserError
from agent.kit.layout import Layout
from orchestrator.cli import elsewhere, targets
from orchestrator.cli.client import lock_path, quote, run_path
from orchestrator.cli.main import VERBS, explain, main
from orchestrator.cli.moments import moment
from orchestrator.cli.reference import document, full_parser
from orchestrator.compose.files import NAMES

REPOSITORY = Path(__file__).parents[3]
HEAVY = {"pydantic", "asyncio", "http", "click", "yaml", "fastapi", "rich", "pathlib", "dataclasses", "subprocess"}


def test_docs_are_as_the_parser_says() -> None:
    text = (REPOSITORY / "docs" / "cli.md").read_text()
    assert text == document(), "python -m orchestrator.cli.reference > docs/cli.md"


def test_every_verb_has_a_module_and_every_module_a_verb() -> None:
    modules = {path.stem for path in (REPOSITORY / "orchestrator" / "cli" / "verbs").glob("*.py")} - {"__init__"}
    assert modules == {verb.replace("-", "_") for verb in VERBS}


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("ps", "try  gorae status"),
        ("upp", "try  gorae up"),
        ("zzz", "try  gorae --help"),
    ],
)
def test_a_verb_that_is_none_of_ours_leads_to_one(verb: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 2
    assert capsys.readouterr().err.splitlines() == [f"cannot understand the verb {verb}", expected]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["up", "--scale", "web=2"], "gorae scale SERVICE=N", id="an option"),
        pytest.param(["up", "--scale=web=2"], "gorae scale SERVICE=N", id="an option with its value"),
        pytest.param(["up", "--nope"], "gorae up --help", id="an option nobody has"),
        pytest.param(["down", "--rmi", "all"], "gorae down, then gorae image prune --all", id="of another verb"),
        pytest.param(["image", "pull"], "gorae image pull --help", id="too few words"),
    ],
)
def test_an_option_that_is_none_of_ours_leads_to_one(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[1] == f"try  {expected}"


@pytest.mark.parametrize("named", elsewhere.OPTIONS, ids=str)
def test_an_option_that_leads_elsewhere_is_none_of_ours(named: str) -> None:
    verb, option = named.removeprefix("gorae ").split()
    actions = full_parser()._subparsers
    assert actions is not None
    (choices,) = (action.choices for action in actions._group_actions)
    assert option not in choices[verb]._option_string_actions  # type: ignore[index]


def test_every_verb_of_docker_compose_leads_to_one_of_ours() -> None:
    assert not elsewhere.VERBS.keys() & VERBS.keys()
    hints = [*elsewhere.VERBS.values(), *elsewhere.OPTIONS.values()]
    named = {word for hint in hints for word in re.findall(r"gorae (\w+)", hint)}
    assert named <= set(VERBS)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", [None, "image import", *VERBS], ids=str)
def test_help_fits_a_terminal(verb: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    try:
        main([*(verb.split() if verb else ()), "--help"])
    except SystemExit as end:
        assert end.code == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (None, ["cannot start shop/web: port 8080 is held by stack visits", "  │ one long line", "try  another port"]),
        (
            40,
            [
                *("cannot start shop/web: port 8080 is held", "by stack visits", "  │ one long line"),
                *("try  another port",),
            ],
        ),
        (
            16,
            [
                *("cannot start", "shop/web: port", "8080 is held by", "stack visits", "  │ one long li…"),
                *("try  another", "     port"),
            ],
        ),
    ],
)
def test_an_error_fits_a_terminal(width: int | None, expected: list[str]) -> None:
    error = UserError(
        "cannot start shop/web: port 8080 is held by stack visits\n  │ one long line", hint="another port"
    )
    assert explain(error, width).splitlines() == expected


@pytest.mark.parametrize("words", [["status"], ["ls"], ["version"]])
def test_start_up_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = f"import sys\nfrom orchestrator.cli.main import main\nmain({words!r})\nprint(*sys.modules)"
    environment = {**os.environ, "GORAE_ROOT": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not HEAVY & set(result.stdout.splitlines()[-1].split())
    assert "cannot reach gorae" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "recreate" in out
    assert "no-wait" in out or shell == "tcsh"


def test_the_full_parser_knows_every_verb() -> None:
    parsed = full_parser().parse_args(["image", "rm", "a", "b"])
    assert isinstance(parsed, argparse.Namespace)
    assert parsed.names == ["a", "b"]


@pytest.mark.parametrize("root", [None, "/srv/x", "relative"])
def test_paths_are_the_layouts(root: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GORAE_ROOT", raising=False)
    assert run_path(root, "api/gorae.sock") == str(Layout.at(root).api_socket)
    assert run_path(root, "agent.sock") == str(Layout.at(root).agent_socket)
    assert lock_path(root) == str(Layout.at(root).state / "daemon.lock")


def test_file_names_are_the_search_rules() -> None:
    assert targets.FILES == NAMES


def test_quote() -> None:
    assert quote("a b/ü&=") == "a%20b%2F%C3%BC%26%3D"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1700000000", 1.7e9), ("10m", 1.7e9 - 600), ("1h30m", 1.7e9 - 5400), ("2023-11-14T22:13:20+00:00", 1.7e9)],
)
def test_moment(text: str, expected: float) -> None:
    assert moment(text, now=1.7e9) == expected


def test_a_clock_time_is_in_the_past() -> None:
    for text in ("00:00", "12:30:15", "23:59"):
        assert 1.7e9 - 90000 < moment(text, now=1.7e9) <= 1.7e9


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("help > /dev/full", "cannot go on: No space left on device"),
        ("daemon --root /dev/null/x", "cannot go on: /dev/null/x/state: Not a directory"),
        ("daemon --stop --root /dev/null/x", "cannot go on: /dev/null/x/state/daemon.lock: Not a directory"),
        (
            f"ls --root /tmp/{'a' * 120}",
            f"cannot reach gorae at /tmp/{'a' * 120}/run/api/gorae.sock: a unix socket's path",
        ),
    ],
    ids=["stdout is full", "no folder", "no folder to stop", "a long path"],
)
def test_what_no_verb_expects_is_one_paragraph(words: str, says: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = f"{sys.executable} -m orchestrator.cli.main {words}"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=environment)
    assert result.returncode in (1, 3)
    if os.geteuid() == 0 or "daemon" not in words:
        assert result.stderr.startswith(says)
    assert len(result.stderr.splitlines()) == 2


def test_a_terminal_without_unicode_is_no_error() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-m", "orchestrator.cli.main", "help"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "VERB ?" in result.stdout


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = f"{sys.executable} -m orchestrator.cli.main help | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert result.stderr == ""
    assert result.returncode in (0, 141)


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_closed_standard_descriptors_are_nobody_elses(closed: str, tmp_path: Path) -> None:
    """The socket to the daemon would be its own input, or what is to be shown would be sent to the daemon."""
    code = (
        "import os, sys; from orchestrator.cli import main; main.hold_standard_streams();"
        "print('out', flush=True); print('err', file=sys.stderr, flush=True);"
        f"os.write(os.open({str(tmp_path / 'seen')!r}, os.O_CREAT | os.O_WRONLY), str(os.pipe()[0]).encode())"
    )
    command = [sys.executable, "-c", code]
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    script = f'exec "$@" {redirections}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0
    assert int((tmp_path / "seen").read_text()) > 2
    assert (done.stdout, done.stderr) == ("" if "1" in closed else "out\n", "" if "2" in closed else "err\n")


def test_it_speaks_to_nobody_whose_output_is_closed() -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "nope"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=REPOSITORY, timeout=60, check=False
    )
    assert done.returncode == 2
