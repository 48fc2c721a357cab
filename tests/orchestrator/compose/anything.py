"""What any files at all must survive; for the tests that make them up, and for the fuzzer."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.compose.hashes import service_hash
from orchestrator.compose.honesty import findings
from orchestrator.compose.load import ComposeError, load, read
from orchestrator.compose.printed import as_json, as_yaml, escaped
from orchestrator.compose.variables import variables

NAMES = ["a", "b", "default", "x-y"]
TEXTS = [
    *("", "a", "b", "./a", "/a", "~/a", "80", "8000-8010:80-90/udp", "1.2.3.4::80", "[::1]:1:2", "a:/b:ro", "./a:/b:z", "service:b"),
    *("10s", "1m", "5", "0.5", "all", "host", "none", "always", "A=1", "A", "a=1.2.3.4", "a:b:c", "$A", "${B}", "${B:?needed}", "${C:-x}", "$$"),
    *("service_healthy", "service_started", "bind", "volume", "tmpfs", "CMD", "NONE", "on-failure:3", "every_3d", "0755", "true", "no", "\x1b", "é"),
    *("compose.yaml", "e.env", "b.yaml", "missing.yaml", "SIGTERM", "sync", "1e9", "9" * 30, "a b 'c d'", "a && b"),
]  # fmt: skip
_PART = re.compile(rb"^#(\.env|b\.yaml)\n", re.MULTILINE)


def files(data: bytes) -> dict[str, bytes]:
    """Name → content: the bytes are compose.yaml; what follows a line `#.env` or `#b.yaml` is that file."""
    first, *rest = _PART.split(data)
    return {"compose.yaml": first} | {
        name.decode(): content for name, content in zip(rest[::2], rest[1::2], strict=True)
    }


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
