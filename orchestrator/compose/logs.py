"""What a service's logs may take: `logging` (05-services.md), for the drivers that keep them on this host."""

from __future__ import annotations

from orchestrator.compose import units
from orchestrator.compose.context import Context
from orchestrator.compose.model import LoggingModel
from orchestrator.compose.nodes import Node, fields, text

SIZE = 10 * 1024 * 1024  # bytes, where only the number of files is given
LOCAL = LoggingModel(max_size=20 * 1024 * 1024, max_file=5)  # what Docker's driver of that name keeps
FILES = 1000


def logging(service: dict[str, Node], path: str, context: Context) -> LoggingModel | None:
    """None: as the agent keeps logs of which nothing is said; so with drivers that gorae does not have."""
    entry = fields(service.get("logging"))
    driver, options = text(entry.get("driver")) or "json-file", fields(entry.get("options"))
    if driver == "none":
        return LoggingModel(kept=False)
    if driver not in ("json-file", "local"):
        return None
    where = f"{path}.logging.options"
    size = context.value(options.get("max-size"), f"{where}.max-size", _bytes)
    files = context.value(options.get("max-file"), f"{where}.max-file", _count)
    default = LOCAL if driver == "local" else LoggingModel(max_size=SIZE)
    if size is None and files is None:
        return LOCAL if driver == "local" else None
    if size == 0:
        return LoggingModel(max_size=None)
    return LoggingModel(max_size=size or default.max_size, max_file=files or default.max_file)


def _bytes(written: str) -> int:
    """0: no limit."""
    if written.strip() == "-1":
        return 0
    if size := units.size(written):
        return size
    raise ValueError("nothing can be kept in that; -1 is no limit")


def _count(written: str) -> int:
    if not written.isascii() or not written.isdecimal() or not 0 < int(written[:6]) <= FILES:
        raise ValueError(f"a number of files is 1 to {FILES}")
    return int(written)
