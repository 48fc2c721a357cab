"""Compose files → one model.Stack. The order is the reference's: each file is read, interpolated, checked against the
table of keys and brought to long form; then all are merged; then values are understood and checked against each other.

Runs in the CLI, with the user's rights and environment. Not to be imported by verbs that load no files: yaml and
pydantic cost more than `gorae status` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestrator.compose import model
from orchestrator.compose.check import check
from orchestrator.compose.context import Context
from orchestrator.compose.errors import ComposeError, Report
from orchestrator.compose.files import bytes_of, locate, project_name, shown
from orchestrator.compose.forms import long_form
from orchestrator.compose.interpolate import interpolate
from orchestrator.compose.merge import merge, unique
from orchestrator.compose.nodes import BAD, Mark, Node, fields, text
from orchestrator.compose.normalize import stack
from orchestrator.compose.read import read
from orchestrator.compose.validate import validate

__all__ = ["ComposeError", "Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """`warnings`: sentences for people, each with its place. `files`: absolute, in the order they were merged."""

    stack: model.Stack
    warnings: tuple[str, ...]
    files: tuple[Path, ...]


def load(
    files: Sequence[Path] | None,
    *,
    project: str | None = None,
    env_files: Sequence[Path] | None = None,
    environ: Mapping[str, str],
    cwd: Path,
) -> Loaded:
    """`files` None or empty: found by the search rules, from `cwd`. Raises ComposeError with all that is wrong."""
    report = Report()
    found = locate(files, env_files, environ, cwd, report)
    documents = _documents(found.files, cwd, report)
    variables = found.environment
    name = project_name(project, _written_name(documents, variables, report), variables, found.folder, report)
    variables["COMPOSE_PROJECT_NAME"] = name
    root = documents[0].with_value({})
    for document in documents:
        prepared = validate(interpolate(document, variables.get, report), report)
        root = merge(root, unique(long_form(prepared, report), report))
    check(root, report)
    try:
        resolved = stack(name, root, Context(found.folder, cwd, variables, report))
    except ValidationError as error:
        # A value that every stage let pass and the model refuses: our mistake, but the user gets a sentence.
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        report.stop(None, f"cannot use {where or 'the stack'}: {first['msg']}")
    return Loaded(resolved, tuple(report.warnings), found.files)


def _documents(files: Sequence[Path], cwd: Path, report: Report) -> list[Node]:
    """All documents of all files, in order; several in one file merge like several files."""
    documents = []
    for path in files:
        name = shown(path, cwd)
        data = bytes_of(path, name, report)
        if data is not None:
            documents += [node for node in read(data, name, report) if node.value is not None]
    report.finish()
    return documents or [Node({}, Mark(shown(files[0], cwd), 1, 1), Mark(shown(files[0], cwd), 1, 1))]


def _written_name(documents: Sequence[Node], variables: Mapping[str, str], report: Report) -> str | None:
    """`name:` of the last document that has it, interpolated; what is wrong with it is reported once, later."""
    for document in reversed(documents):
        node = fields(document).get("name")
        if node is not None:
            name = interpolate(node, variables.get, report)
            if name.value is BAD:
                report.finish()
            return text(name)
    return None
