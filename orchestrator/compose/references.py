"""What names something else of the merged project names what is there: services, networks, volumes, configs, secrets.
Pure. Where nothing of that name is, the message says which one is likely meant."""

from __future__ import annotations

from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node, fields, flag, items, text
from orchestrator.compose.validate import guess, near


def check(name: str, entry: dict[str, Node], top: dict[str, Node], inactive: Collection[str], report: Report) -> None:
    """What the service `name` refers to. `inactive`: the services that no active profile has."""
    services = fields(top.get("services"))
    for other, needs in fields(entry.get("depends_on")).items():
        if other in inactive and not flag(fields(needs).get("required"), True):
            continue
        if other in inactive:
            message = f"cannot start {name} after {other}: {other} belongs to profiles that are not active"
            report.problem(needs.key_at, message, "activate one with --profile, or write `required: false`")
        elif other not in services and not report.keeps(other):
            meant = guess(near(other, [one for one in (*services, *sorted(inactive)) if one != name]))
            report.problem(needs.key_at, f"cannot start {name} after {other}: there is no service {other}{meant}")
    for section, what in (("networks", "network"), ("models", "model")):
        for other, node in fields(entry.get(section)).items():
            if other not in fields(top.get(section)) and not (section == "networks" and other == "default"):
                _undeclared(name, what, section, other, node, top, report)
    for section, what in (("configs", "config"), ("secrets", "secret")):
        nodes = [*items(entry.get(section)), *(items(fields(entry.get("build")).get(section)))]
        for node in nodes:
            source = fields(node).get("source")
            if source is None and not isinstance(node.value, dict):
                continue  # still in its short form, with a variable in it
            if source is None:
                report.problem(node, f"cannot use this {what} in {name}: `source` is missing", "source: NAME")
                continue
            other = text(source) or ""
            if source.value is not BAD and other not in fields(top.get(section)):
                _undeclared(name, what, section, other, node, top, report)


def _undeclared(
    name: str, what: str, section: str, other: str, node: Node, top: dict[str, Node], report: Report
) -> None:
    if report.keeps(other):
        return
    meant = guess(near(other, fields(top.get(section))))
    message = f"cannot use the {what} {_short(other)} in {name}: no {what} of that name is declared{meant}"
    report.problem(node.key_at, message, f"add {section}: {{{_short(other)}: …}}")


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:80] + "…"


def volumes(root: Node, report: Report) -> None:
    """Named volumes must be declared."""
    declared = fields(fields(root).get("volumes"))
    for name, service in fields(fields(root).get("services")).items():
        for mount in items(fields(service).get("volumes")):
            one = fields(mount)
            source = text(one.get("source"))
            if text(one.get("type")) == "volume" and source and source not in declared and not report.keeps(source):
                hint = f"write ./{source} if a folder is meant" if "/" in source else f"add volumes: {{{source}: }}"
                meant = guess(near(source, declared))
                message = f"cannot mount the volume {_short(source)} in {name}: no volume of that name is declared"
                report.problem(mount, message + meant, hint)


def cycles(services: dict[str, Node], report: Report) -> None:
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
