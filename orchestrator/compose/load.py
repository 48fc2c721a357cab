"""Compose files → a project in canonical form (`read`) → the stack that gorae runs (`load`).

    read        YAML → Nodes, which know their places                        read.py
    interpolate variables                                                    interpolate.py, dotenv.py
    include     other files' resources beneath a file's own                  assemble.py
    validate    every key and value against the table; short forms → long    table.py, validate.py, forms.py
    extends     a service beneath another                                    assemble.py
    merge       each file over those before it                               merge.py
    resolve     relative paths                                               paths.py
    normalize   defaults, names, implied dependencies                        normalize.py
    select      profiles, services                                           select.py
    check       what no single value shows                                   check.py, references.py
    fill        env_file, label_file                                         environment.py
    judge, and understand what gorae honours                                 honesty.py, runtime.py

Runs in the CLI, with the user's rights and environment. Not to be imported by verbs that load no files: yaml and
pydantic cost more than `gorae status` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.compose import check, document, honesty, normalize, references, select
from orchestrator.compose.assemble import Assembly, Scope
from orchestrator.compose.environment import Files
from orchestrator.compose.errors import ComposeError, Problem, Report
from orchestrator.compose.files import locate, project_name, shown
from orchestrator.compose.interpolate import interpolate
from orchestrator.compose.nodes import BAD, Node, fields, text

if TYPE_CHECKING:
    from orchestrator.compose import model

__all__ = ["ComposeError", "Composed", "Loaded", "judged", "load", "read"]


@dataclass(frozen=True, slots=True)
class Composed:
    """A project in canonical form. `root`: its tree, of the services that are meant. `written`: the same without what
    the files leave unsaid. `everything`: all services. `variables`: what interpolation saw. `files`: absolute, in the
    order they were merged. `warnings`: sentences, each with its place."""

    name: str
    root: Node
    written: Node
    everything: Node
    variables: Mapping[str, str]
    folder: Path
    files: tuple[Path, ...]
    warnings: tuple[str, ...]

    @property
    def services(self) -> frozenset[str]:
        """The names of all, of profiles that are not active as well."""
        return frozenset(fields(fields(self.everything).get("services")))

    def document(self, *, models: bool = False) -> dict[str, Any]:
        """Plain values, as `docker compose config --format json` prints them; `models`: as for YAML."""
        return document.document(self.root, models=models)


@dataclass(frozen=True, slots=True)
class Loaded:
    """`warnings`: sentences for people, each with its place. `files`: absolute, in the order they were merged.
    `others`: services that the files have as well: of profiles that are not active, or not meant."""

    stack: model.Stack
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    others: tuple[str, ...] = ()


def read(
    files: Sequence[Path] | None,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    project: str | None = None,
    env_files: Sequence[Path] | None = None,
    project_directory: Path | None = None,
    profiles: Sequence[str] = (),
    services: Sequence[str] = (),
    interpolated: bool = True,
) -> Composed:
    """`files` None or empty: found by the search rules, from `cwd`. Raises ComposeError with all that is wrong."""
    report = Report(interpolated=interpolated)
    composed = _compose(files, environ, cwd, project, env_files, project_directory, profiles, services, report)
    report.finish()
    return composed


def load(
    files: Sequence[Path] | None,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    project: str | None = None,
    env_files: Sequence[Path] | None = None,
    project_directory: Path | None = None,
    profiles: Sequence[str] = (),
    services: Sequence[str] = (),
) -> Loaded:
    """The stack as gorae runs it; of `services` and what they depend on, if any are named. Raises ComposeError with all
    that is wrong, what gorae does not honour included."""
    report = Report()
    composed = _compose(files, environ, cwd, project, env_files, project_directory, profiles, services, report)
    stack = _stack(composed, report)
    others = composed.services - stack.services.keys()
    return Loaded(stack, tuple(report.warnings), composed.files, tuple(sorted(others)))


def judged(
    files: Sequence[Path] | None,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    project: str | None = None,
    env_files: Sequence[Path] | None = None,
    project_directory: Path | None = None,
    profiles: Sequence[str] = (),
) -> tuple[Composed | None, tuple[Problem, ...]]:
    """What read() returns, None if it would raise, and the problems of which load() would; the files are read once."""
    report = Report()
    composed = None
    try:
        found = _compose(files, environ, cwd, project, env_files, project_directory, profiles, (), report)
        composed = None if report.problems else found
        _stack(found, report)
    except ComposeError as error:
        return composed, error.problems
    return composed, ()


def _stack(composed: Composed, report: Report) -> model.Stack:
    """Raises ComposeError with all that is in the report, and what gorae does not honour."""
    from pydantic import ValidationError

    from orchestrator.compose import runtime
    from orchestrator.compose.context import Context

    honesty.judge(composed.written, report)
    if not fields(fields(composed.root).get("services")) and not report.problems:
        report.problem(
            composed.root, "cannot make a stack of this: it declares no service", "services: {NAME: {image: …}}"
        )
    try:
        return runtime.stack(composed.name, composed.root, Context(report))
    except ValidationError as error:
        # A value that every stage let pass and the model refuses: our mistake, but the user gets a sentence.
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        report.stop(None, f"cannot use {where or 'the stack'}: {first['msg']}")


def _compose(
    files: Sequence[Path] | None,
    environ: Mapping[str, str],
    cwd: Path,
    project: str | None,
    env_files: Sequence[Path] | None,
    project_directory: Path | None,
    profiles: Sequence[str],
    services: Sequence[str],
    report: Report,
) -> Composed:
    """All stages; problems that do not hinder reading on are left in the report."""
    found = locate(files, env_files, environ, cwd, report, project_directory)
    assembly = Assembly(cwd, report)
    documents = [document for path in found.files for document in assembly.documents(path)]
    for node in documents:
        if node.value is None:
            report.problem(node.key_at, "cannot use an empty document as a Compose file: it must be a mapping")
    if not documents and not report.problems:
        report.problem(None, f"cannot read {shown(found.files[0], cwd)}: it is empty", "services: {NAME: {image: …}}")
    report.finish()
    variables = found.environment
    name = project_name(project, _written_name(documents, variables, report), variables, found.folder, report)
    variables["COMPOSE_PROJECT_NAME"] = name
    merged = assembly.project(found.files, Scope(found.folder, variables))
    everything = normalize.normalize(merged, name, variables)
    profiles = [*profiles, *(word for word in variables.get("COMPOSE_PROFILES", "").split(",") if word)]
    active, inactive = select.active(everything, profiles, services, report)
    check.check(active, inactive, report)
    references.volumes(active, report)
    chosen = filled = select.chosen(active, services)
    if report.interpolated:  # else nobody knows yet what is used
        chosen = normalize.used(chosen)
        filled = Files(cwd, variables, report).filled(chosen)
    written = normalize.within(merged, chosen)
    return Composed(name, filled, written, everything, variables, found.folder, found.files, tuple(report.warnings))


def _written_name(documents: Sequence[Node], variables: Mapping[str, str], report: Report) -> str | None:
    """`name:` of the last document that has it, interpolated; what is wrong with it is reported once, later."""
    for node in reversed([fields(one).get("name") for one in documents]):
        if node is not None:
            name = interpolate(node, variables.get, report) if report.interpolated else node
            if name.value is BAD:
                report.finish()
            return text(name)
    return None
