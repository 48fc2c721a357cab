"""The variables of one service: env_file in order, then environment over it (05-services.md, environment; env_file).

A variable without a value takes the stack's; where that has none it is absent, though an env_file may have set it.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.compose import dotenv
from orchestrator.compose.context import Context
from orchestrator.compose.files import shown, text_of
from orchestrator.compose.nodes import Node, fields, flag, items, text


def environment(service: dict[str, Node], path: str, context: Context) -> dict[str, str]:
    own: dict[str, str | None] = {}
    for name, node in fields(service.get("environment")).items():
        value = text(node)
        own[name] = context.variables.get(name) if value is None else value
    found: dict[str, str] = {}

    def lookup(name: str) -> str | None:
        for known in (context.variables, own, found):
            if (value := known.get(name)) is not None:
                return value
        return None

    for entry in items(service.get("env_file")):
        source = _read(entry, path, context)
        if source is not None:
            file, content = source
            context.report.spend(2 * len(content), entry)  # a file may be named by every service
            parse = dotenv.parse_raw if text(fields(entry).get("format")) == "raw" else dotenv.parse
            found |= parse(content, file, lookup, context.report)
    return {name: value for name, value in (found | own).items() if value is not None}


def _read(entry: Node, path: str, context: Context) -> tuple[str, str] | None:
    """The file's name for people, and its text; None when it is not there and need not be."""
    try:
        place = Path(context.source(text(fields(entry)["path"]) or ""))
    except ValueError as error:
        context.report.problem(entry, f"cannot use {path}.env_file: {error}")
        return None
    name = shown(place, context.cwd)
    if not place.exists():
        if flag(fields(entry).get("required"), True):
            hint = "create it, or write `required: false`"
            context.report.problem(entry, f"cannot find the env_file {name}", hint)
        return None
    if place not in context.sources:
        context.sources[place] = text_of(place, name, context.report)
    content = context.sources[place]
    return None if content is None else (name, content)
