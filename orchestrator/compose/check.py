"""Cross-checks of the merged files: what no single value shows. Pure."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import Node, fields, items, text


def check(root: Node, report: Report) -> None:
    top = fields(root)
    services, volumes = fields(top.get("services")), fields(top.get("volumes"))
    if not services and not report.problems:
        report.problem(root, "cannot make a stack of this: it declares no service", "services: {NAME: {image: …}}")
    for name, service in services.items():
        if isinstance(service.value, dict) and not service.value.keys() & {"image", "build", "extends", "provider"}:
            message = f"cannot start the service {name}: it has no image"
            report.problem(service.key_at, message, "if its base is in another file, name that first: -f BASE -f THIS")
        _mounts(name, service, volumes, report)
        for other, entry in fields(fields(service).get("depends_on")).items():
            if other not in services:
                report.problem(entry.key_at, f"cannot start {name} after {other}: there is no service {other}")
    _cycles(services, report)


def _mounts(name: str, service: Node, volumes: dict[str, Node], report: Report) -> None:
    scratch = {text(fields(mount)["target"]) for mount in items(fields(service).get("tmpfs"))}
    for mount in items(fields(service).get("volumes")):
        entry = fields(mount)
        source, target = text(entry.get("source")) or "", text(entry["target"])
        if text(entry["type"]) == "volume" and source not in volumes:
            hint = f"write ./{source} if a folder is meant" if "/" in source else f"add volumes: {{{source}: }}"
            shown = source if len(source) <= 80 else source[:80] + "…"
            report.problem(
                mount, f"cannot mount the volume {shown} in {name}: no volume of that name is declared", hint
            )
        if target in scratch:
            report.problem(mount, f"cannot mount at {target} in {name}: a tmpfs is there already")


def _cycles(services: dict[str, Node], report: Report) -> None:
    graph = {name: list(fields(fields(service).get("depends_on"))) for name, service in services.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1][::-1]  # graphlib names each before what waits for it
        first = cycle.index(min(cycle))
        turned = [*cycle[first:-1], *cycle[:first], cycle[first]]
        entry = fields(fields(services[turned[0]])["depends_on"])[turned[1]]
        shown = turned if len(turned) <= 20 else [*turned[:19], "…", turned[-1]]
        message = f"cannot order the services: each waits for the next in {' → '.join(shown)}"
        report.problem(entry.key_at, message, "take one depends_on out")
