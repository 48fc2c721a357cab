"""Which services of a project are meant (15-profiles.md): those of active profiles, and those named, with what they
depend on. A service without profiles is always active; naming one activates its profiles, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import Node, fields, items, text
from orchestrator.compose.validate import guess, near


def active(root: Node, profiles: Sequence[str], named: Sequence[str], report: Report) -> tuple[Node, set[str]]:
    """The tree with the active services alone, and the names of the others."""
    services = fields(fields(root).get("services"))
    for name in named:
        if name not in services:
            known = ", ".join(sorted(services)[:20])
            meant = guess(near(name, services))
            message = f"cannot find the service {name}: the files have none of that name{meant}"
            report.stop(None, message, f"they have {known}")
    declared = set[str]().union(*(_profiles(node) for node in services.values()))
    for profile in profiles:
        if profile not in declared and (meant := guess(near(profile, sorted(declared)))):
            report.warn(None, f"no service has the profile {profile}{meant}")
    wanted = set(profiles).union(*(_profiles(services[name]) for name in named))
    on = {name for name, node in services.items() if _active(node, wanted) or name in named}
    kept = {name: node for name, node in services.items() if name in on}
    return _with_services(root, kept), set(services) - on


def chosen(root: Node, named: Sequence[str]) -> Node:
    """The tree with the named services and what they need, directly or not; all, when none is named."""
    services = fields(fields(root).get("services"))
    if not named:
        return root
    reached: set[str] = set()
    todo = list(named)
    while todo:
        name = todo.pop()
        if name in services and name not in reached:
            reached.add(name)
            todo += fields(fields(services[name]).get("depends_on"))
    return _with_services(root, {name: _among(node, reached) for name, node in services.items() if name in reached})


def _among(service: Node, reached: set[str]) -> Node:
    """The service without dependencies, not required ones, on services that are not there."""
    entry = fields(service)
    if "depends_on" not in entry:
        return service
    needs = {name: node for name, node in fields(entry["depends_on"]).items() if name in reached}
    return service.with_value({**entry, "depends_on": entry["depends_on"].with_value(needs)})


def _with_services(root: Node, services: dict[str, Node]) -> Node:
    top = fields(root)
    return root.with_value({**top, "services": top["services"].with_value(services)}) if "services" in top else root


def _profiles(service: Node) -> set[str]:
    return {name for item in items(fields(service).get("profiles")) if (name := text(item))}


def _active(service: Node, wanted: set[str]) -> bool:
    own = _profiles(service)
    return not own or "*" in wanted or bool(own & wanted)
