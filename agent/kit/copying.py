"""Where a copy goes, by the rules of docker cp. Pure.

SRC is a file (any thing that is no directory), a directory, or, written DIR/., a directory's content. DST is a path
that is missing, a file or a directory.
"""

from __future__ import annotations

from typing import Literal

from agent.kit.errors import UserError

Source = Literal["file", "directory", "content", "archive"]
Found = Literal["missing", "file", "directory"]


def wants_content(path: str) -> bool:
    return path == "." or path.endswith("/.")


def name_of(path: str) -> str:
    """What a copy of it is called inside a directory; "" for the root and for one's own folder."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return parts[-1] if parts and parts[-1] != ".." else ""


def placed(source: Source, name: str, target: str, found: Found) -> str:
    """What the copy is called in `target`; "": it is put at `target` itself (a directory: its content is). `name`: of
    the source. UserError no-directory, is-a-directory, not-a-directory."""
    if found == "directory":
        return "" if source in ("content", "archive") else name
    if source == "archive":
        raise _needs_directory(target, found)
    if found == "file":
        if source != "file":
            raise UserError(
                f"cannot copy a directory to {target}: it is a file", code="not-a-directory", hint="name a directory"
            )
        if target.endswith("/"):
            raise _needs_directory(target, found)
    elif source == "file" and target.endswith("/"):
        raise _needs_directory(target, found)
    return ""


def _needs_directory(target: str, found: Found) -> UserError:
    why = "it is a file" if found == "file" else "there is none"
    return UserError(f"cannot copy into the directory {target}: {why}", code="no-directory", hint="make it first")
