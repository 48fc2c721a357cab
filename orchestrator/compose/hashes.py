"""`gorae config --hash`: one text for all that a service's containers are made from.

It changes if, and only if, `gorae up` would replace the containers: not with what changes in place or is about no
container, nor with keys that are ignored, nor with the order or the form in which the file says things. It cannot know
of a new image behind the same name: that takes a registry, and up.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from orchestrator.compose.keys import ROOT, Branch
from orchestrator.compose.modes import MODES

# Policies, which change while a container runs, and what no container is made from: orchestrator/decide/expand.py.
_APART = frozenset(
    (
        "attach",
        "build",
        "cpus",
        "depends_on",
        "deploy",
        "develop",
        "healthcheck",
        "mem_limit",
        "mem_reservation",
        "pids_limit",
        "post_start",
        "pre_stop",
        "profiles",
        "pull_policy",
        "pull_refresh_after",
        "restart",
        "scale",
        "stop_grace_period",
        "stop_signal",
        "x-gorae-drain",
        "x-gorae-healthcheck",
        "x-gorae-on-unhealthy",
    )
)


def service_hash(document: dict[str, Any], name: str) -> str:
    """64 hex digits. `document`: a project in canonical form that has the service."""
    parts = [part for one in _with_shared(document, name) for part in _parts(document, one, name)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _with_shared(document: dict[str, Any], name: str) -> list[str]:
    """The service, then those whose volumes it takes (volumes_from), and those whose volumes they take."""
    found = [name]
    for one in found:
        shares = document["services"].get(one, {}).get("volumes_from", ())
        found += sorted({share.partition(":")[0] for share in shares} - {*found})
    return found


def _parts(document: dict[str, Any], name: str, of: str) -> list[Any]:
    """What of the service `name` makes the containers of the service `of`, and what stands behind its volumes."""
    service = document["services"].get(name, {})
    kept = {key: value for key, value in service.items() if key not in _APART} if name == of else {}
    mounts = service.get("volumes", ())
    if mounts:
        kept["volumes"] = [_mount(mount) for mount in mounts]
    behind = {
        mount["source"]: _behind(document["volumes"][mount["source"]])
        for mount in mounts
        if mount["type"] == "volume" and mount.get("source") in document.get("volumes", {})
    }
    if name == of:
        kept |= _network(document, service)
        if kept.get("network_mode") == "host":
            kept.pop("ports", None)
    return [_counted(kept, ROOT.children["services"].children["*"]), behind]


def _network(document: dict[str, Any], service: dict[str, Any]) -> dict[str, Any]:
    """Either a mode or networks, whichever way it is written (orchestrator/compose/networks.py)."""
    uses = service.get("networks") or {"default": None}
    mode = service.get("network_mode", "bridge")
    for key in uses:
        network = document.get("networks", {}).get(key) or {}
        words = (network.get("driver"), network.get("name") if network.get("external") else None)
        mode = next((word for word in words if word in MODES), mode)
    if mode in ("bridge", "default", ""):
        return {"network_mode": {}, "networks": _networks(document, uses)}
    return {"network_mode": mode, "networks": {}}


_NETWORK = ("enable_ipv6", "ipam", "driver_opts")
_USE = ("ipv4_address", "ipv6_address", "mac_address")


def _networks(document: dict[str, Any], uses: dict[str, Any]) -> dict[str, Any]:
    """By name, and as nobody changed it for a stack's default network alone (orchestrator/decide/networks.py)."""
    plain = f"{document['name']}_default"
    found = {}
    for key, use in uses.items():
        network = document.get("networks", {}).get(key) or {}
        said = [{k: one[k] for k in keys if one.get(k)} for one, keys in ((network, _NETWORK), (use or {}, _USE))]
        found[network.get("name", plain)] = [
            network.get("internal", False),
            (use or {}).get("aliases", []),
            *([said] if any(said) else []),
        ]
    return {"default": None} if found == {plain: [False, []]} else found


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    """Labels are the volume's, and r or not is the same."""
    propagation = mount.get("bind", {}).get("propagation", "").removeprefix("r")
    changed = {
        "volume": {key: value for key, value in mount.get("volume", {}).items() if key != "labels"},
        "bind": {key: value for key, value in mount.get("bind", {}).items() if key != "propagation"}
        | ({"propagation": propagation} if propagation not in ("", "private") else {}),
    }
    return mount | {key: value for key, value in changed.items() if key in mount}


def _behind(volume: dict[str, Any]) -> Any:
    made = {key: volume[key] for key in ("external", "driver_opts") if volume.get(key)}
    return [volume.get("name"), made] if made else volume.get("name")


def _counted(value: Any, branch: Branch | None) -> Any:
    """The value without what the table of keys ignores, and without mappings that are empty then."""
    if branch is None:
        return value
    if isinstance(value, dict):
        below = {key: branch.children.get(key, branch.children.get("*")) for key in value}
        found = {key: _counted(value[key], child) for key, child in below.items() if not _idle(child)}
        return {key: child for key, child in found.items() if child != {}}
    if isinstance(value, list):
        return [_counted(item, branch.children.get("[]")) for item in value]
    return value


def _idle(branch: Branch | None) -> bool:
    return branch is not None and branch.rule.verdict in ("ignored", "warned")
