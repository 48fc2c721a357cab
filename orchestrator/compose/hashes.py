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
        "profiles",
        "pull_policy",
        "pull_refresh_after",
        "restart",
        "scale",
        "stop_grace_period",
        "stop_signal",
        "x-gorae-healthcheck",
    )
)


def service_hash(document: dict[str, Any], name: str) -> str:
    """64 hex digits. `document`: a project in canonical form that has the service."""
    kept = {key: value for key, value in document["services"][name].items() if key not in _APART}
    template = _counted(kept, ROOT.children["services"].children["*"])
    names = {
        mount["source"]: document["volumes"][mount["source"]].get("name")
        for mount in kept.get("volumes", ())
        if mount["type"] == "volume" and mount.get("source") in document.get("volumes", {})
    }
    text = json.dumps([template, names], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
