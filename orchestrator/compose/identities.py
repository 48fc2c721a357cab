"""Which entry of a list in a service says what an earlier one says, and so takes its place in merging (13-merge.md,
unique resources). The keys are paths in a service, with * for the name of a network."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from orchestrator.compose.nodes import Node, fields, spelled


def _port(entry: Node) -> Hashable:
    if not isinstance(entry.value, dict):
        return spelled(entry.value)
    port = fields(entry)
    host = port.get("host_ip")
    return (
        spelled(host.value) if host else "0.0.0.0",
        *(spelled(port[key].value) if key in port else "" for key in ("published", "target", "protocol")),
    )


def _field(name: str, root: str = "") -> Callable[[Node], Hashable]:
    def identity(entry: Node) -> Hashable:
        if not isinstance(entry.value, dict):
            return spelled(entry.value)
        node = entry.value.get(name)
        source = entry.value.get("source")
        return spelled(node.value) if node else root + (spelled(source.value) if source else "")

    return identity


def _text(entry: Node) -> Hashable:
    return spelled(entry.value)


UNIQUE: dict[str, Callable[[Node], Hashable]] = {
    **dict.fromkeys(
        [
            "build.tags",
            "cap_add",
            "cap_drop",
            "dns",
            "dns_opt",
            "dns_search",
            "expose",
            "links",
            "profiles",
            "tmpfs",
            "networks.*.aliases",
            "networks.*.link_local_ips",
        ],
        _text,
    ),
    "configs": _field("target", "/"),
    "devices": _field("target"),
    "env_file": _field("path"),
    "ports": _port,
    "secrets": _field("target", "/run/secrets/"),
    "volumes": _field("target"),
}


def frozen(entry: Node) -> Hashable:
    """Entries that say the same are equal."""
    if isinstance(entry.value, dict):
        return frozenset((key, frozen(child)) for key, child in entry.value.items())
    if isinstance(entry.value, list):
        return tuple(frozen(child) for child in entry.value)
    return entry.value
