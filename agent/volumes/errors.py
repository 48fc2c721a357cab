"""The errors of volumes, for the real ones and the fake alike."""

from __future__ import annotations

from pathlib import Path

from agent.kit.errors import UserError


def unknown(name: str) -> UserError:
    return UserError(f"cannot find volume {name}", code="volume-unknown", hint="gorae volume ls shows those there are")


def external(name: str) -> UserError:
    return UserError(
        f"cannot use volume {name}: it is external, and does not exist",
        code="volume-missing",
        hint=f"gorae volume create {name}",
    )


def taken(name: str) -> UserError:
    return UserError(
        f"cannot create volume {name}: there is one with other options or labels",
        code="volume-exists",
        hint=f"gorae volume inspect {name}",
    )


def there_already(name: str) -> UserError:
    return UserError(
        f"cannot restore volume {name}: there is one already",
        code="volume-exists",
        hint="--name NAME makes another; --force replaces what is in it",
    )


def file_exists(name: str, path: Path) -> UserError:
    return UserError(
        f"cannot back up volume {name} into {path}: it exists already", code="file-exists", hint="choose another name"
    )


def bad_backup(path: Path, why: str) -> UserError:
    return UserError(f"cannot restore {path}: {why}", code="bad-backup", hint="gorae volume backup writes such files")
