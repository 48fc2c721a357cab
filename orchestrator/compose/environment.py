"""The variables and labels of each service, with those of its files (05-services.md: environment, env_file, labels,
label_file). A later file wins over an earlier one, the service's own over all files.

A variable without a value takes the stack's; where that has none it is absent, though an env_file may have set it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.compose import dotenv
from orchestrator.compose.errors import Report
from orchestrator.compose.files import shown, text_of
from orchestrator.compose.interpolate import Lookup
from orchestrator.compose.nodes import BAD, Node, Value, fields, flag, items, text
from orchestrator.compose.values import short


class Files:
    """Files of variables, read once however many services name them."""

    def __init__(self, cwd: Path, variables: Mapping[str, str], report: Report) -> None:
        self._cwd = cwd
        self._variables = variables
        self._report = report
        self._texts: dict[Path, str | None] = {}

    def filled(self, root: Node) -> Node:
        """The tree, every service with the variables and labels of its files."""
        top = fields(root)
        if "services" not in top:
            return root
        services = {name: self._service(name, node) for name, node in fields(top["services"]).items()}
        return root.with_value({**top, "services": top["services"].with_value(services)})

    def _service(self, name: str, node: Node) -> Node:
        entry = {key: child for key, child in fields(node).items() if key != "env_file"}
        if "environment" in entry or "env_file" in fields(node):
            at = entry.get("environment", node)
            entry["environment"] = at.with_value(self._environment(fields(node), f"services.{name}"))
        if "label_file" in fields(node):
            at = entry.get("labels", node)
            entry["labels"] = at.with_value(self._labels(fields(node), f"services.{name}"))
        return node.with_value(entry)

    def _environment(self, service: Mapping[str, Node], path: str) -> Value:
        own: dict[str, Node] = {}
        for name, node in fields(service.get("environment")).items():
            value = self._variables.get(name) if node.value is None else node.value
            own[name] = node.with_value(value)
        found: dict[str, str] = {}

        def lookup(name: str) -> str | None:
            if (value := self._variables.get(name)) is not None:
                return value
            mine = text(own.get(name))
            return found.get(name) if mine is None else mine

        read: dict[str, Node] = {}
        for entry in items(service.get("env_file")):
            form = text(fields(entry).get("format")) or ""
            if form not in ("", "raw", "env_file"):
                message = f"cannot read {path}.env_file as {short(form)}: raw is the only other format"
                self._report.problem(fields(entry)["format"], message)
                continue
            for name, value in self._read(
                entry, fields(entry).get("path"), path, "env_file", lookup, form == "raw"
            ).items():
                found[name] = value
                read[name] = Node(value, entry.at, entry.key_at)
        return read | own

    def _labels(self, service: Mapping[str, Node], path: str) -> Value:
        found: dict[str, Node] = {}
        for entry in items(service.get("label_file")):
            for name, value in self._read(entry, entry, path, "label_file", lambda name: None, False).items():
                found[name] = Node(value, entry.at, entry.key_at)
        return found | fields(service.get("labels"))

    def _read(self, entry: Node, named: Node | None, path: str, key: str, lookup: Lookup, raw: bool) -> dict[str, str]:
        """The variables of the file; none when it is not there and need not be."""
        if named is None or named.value is BAD or not text(named):
            return {}
        place = Path(text(named) or "")
        name = shown(place, self._cwd)
        if not os.path.exists(place):  # noqa: PTH110 - Path.exists raises when a name is too long
            if flag(fields(entry).get("required"), True):
                hint = "create it, or write `required: false`" if key == "env_file" else "create it"
                self._report.problem(entry, f"cannot find the {key} {name}", hint)
            return {}
        if place not in self._texts:
            self._texts[place] = text_of(place, name, self._report, entry)
        content = self._texts[place]
        if content is None:
            return {}
        self._report.spend(6 * len(content), entry)  # a file may be named by every service
        return (dotenv.parse_raw if raw else dotenv.parse)(content, name, lookup, self._report)
