"""Cross-checks of the merged project: what no single value shows. Pure. The rules are those of the reference
(compose-go's validation and consistency checks); a problem is told at the place that must change."""

from __future__ import annotations

import re
from collections.abc import Collection

from orchestrator.compose import references
from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node, below, fields, items, spelled, text
from orchestrator.compose.validate import guess, near
from orchestrator.compose.values import short

_PULL = re.compile(
    r"\A(always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+)\Z", re.ASCII
)
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_MOST = 2**63
_RANGES = {
    "cpu_count": (0, _MOST),
    "cpu_percent": (0, 100),
    "deploy.replicas": (0, _MOST),
    "oom_score_adj": (-1000, 1000),
    "scale": (0, _MOST),
}
_LIMITS = "deploy.resources.limits"
_RESERVATIONS = "deploy.resources.reservations"
_TWINS = (
    ("mem_limit", f"{_LIMITS}.memory"),
    ("cpus", f"{_LIMITS}.cpus"),
    ("pids_limit", f"{_LIMITS}.pids"),
    ("mem_reservation", f"{_RESERVATIONS}.memory"),
    ("scale", "deploy.replicas"),
)


def check(root: Node, inactive: Collection[str], report: Report) -> None:
    """`inactive`: the services that no active profile has."""
    top = fields(root)
    services = fields(top.get("services"))
    for name, service in services.items():
        if isinstance(service.value, dict):
            _service(name, service, top, inactive, report)
    for section, sources in (("configs", ("file", "environment", "content")), ("secrets", ("file", "environment"))):
        for name, node in fields(top.get(section)).items():
            _source(f"{section}.{name}", node, sources, report)
    for name, node in fields(top.get("volumes")).items():
        _external(f"volumes.{name}", node, report)
    references.cycles(services, report)


def _service(name: str, service: Node, top: dict[str, Node], inactive: Collection[str], report: Report) -> None:
    entry = fields(service)
    if not entry.keys() & {"image", "build", "provider"} or (text(entry.get("image")) == "" and "build" not in entry):
        message = f"cannot start the service {name}: it has no image"
        report.problem(service.key_at, message, "if its base is in another file, name that first: -f BASE -f THIS")
    references.check(name, entry, top, inactive, report)
    _mounts(name, entry, report)
    _build(name, entry, fields(top.get("services")), report)
    _twins(name, entry, report)
    if "network_mode" in entry and entry.get("networks") is not None:
        message = f"cannot use both network_mode and networks in {name}"
        report.problem(entry["network_mode"].key_at, message, "take one of them out")
    _words(name, entry, report)


def _mounts(name: str, entry: dict[str, Node], report: Report) -> None:
    seen = {(text(item) or "").partition(":")[0]: "a tmpfs" for item in items(entry.get("tmpfs"))}
    for mount in items(entry.get("volumes")):
        one = fields(mount)
        if not one:  # still in its short form, with a variable in it
            continue
        kind, source, target = text(one.get("type")), text(one.get("source")) or "", text(one.get("target")) or ""
        if kind == "bind" and not source and one.get("source", mount).value is not BAD:
            report.problem(mount, f"cannot mount at {target} in {name}: `source` is missing", "source: ./PATH")
        if target in seen:
            report.problem(mount, f"cannot mount at {target} in {name}: {seen[target]} is there already")
        seen[target] = "another mount"


def _build(name: str, entry: dict[str, Node], services: dict[str, Node], report: Report) -> None:
    build = fields(entry.get("build"))
    if text(build.get("dockerfile_inline")) and text(build.get("dockerfile")):
        report.problem(build["dockerfile"].key_at, f"cannot use both dockerfile and dockerfile_inline in {name}")
    for key, node in fields(build.get("additional_contexts")).items():
        target = (text(node) or "").removeprefix("service:")
        if (text(node) or "").startswith("service:") and "build" not in fields(services.get(target)):
            meant = guess(near(target, services))
            why = "it has no build" if target in services else f"there is no service {target}{meant}"
            report.problem(node, f"cannot use the context {key} in {name}: {why}")
    platform, platforms = text(entry.get("platform")), [text(item) for item in items(build.get("platforms"))]
    if platform and platforms and platform not in platforms:
        report.problem(entry["platform"], f"cannot build {name} for {platform}: build.platforms does not name it")


def _twins(name: str, entry: dict[str, Node], report: Report) -> None:
    for key, long in _TWINS:
        one, other = entry.get(key), below(entry, long)
        if one is None or one.value in (None, BAD) or (one.value in (0, "0") and key != "scale"):
            continue
        block = below(entry, long.rpartition(".")[0])
        if other is None and (block is None or key == "scale"):
            continue
        if other is None:
            message = f"cannot use {key} in {name}: {long.rpartition('.')[0]} is there, and does not say the same"
            report.problem(one, message, f"write {long}")
        elif other.value not in (BAD, one.value):
            message = f"cannot use both {key} and {long} in {name}: they differ"
            report.problem(one, message, "take one of them out")
    count = entry.get("scale") or below(entry, "deploy.replicas")
    if count is not None and isinstance(count.value, int) and count.value > 1 and "container_name" in entry:
        message = f"cannot run {count.value} containers of {name}: container_name names only one"
        report.problem(entry["container_name"].key_at, message, "take container_name out")


def _words(name: str, entry: dict[str, Node], report: Report) -> None:
    def word(node: Node | None, path: str, pattern: re.Pattern[str], otherwise: str) -> None:
        value = text(node)
        if node is not None and value is not None and not pattern.search(value) and not report.keeps(value):
            report.problem(node, f"cannot use {short(value)} as services.{name}.{path}: {otherwise}")

    word(
        entry.get("pull_policy"), "pull_policy", _PULL, "it is always, never, missing, build, daily, weekly, every_3d …"
    )
    word(
        entry.get("container_name"), "container_name", _CONTAINER, "it has two or more letters, digits, '_', '.' or '-'"
    )
    for path, (low, high) in _RANGES.items():
        node = below(entry, path)
        if node is not None and isinstance(node.value, int | float) and not low <= node.value <= high:
            known = f"it is {low} to {high}" if high < _MOST else f"it is {low} or more"
            report.problem(node, f"cannot use {spelled(node.value)} as services.{name}.{path}: {known}")
    test = items(fields(entry.get("healthcheck")).get("test"))
    if test and text(test[0]) not in ("NONE", "CMD", "CMD-SHELL") and not report.keeps(test[0].value):
        message = f"cannot use services.{name}.healthcheck.test: a list must begin with CMD, CMD-SHELL or NONE"
        report.problem(test[0], message, "put CMD first")
    for watch in items(fields(entry.get("develop")).get("watch")):
        if not spelled(fields(watch).get("target", watch).value) and text(fields(watch).get("action")) not in (
            "rebuild",
            "restart",
        ):
            report.problem(watch, f"cannot watch files for {name}: `target` is missing")


def _source(path: str, node: Node, sources: tuple[str, ...], report: Report) -> None:
    entry = fields(node)
    given = [key for key in sources if key in entry]
    if len(given) > 1:
        report.problem(entry[given[1]].key_at, f"cannot use both {given[0]} and {given[1]} in {path}")
    external = "external" in entry and entry["external"].value is True
    if not given and not external and isinstance(node.value, dict):
        report.problem(
            node.key_at, f"cannot use {path}: it says not where it comes from", f"add {' or '.join(sources)}"
        )


def _external(path: str, node: Node, report: Report) -> None:
    entry = fields(node)
    if entry.get("external", node).value is True and "external" in entry:
        for key in entry.keys() - {"external", "name"}:
            report.problem(entry[key].key_at, f"cannot set {path}.{key}: it is external, somebody else made it")
