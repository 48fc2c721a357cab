"""What any files at all must survive; for the tests that make them up, and for the fuzzer."""

from __future__ import annotations

from pathlib import Path

from orchestrator.compose.hashes import service_hash
from orchestrator.compose.honesty import findings
from orchestrator.compose.load import ComposeError, load, read
from orchestrator.compose.printed import as_json, as_yaml, escaped
from orchestrator.compose.variables import variables


def survives(folder: Path) -> bool:
    """Asks everything of the folder's files: each time a result, or problems that say "cannot …". True: all results."""
    whole = True
    for ask in (_loaded, _printed, _uninterpolated):
        try:
            ask(folder)
        except ComposeError as error:
            whole = False
            assert error.problems
            for problem in error.problems:
                assert problem.message.startswith("cannot "), problem
                assert str(problem).isprintable() and len(str(problem)) < 1000, problem
    return whole


_ENVIRON = {"A": "1", "HOME": "/h"}


def _loaded(folder: Path) -> None:
    assert load([folder / "compose.yaml"], project="p", environ=_ENVIRON, cwd=folder).stack.name == "p"


def _printed(folder: Path) -> None:
    document = read([folder / "compose.yaml"], project="p", environ=_ENVIRON, cwd=folder).document()
    assert as_yaml(escaped(document)) and as_json(escaped(document))
    for name in document.get("services", {}):
        assert len(service_hash(document, name)) == 64


def _uninterpolated(folder: Path) -> None:
    found = read([folder / "compose.yaml"], project="p", environ=_ENVIRON, cwd=folder, interpolated=False)
    assert as_yaml(found.document())
    assert all(variable.name for variable in variables(found.everything))
    assert all(finding.key for finding in findings(found.written))
