"""What the tests of this package share: files in a folder → what they load as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose.load import Composed, ComposeError, Loaded, load, read
from orchestrator.compose.model import Service

MINIMAL = "services: {a: {image: x}}\n"


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def loaded(folder: Path, files: Mapping[str, str] | str, environ: Mapping[str, str] | None = None) -> Loaded:
    """The files whose names end in .yaml, in order, as with -f; the others lie beside them."""
    contents = {"compose.yaml": files} if isinstance(files, str) else files
    write(folder, contents)
    named = [folder / name for name in contents if name.endswith(".yaml")]
    return load(named, project="p", environ=environ or {}, cwd=folder)


def service(folder: Path, keys: str, environ: Mapping[str, str] | None = None, **files: str) -> Service:
    """The service `a` with these lines as its keys, beside services b and c and the volumes v and w."""
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    text = f"services:\n  b: {{image: x}}\n  c: {{image: x}}\n  a:\n    image: x\n{lines}volumes:\n  v:\n  w:\n"
    return loaded(folder, {"compose.yaml": text, **files}, environ).stack.services["a"]


def composed(
    folder: Path, files: Mapping[str, str] | str, environ: Mapping[str, str] | None = None, **how: Any
) -> Composed:
    """The whole project in canonical form; files and environment as in loaded(), `how`: what else read() takes."""
    contents = {"compose.yaml": files} if isinstance(files, str) else files
    write(folder, contents)
    named = [folder / name for name in contents if name.endswith(".yaml")]
    return read(named, environ=environ or {}, cwd=folder, **{"project": "p", **how})


def document(
    folder: Path, files: Mapping[str, str] | str, environ: Mapping[str, str] | None = None, **how: Any
) -> dict[str, Any]:
    """The plain values of composed(); the folder is @."""
    text = json.dumps(composed(folder, files, environ, **how).document())
    found: dict[str, Any] = json.loads(text.replace(str(folder), "@"))
    return found


def refusals(
    folder: Path, files: Mapping[str, str] | str, environ: Mapping[str, str] | None = None, **how: Any
) -> list[str]:
    """What makes the files no Compose project, hints in brackets; whether gorae runs it is no matter."""
    with pytest.raises(ComposeError) as caught:
        composed(folder, files, environ, **how)
    found = [f"{problem} ({problem.hint})" if problem.hint else str(problem) for problem in caught.value.problems]
    return [text.replace(str(folder), "@") for text in found]


def problems(folder: Path, files: Mapping[str, str] | str, environ: Mapping[str, str] | None = None) -> list[str]:
    try:
        loaded(folder, files, environ)
    except ComposeError as error:
        return [str(problem) for problem in error.problems]
    return []
