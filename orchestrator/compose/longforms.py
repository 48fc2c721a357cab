"""Short forms of single keys → the long one (Compose Specification, per key), as forms.py does for what keys share."""

from __future__ import annotations

from typing import Any

from orchestrator.compose import devices, mounts, ports
from orchestrator.compose.errors import Report
from orchestrator.compose.forms import ENTRY_COST, Form, each
from orchestrator.compose.nodes import BAD, Node, Value, fields, items, made, spelled, text
from orchestrator.compose.values import short


def _named(**values: Value) -> Form:
    """["a"] and {a: …} are the same; a bare name stands for the values. A list with variables in it stays one: a key
    is never interpolated."""

    def form(node: Node, path: str, report: Report) -> Value:
        if isinstance(node.value, dict) or any(report.keeps(item.value) for item in items(node)):
            return node.value
        report.spend(len(items(node)) * ENTRY_COST, node)
        return {text(item) or "": made(item, **values) if values else item.with_value(None) for item in items(node)}

    return form


def _depends_on(node: Node, path: str, report: Report) -> Value:
    named = _named(condition="service_started")(node, path, report)
    if not isinstance(named, dict):
        return named
    found = {}
    for name, entry in named.items():
        found[name] = entry
        if isinstance(entry.value, dict):
            required = entry.value.get("required") or entry.with_value(True)
            found[name] = entry.with_value({**entry.value, "required": required})
    return found


def _env_file(node: Node, path: str, report: Report) -> Value:
    report.spend(len(items(node)) * ENTRY_COST, node)
    found = []
    for item in [Node(node.value, node.at, node.at)] if isinstance(node.value, str) else items(node):
        entry = made(item, path=item.value) if isinstance(item.value, str) else item
        if isinstance(entry.value, dict):
            found.append(entry.with_value({"required": entry.with_value(True), **entry.value}))
    return found


def _healthcheck_test(node: Node, path: str, report: Report) -> Value:
    if isinstance(node.value, str):
        return [node.with_value("CMD-SHELL"), Node(node.value, node.at, node.at)]
    return node.value


def _ports(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        if isinstance(item.value, dict):
            return [_long_port(item, report)] if BAD not in [child.value for child in item.value.values()] else []
        found = ports.parse(spelled(item.value))
        report.spend((len(found) - 1) * ENTRY_COST, item)  # a range may stand for 65,535, a stack has room for half
        return [
            made(
                item,
                mode="ingress",
                host_ip=port.host_ip or None,
                target=port.target,
                published=port.published or None,
                protocol=port.protocol,
            )
            for port in found
        ]

    return each(node, path, report, read)


def _long_port(item: Node, report: Report) -> Node:
    entry = dict(fields(item))
    if "target" not in entry:
        raise ValueError("`target` is missing")
    published = entry.pop("published", None)
    if published is not None and spelled(published.value):
        entry["published"] = published.with_value(spelled(published.value))
    if (address := text(entry.get("host_ip"))) and not report.keeps(address):
        entry["host_ip"] = entry["host_ip"].with_value(ports.address(address))
    entry.setdefault("mode", item.with_value("ingress"))
    entry.setdefault("protocol", item.with_value("tcp"))
    return item.with_value(entry)


def _expose(node: Node, path: str, report: Report) -> Value:
    return [item.with_value(spelled(item.value)) for item in items(node)]


def _spelled_items(node: Node, path: str, report: Report) -> Value:
    return [item.with_value(spelled(item.value)) for item in items(node)]


def _volumes(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        if isinstance(item.value, dict):
            if "target" not in item.value:
                raise ValueError("`target` is missing")
            target = item.value["target"]
            return [item.with_value({**item.value, "target": target.with_value(mounts.target(text(target) or ""))})]
        long, unknown = mounts.volume(text(item) or "")
        for option in unknown:
            known = ", ".join(mounts.OPTIONS)
            report.warn(item, f"the mount option {short(option)} has no effect: Compose knows {known}")
        return [_tree(item, long)]

    return each(node, path, report, read)


def _tree(at: Node, value: Any) -> Node:
    """Plain values as nodes, all at one place."""
    if isinstance(value, dict):
        return Node({key: _tree(at, child) for key, child in value.items()}, at.at, at.key_at)
    return Node(value, at.at, at.key_at)


def _secrets(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        entry = made(item, source=item.value) if isinstance(item.value, str) else item
        source = text(fields(entry).get("source")) or ""
        return [
            entry.with_value(
                {
                    **fields(entry),
                    **({} if "target" in fields(entry) else {"target": item.with_value(f"/run/secrets/{source}")}),
                }
            )
        ]

    return each(node, path, report, read)


def _sources(node: Node, path: str, report: Report) -> Value:
    return [made(item, source=item.value) if isinstance(item.value, str) else item for item in items(node)]


def _build(node: Node, path: str, report: Report) -> Value:
    return {"context": Node(node.value, node.at, node.at)} if isinstance(node.value, str) else node.value


def _external(node: Node, path: str, report: Report) -> Value:
    """{external: {name: x}}, the old way of {external: true, name: x}."""
    if not isinstance(node.value, dict):
        return node.value
    entry = dict(node.value)
    external = entry.get("external")
    if external is not None and isinstance(external.value, dict):
        report.warn(external, f"{path}.external.name is obsolete: write external: true, and name beside it")
        inner = external.value.get("name")
        entry["external"] = external.with_value(True)
        if inner is not None:
            if "name" in entry and entry["name"].value != inner.value:
                raise ValueError("`name` and `external.name` differ; take the latter out")
            entry["name"] = inner
    return entry


def _watch(node: Node, path: str, report: Report) -> Value:
    """`x-initialSync` is what `initial_sync` was called before it was one."""
    entry = dict(fields(node))
    older = entry.pop("x-initialSync", None)
    return entry if older is None else {"initial_sync": older, **entry}


def _provider_options(node: Node, path: str, report: Report) -> Value:
    found = {}
    for key, child in fields(node).items():
        values = items(child) if isinstance(child.value, list) else [child]
        found[key] = child.with_value([item.with_value(spelled(item.value)) for item in values])
    return found


FORMS: dict[str, Form] = {
    "services.*.build": _build,
    "services.*.build.secrets": _sources,
    "services.*.configs": _sources,
    "services.*.depends_on": _depends_on,
    "services.*.deploy.resources.reservations.devices": devices.requests,
    "services.*.develop.watch.[]": _watch,
    "services.*.devices": devices.devices,
    "services.*.env_file": _env_file,
    "services.*.expose": _expose,
    "services.*.gpus": devices.gpus,
    "services.*.group_add": _spelled_items,
    "services.*.healthcheck.test": _healthcheck_test,
    "services.*.models": _named(),
    "services.*.networks": _named(),
    "services.*.ports": _ports,
    "services.*.provider.options": _provider_options,
    "services.*.secrets": _secrets,
    "services.*.volumes": _volumes,
    **dict.fromkeys(("volumes.*", "networks.*", "secrets.*", "configs.*"), _external),
}
