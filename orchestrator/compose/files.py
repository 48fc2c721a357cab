"""Which files make the stack, what it is called and which variables it sees (03-compose-file.md,
04-version-and-name.md, 12-interpolation.md). All is read with the rights of the user who asks; nothing is written.

    files      those given, else COMPOSE_FILE, else the first of NAMES here or in a folder above, with its override
    variables  the process's, then those of --env-file or .env: the .env beside COMPOSE_FILE's reader, then the stack's
    name       -p, COMPOSE_PROJECT_NAME, `name:` of the last file that has it, the folder's name
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.compose import dotenv
from orchestrator.compose.errors import Report, plain_text
from orchestrator.compose.nodes import Mark, Node
from orchestrator.compose.read import MAX_BYTES

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Located:
    """`files` and `folder` (where relative paths begin) are absolute. `environment`: what interpolation sees."""

    files: tuple[Path, ...]
    folder: Path
    environment: dict[str, str]


def locate(
    given: Sequence[Path] | None,
    env_files: Sequence[Path] | None,
    environ: Mapping[str, str],
    cwd: Path,
    report: Report,
    project_directory: Path | None = None,
) -> Located:
    """Raises ComposeError compose-file-missing when there is nothing to load."""
    environment = {name: _utf8(value) for name, value in {"PWD": str(cwd), **environ}.items()}
    explicit = list(env_files or ()) or [Path(name) for name in environ.get("COMPOSE_ENV_FILES", "").split(",") if name]
    if explicit:
        add_variables([absolute(path, cwd) for path in explicit], environment, cwd, report, required=True)
    elif not given and not _truth(environment.get("COMPOSE_DISABLE_ENV_FILE")):
        add_variables([cwd / ".env"], environment, cwd, report, required=False)
    if not given and (listed := environment.get("COMPOSE_FILE")):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        given = [Path(name) for name in listed.split(separator) if name]
    files = [absolute(path, cwd) for path in given] if given else _search(cwd, report)
    folder = absolute(project_directory, cwd) if project_directory else files[0].parent
    if not explicit and (given or folder != cwd) and not _truth(environment.get("COMPOSE_DISABLE_ENV_FILE")):
        add_variables([folder / ".env"], environment, cwd, report, required=False)
    return Located(tuple(files), folder, environment)


def _truth(value: str | None) -> bool:
    return (value or "").lower() in ("1", "t", "true")


def _utf8(value: str) -> str:
    """Bytes of the process's environment that are no text become U+FFFD: they could not be printed, or sent on."""
    return value if value.isascii() else value.encode(errors="surrogateescape").decode(errors="replace")


def absolute(path: Path, cwd: Path) -> Path:
    return Path(os.path.normpath(cwd / path))


def _search(cwd: Path, report: Report) -> list[Path]:
    folder = next((above for above in (cwd, *cwd.parents) if _present(above, NAMES)), None)
    if folder is None:
        message = f"cannot find a Compose file: there is none of {', '.join(NAMES)} in {cwd} or a folder above it"
        report.stop(None, message, "name one with -f FILE, or go to its folder")
    first, *others = _present(folder, NAMES)
    if others:
        report.warn(None, f"{shown(first, cwd)} is used; there is also {', '.join(path.name for path in others)}")
    return [first, *_present(folder, OVERRIDES)[:1]]


def _present(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def add_variables(
    paths: list[Path],
    environment: dict[str, str],
    cwd: Path,
    report: Report,
    *,
    required: bool,
    at: Node | None = None,
) -> None:
    """Add what the files set and `environment` has not; of the files, a later one wins. `at`: as for bytes_of()."""
    found: dict[str, str] = {}

    def lookup(name: str) -> str | None:
        return environment.get(name, found.get(name))

    for path in paths:
        if not required and not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises when a name is too long
            continue
        source = text_of(path, shown(path, cwd), report, at)
        if source is not None:
            report.spend(6 * len(source), None)
            found |= dotenv.parse(source, shown(path, cwd), lookup, report)
    environment.update({name: value for name, value in found.items() if name not in environment})


def shown(path: Path, cwd: Path) -> str:
    """The path as people know it: relative, when it is in the folder they are in."""
    return plain_text(str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path))


def bytes_of(path: Path, name: str, report: Report, at: Node | None = None) -> bytes | None:
    """What the file holds, at most one byte more than is allowed. Never waits for a device or a pipe's writer.
    `at`: what names the file, if a file does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    return file.read(MAX_BYTES + 1)
            report.problem(at, f"cannot read {name}: it is no regular file")
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        report.problem(at, f"cannot read {name}: {why}", "check the path and its permissions")
    return None


def text_of(path: Path, name: str, report: Report, at: Node | None = None) -> str | None:
    data = bytes_of(path, name, report, at)
    if data is None:
        return None
    try:
        if len(data) <= MAX_BYTES:
            return data.decode()
        report.problem(Mark(name, 1, 1), f"cannot read the file: it is larger than {MAX_BYTES // 1024} KiB")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        report.problem(Mark(name, line, 1), "cannot read the file: it is not text in UTF-8")
    return None


def project_name(
    given: str | None, written: str | None, environment: Mapping[str, str], folder: Path, report: Report
) -> str:
    """`written`: `name:` of the files. What a person chose must be valid; what a file says is made so."""
    chosen = given or environment.get("COMPOSE_PROJECT_NAME")
    name = chosen or re.sub(r"[^a-z0-9_-]", "", (written or folder.name).lower()).lstrip("_-")
    if not _NAME.fullmatch(name):
        origin = repr(chosen or written or folder.name)
        message = f"cannot name the stack {origin}: a name is 1 to 63 of a-z, 0-9, '-' and '_', a letter or digit first"
        report.stop(None, message, "choose one with -p NAME")
    return name
