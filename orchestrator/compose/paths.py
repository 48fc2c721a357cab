"""Relative paths of a canonical tree → absolute ones, from the folder of the file that wrote them (03-compose-file)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.compose import mounts
from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node, fields, text

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")
Change = Callable[[Node], Node]


def resolved(root: Node, folder: Path, home: str | None, report: Report) -> Node:
    """A whole project's."""
    top = dict(fields(root))
    change = _changer(folder, home, report)
    if "services" in top:
        services = {
            name: service(_at(node, ("build",), _with_context), folder, home, report)
            for name, node in fields(top["services"]).items()
        }
        top["services"] = top["services"].with_value(services)
    for section in ("configs", "secrets"):
        if section in top:
            found = {name: _at(node, ("file",), change) for name, node in fields(top[section]).items()}
            top[section] = top[section].with_value(found)
    if "volumes" in top:
        volumes = {name: _volume(node, change) for name, node in fields(top["volumes"]).items()}
        top["volumes"] = top["volumes"].with_value(volumes)
    return root.with_value(top)


def service(node: Node, folder: Path, home: str | None, report: Report) -> Node:
    """One service's: build contexts, env_file, label_file, bind mounts, watched files."""
    if not isinstance(node.value, dict):
        return node
    change = _changer(folder, home, report)

    def context(at: Node) -> Node:
        written = text(at) or ""
        remote = "://" in written or written.startswith(("service:", *_REMOTE))
        return at if remote else change(at)

    def mount(at: Node) -> Node:
        bind = text(fields(at).get("type")) == "bind"
        return _at(at, ("source",), change) if bind else at

    for path, how in (
        (("build", "context"), context),
        (("build", "additional_contexts", "*"), context),
        (("env_file", "*", "path"), change),
        (("label_file", "*"), change),
        (("develop", "watch", "*", "path"), change),
        (("volumes", "*"), mount),
    ):
        node = _at(node, path, how)
    return node


def environment_of(root: Node, variables: Mapping[str, str]) -> Node:
    """Variables of services without a value, from the environment of the files that name them: of those in a list
    only, as in the reference."""

    def known(node: Node) -> Node:
        found = {
            name: child.with_value(variables[name])
            if child.value is None and child.at == child.key_at and name in variables
            else child
            for name, child in fields(node).items()
        }
        return node.with_value(found) if isinstance(node.value, dict) else node

    return _at(root, ("services", "*", "environment"), known)


def _changer(folder: Path, home: str | None, report: Report) -> Change:
    def change(at: Node) -> Node:
        written = text(at)
        if written is None or at.value is BAD or report.keeps(written):
            return at
        try:
            return at.with_value(mounts.source(written, str(folder), home))
        except ValueError as error:
            report.problem(at, f"cannot use the path {written[:80]}: {error}")
            return at.with_value(BAD)

    return change


def _with_context(build: Node) -> Node:
    return build.with_value({"context": build.with_value("."), **fields(build)}) if build.value is not BAD else build


def _volume(node: Node, change: Change) -> Node:
    """The device of a bind mount, where `driver: local` is written: the reference resolves no other."""
    entry, options = fields(node), fields(fields(node).get("driver_opts"))
    bound = text(entry.get("driver")) == "local" and "bind" in (text(options.get("o")) or "").split(",")
    return _at(node, ("driver_opts", "device"), change) if bound else node


def _at(node: Node, path: tuple[str, ...], change: Change) -> Node:
    """The tree with change() of every node at the path; `*`: every entry. Untouched where nothing is there."""
    if not path:
        return change(node)
    first, *rest = path
    if isinstance(node.value, list) and first == "*":
        return node.with_value([_at(child, tuple(rest), change) for child in node.value])
    if isinstance(node.value, dict):
        keys = list(node.value) if first == "*" else [first] if first in node.value else []
        return (
            node.with_value({**node.value, **{key: _at(node.value[key], tuple(rest), change) for key in keys}})
            if keys
            else node
        )
    return node
