"""The merged canonical tree → the whole project: what files leave unsaid is said, and what nothing uses is gone.

Names (04-version-and-name.md; PROJECT_KEY unless given), the default network (06-networks.md), dependencies that other
keys bring (05-services.md: links, volumes_from, network_mode, ipc, pid, uts, cgroup), builds' defaults (build.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.compose.assemble import SECTIONS
from orchestrator.compose.nodes import Node, fields, flag, items, made, text

_NAMESPACES = ("network_mode", "ipc", "pid", "uts", "cgroup")
_RESOURCES = ("networks", "volumes", "configs", "secrets")


def normalize(root: Node, name: str, variables: Mapping[str, str]) -> Node:
    top = {key: node for key, node in fields(root).items() if key in SECTIONS}
    services = {key: _service(node, variables) for key, node in fields(top.get("services")).items()}
    if "services" in top:
        top["services"] = top["services"].with_value(services)
    networks = fields(top.get("networks"))
    if (
        any("default" in fields(fields(node).get("networks")) for node in services.values())
        and "default" not in networks
    ):
        at = top.get("services", root)
        top["networks"] = top.get("networks", at).with_value({**networks, "default": at.with_value(None)})
    for section in _RESOURCES:
        if section in top:
            named = {key: _named(node, key, name) for key, node in fields(top[section]).items()}
            top[section] = top[section].with_value(named)
    return root.with_value({"name": root.with_value(name), **top})


def _service(node: Node, variables: Mapping[str, str]) -> Node:
    if not isinstance(node.value, dict):
        return node
    entry = {
        key: child for key, child in node.value.items() if child.value is not None or key in ("command", "entrypoint")
    }
    if "networks" not in entry or not entry["networks"].value:
        entry.pop("networks", None)
        if not entry.keys() & {"network_mode", "provider"}:
            entry["networks"] = node.with_value({"default": node.with_value(None)})
    if text(entry.get("pull_policy")) == "if_not_present":
        entry["pull_policy"] = entry["pull_policy"].with_value("missing")
    if isinstance(entry.get("build", node).value, dict) and "build" in entry:
        entry["build"] = _build(entry["build"], variables)
    if "pre_start" in entry and "image" in entry:
        before = [
            item.with_value({"image": entry["image"], **fields(item)}) if "image" not in fields(item) else item
            for item in items(entry["pre_start"])
        ]
        entry["pre_start"] = entry["pre_start"].with_value(before)
    implied = _implied(entry)
    if implied:
        needs = entry.get("depends_on", node)
        entry["depends_on"] = needs.with_value(implied | fields(entry.get("depends_on")))
    return node.with_value(entry)


def _build(node: Node, variables: Mapping[str, str]) -> Node:
    build = dict(fields(node))
    if "dockerfile_inline" not in build:
        build.setdefault("dockerfile", node.with_value("Dockerfile"))
    if "args" in build:
        args = {
            key: child if child.value is not None else child.with_value(variables[key])
            for key, child in fields(build["args"]).items()
            if child.value is not None or key in variables
        }
        build["args"] = build["args"].with_value(args)
    return node.with_value(build)


def _implied(entry: Mapping[str, Node]) -> dict[str, Node]:
    """Services that must be there first because of another key than depends_on."""
    found: dict[str, Node] = {}

    def need(service: str, at: Node, restart: bool) -> None:
        again = {"restart": True} if restart else {}
        found.setdefault(service, made(at, condition="service_started", **again, required=True))

    for link in items(entry.get("links")):
        need((text(link) or "").partition(":")[0], link, restart=True)
    for key in _NAMESPACES:
        if (value := text(entry.get(key))) and value.startswith("service:"):
            need(value.removeprefix("service:"), entry[key], restart=True)
    for source in items(entry.get("volumes_from")):
        if not (text(source) or "").startswith("container:"):
            need((text(source) or "").partition(":")[0], source, restart=False)
    return found


def _named(node: Node, key: str, project: str) -> Node:
    entry = fields(node)
    own = key if flag(entry.get("external"), False) else f"{project}_{key}"
    return node.with_value({"name": node.with_value(own), **entry})


def used(root: Node) -> Node:
    """A project that was checked, without the networks, volumes, configs, secrets and models that no service uses."""
    top = dict(fields(root))
    if "services" in top:
        scaled = {name: _scaled(node) for name, node in fields(top["services"]).items()}
        top["services"] = top["services"].with_value(scaled)
    services = fields(top.get("services")).values()
    users: dict[str, Callable[[dict[str, Node]], set[str]]] = {
        "networks": lambda entry: set(fields(entry.get("networks"))),
        "volumes": lambda entry: _sources(entry, "volumes", "volume"),
        "configs": lambda entry: _sources(entry, "configs"),
        "secrets": lambda entry: _sources(entry, "secrets") | _sources(fields(entry.get("build")), "secrets"),
        "models": lambda entry: set(fields(entry.get("models"))),
    }
    for section, names in users.items():
        if section not in top:
            continue
        wanted = set[str]().union(*(names(fields(service)) for service in services))
        kept = {key: node for key, node in fields(top[section]).items() if key in wanted}
        top[section] = top[section].with_value(kept)
        if not kept:
            del top[section]
    return root.with_value(top)


def _scaled(service: Node) -> Node:
    """`scale` stands in `deploy` as well, where a service has that."""
    entry = fields(service)
    if "scale" not in entry or not isinstance(entry.get("deploy", service).value, dict) or "deploy" not in entry:
        return service
    deploy = entry["deploy"].with_value({**fields(entry["deploy"]), "replicas": entry["scale"]})
    return service.with_value({**entry, "deploy": deploy})


def _sources(entry: Mapping[str, Node], key: str, kind: str | None = None) -> set[str]:
    """What the entries of a list name, those of one `type` only."""
    entries = [fields(item) for item in items(entry.get(key))]
    return {source for one in entries if text(one.get("type")) == kind and (source := text(one.get("source")))}


def within(merged: Node, chosen: Node) -> Node:
    """Of the merged tree, the services and resources that `chosen` has."""
    top = dict(fields(merged))
    for section in SECTIONS:
        if section in top:
            names = fields(fields(chosen).get(section))
            kept = {key: node for key, node in fields(top[section]).items() if key in names}
            top[section] = top[section].with_value(kept)
    return merged.with_value(top)
