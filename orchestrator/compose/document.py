"""A canonical tree → plain values, as `docker compose config --format json` prints them.

What says nothing is left out, as the reference does: empty texts, mappings and lists, 0 and false; but for keys where
these differ from leaving the key out. Names and values of entries (environment, labels, …) are kept whatever they are.
"""

from __future__ import annotations

from typing import Any

from orchestrator.compose.keys import ROOT, Branch
from orchestrator.compose.nodes import Node, fields, plain

# Of a service also without a value. The others: 0 and false say something.
_ALWAYS = ("command", "entrypoint")
_TOLD = frozenset(
    [
        "attach",
        "count",
        "create_host_path",
        "enable_ipv4",
        "enable_ipv6",
        "hard",
        "init",
        "initial_sync",
        "mode",
        "replicas",
        "required",
        "retries",
        "scale",
        "soft",
        "test",
    ]
)


def document(root: Node, *, models: bool = False) -> dict[str, Any]:
    """`models`: with the top-level key of that name, which the reference prints in YAML alone."""
    found: dict[str, Any] = _below(root, ROOT)
    if not models:
        found.pop("models", None)
    for service in found.get("services", {}).values():
        for key in _ALWAYS:
            service.setdefault(key, None)
        for key, limits in service.get("blkio_config", {}).items():
            if isinstance(limits, list):
                service["blkio_config"][key] = [{name.capitalize(): one[name] for name in one} for one in limits]
    return found


def _value(node: Node, branch: Branch) -> Any:
    shape = branch.rule.shape
    if shape == "hosts":
        return sorted(plain(node))
    if shape == "ssh":
        return [key if child.value is None else f"{key}={child.value}" for key, child in fields(node).items()]
    if shape in ("entries", "options", "variables"):
        nothing = None if shape == "variables" else ""
        return {key: nothing if child.value is None else child.value for key, child in sorted(fields(node).items())}
    if shape or not branch.children:
        return _scalar(node, branch)
    return _below(node, branch)


def _scalar(node: Node, branch: Branch) -> Any:
    value = plain(node)
    if "mode" in branch.rule.kinds and isinstance(value, int):
        return f"0{value:o}"
    if "text" in branch.rule.kinds and isinstance(value, bool):
        return str(value).lower()
    return value


def _below(node: Node, branch: Branch) -> Any:
    if isinstance(node.value, list):
        inner = branch.children.get("[]")
        return [_value(child, inner) if inner else plain(child) for child in node.value]
    if not isinstance(node.value, dict):
        return _scalar(node, branch)
    any_name = branch.children.get("*")
    found = {}
    for key, child in node.value.items():
        inner = branch.children.get(key, any_name)
        value = _value(child, inner) if inner else plain(child)
        if inner is any_name or key in _ALWAYS or not _says_nothing(key, value, inner):
            found[key] = value
    return dict(sorted(found.items()))


def _says_nothing(key: str, value: Any, branch: Branch | None) -> bool:
    if key in _TOLD:
        return value in (None, "", [])
    return value in (None, "", 0, False, [], {}) or bool(
        branch and {"size", "limit"} & set(branch.rule.kinds) and value == "0"
    )
