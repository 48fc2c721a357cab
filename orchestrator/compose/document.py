"""A canonical tree → plain values, as `docker compose config --format json` prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.compose.nodes import BAD, Node, fields

_KEPT_NULL = frozenset(("command", "entrypoint"))


def plain(node: Node) -> Any:
    """Dicts, lists and scalars; no place is kept."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items() if not child.tag == "reset"}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return None if value is BAD else value


def document(root: Node) -> dict[str, Any]:
    top = fields(root)
    found: dict[str, Any] = {}
    for key, node in top.items():
        if key == "services":
            found[key] = {name: service(child) for name, child in fields(node).items()}
        elif key in ("networks", "volumes", "configs", "secrets"):
            found[key] = {name: _resource(child) for name, child in fields(node).items()}
        else:
            found[key] = plain(node)
    return dict(sorted(found.items()))


def service(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {"command": None, "entrypoint": None}
    for key, child in fields(node).items():
        value = _CHANGED[key](plain(child)) if key in _CHANGED else plain(child)
        if value not in ({}, []) or key in _KEPT_NULL:
            found[key] = value
    return dict(sorted(found.items()))


def _resource(node: Node) -> dict[str, Any]:
    found = plain(node) or {}
    if "labels" in found:
        found["labels"] = _filled(found["labels"])
    if found.get("external") is False:
        del found["external"]
    return found


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {key: "" if value is None else value for key, value in values.items()}


def _build(value: dict[str, Any]) -> dict[str, Any]:
    changed = dict(value)
    for key in ("labels",):
        if key in changed:
            changed[key] = _filled(changed[key])
    if "ssh" in changed:
        changed["ssh"] = [name if path is None else f"{name}={path}" for name, path in changed["ssh"].items()]
    if "extra_hosts" in changed:
        changed["extra_hosts"] = sorted(changed["extra_hosts"])
    for key in ("provenance", "sbom"):
        if isinstance(changed.get(key), bool):
            changed[key] = str(changed[key]).lower()
    return changed


def _blkio(value: dict[str, Any]) -> dict[str, Any]:
    def entry(item: Any) -> Any:
        return {key.capitalize(): inner for key, inner in item.items()} if isinstance(item, dict) else item

    return {key: [entry(item) for item in child] if isinstance(child, list) else child for key, child in value.items()}


def _logging(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "options": _filled(value["options"])} if "options" in value else value


def _deploy(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "labels": _filled(value["labels"])} if "labels" in value else value



def _modes(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**item, "mode": f"{item['mode']:04o}"} if isinstance(item.get("mode"), int) else item for item in value]


_CHANGED: dict[str, Callable[[Any], Any]] = {
    "annotations": _filled,
    "blkio_config": _blkio,
    "build": _build,
    "configs": _modes,
    "deploy": _deploy,
    "extra_hosts": sorted,
    "labels": _filled,
    "logging": _logging,
    "secrets": _modes,
    "storage_opt": _filled,
    "sysctls": _filled,
}
