"""How wide the terminal is: asked by the parser and by tables, without shutil (which loads three compressors)."""

from __future__ import annotations

import os

LEAST = 40


def columns(descriptor: int = 1) -> int:
    """COLUMNS, else the terminal's (0: it does not know), else 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given) > 0:
        return max(LEAST, int(given))
    try:
        return max(LEAST, os.get_terminal_size(descriptor).columns or 80)
    except (OSError, ValueError):
        return 80
