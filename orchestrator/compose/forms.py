"""Short forms → long forms, on the tree of one file, before files are merged: merging then knows one form of each key.

    environment, labels   mapping of name → text or nothing
    depends_on, networks  mapping                     env_file     list of {path, required, format}
    ports                 list of single ports        tmpfs        list of mounts, as `volumes` is
    command, entrypoint, healthcheck.test             list of words

An entry that cannot be read is reported and left out; a value becomes BAD.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.compose import mounts, ports, units
from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node, Value, fields, flag, items, made, number, spelled, text


def long_form(root: Node, report: Report) -> Node:
    """The file's tree with every service and volume in long form."""
    top = dict(fields(root))
    for section, change in (("services", _service), ("volumes", _volume)):
        if section in top:
            entries = fields(top[section])
            changed = {key: change(node, f"{section}.{key}", report) for key, node in entries.items()}
            top[section] = top[section].with_value(changed)
    return root.with_value(top)


_PORT_COST = 256  # of the budget: a range may stand for 65,535 ports, a stack has room for half as many

Form = Callable[[Node, str, Report], Value]


def _service(node: Node, path: str, report: Report) -> Node:
    return _apply(node, path, _SERVICE, report)


def _volume(node: Node, path: str, report: Report) -> Node:
    return _apply(node, path, {"labels": _entries}, report)


def _apply(node: Node, path: str, forms: dict[str, Form], report: Report) -> Node:
    if not isinstance(node.value, dict):
        return node
    changed = dict(node.value)
    for key, form in forms.items():
        child = changed.get(key)
        if child is not None and child.value is not None and child.value is not BAD:
            try:
                changed[key] = child.with_value(form(child, f"{path}.{key}", report))
            except ValueError as error:
                report.problem(child, f"cannot use {path}.{key}: {error}")
                changed[key] = child.with_value(BAD)
    return node.with_value(changed)


def _each(node: Node, path: str, report: Report, read: Callable[[Node], list[Node]]) -> list[Node]:
    """read() of every entry; what it refuses is reported and left out."""
    found = []
    for index, item in enumerate(items(node)):
        try:
            found += read(item)
        except ValueError as error:
            report.problem(item, f"cannot use {path}[{index}]: {error}")
    return found


def _entries(node: Node, path: str, report: Report) -> Value:
    """environment and labels: ["A=1", "B"] and {A: 1, B: } are the same."""
    found: dict[str, Node] = {}
    for key, child in fields(node).items():
        if not key or "=" in key or "\0" in key:
            report.problem(child.key_at, f"cannot use {key!r} as a name in {path}: it is empty or holds '='")
        elif child.value is not BAD:
            found[key] = child.with_value(None if child.value is None else spelled(child.value))
    for item in items(node):
        key, sign, value = (text(item) or "").partition("=")
        if not key:
            report.problem(item, f"cannot use this entry of {path}: the name before '=' is empty")
        else:
            found[key] = item.with_value(value if sign else None)
    return found


def _depends_on(node: Node, path: str, report: Report) -> Value:
    for key, child in fields(node).items():
        if isinstance(child.value, dict) and "condition" not in child.value:
            report.problem(
                child.key_at, f"cannot use {path}.{key}: `condition` is missing", "condition: service_started"
            )
    if isinstance(node.value, dict):
        return node.value
    return {text(item) or "": made(item, condition="service_started") for item in items(node)}


def _env_file(node: Node, path: str, report: Report) -> Value:
    found = []
    for item in [node] if isinstance(node.value, str) else items(node):
        if isinstance(item.value, str):
            item = made(item, path=item.value)
        if "path" not in fields(item):
            report.problem(item, f"cannot use this entry of {path}: `path` is missing")
        elif text(fields(item)["path"]):
            found.append(item)
    return found


def _words(node: Node, path: str, report: Report) -> Value:
    if isinstance(node.value, str):
        return [node.with_value(word) for word in units.split(node.value)]
    return node.value


def _healthcheck(node: Node, path: str, report: Report) -> Value:
    test = fields(node).get("test")
    if test is None or not isinstance(test.value, str):
        return node.value
    words: list[Node] = [test.with_value("CMD-SHELL"), test] if test.value else []
    return {**fields(node), "test": test.with_value(words)}


def _ports(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        found = _long_port(item) if isinstance(item.value, dict) else ports.parse(spelled(item.value))
        report.spend(len(found) * _PORT_COST, item)
        return [made(item, **port._asdict()) for port in found]

    return _each(node, path, report, read)


def _long_port(item: Node) -> list[ports.Port]:
    entry = fields(item)
    if "target" not in entry:
        raise ValueError("`target` is missing")
    if any(child.value is BAD for child in entry.values()):
        return []
    published = entry.get("published")
    return ports.expand(
        str(number(entry["target"])),
        spelled(published.value) if published else "",
        text(entry.get("protocol")) or "tcp",
        text(entry.get("host_ip")) or "",
    )


def _expose(node: Node, path: str, report: Report) -> Value:
    return _each(node, path, report, lambda item: [item.with_value(ports.exposed(spelled(item.value)))])


def _tmpfs(node: Node, path: str, report: Report) -> Value:
    whole = node.with_value([node]) if isinstance(node.value, str) else node
    return _each(whole, path, report, lambda item: [made(item, **mounts.tmpfs(text(item) or ""))])


def _volumes(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        if isinstance(item.value, dict):
            return _long_mount(item)
        return [made(item, **mounts.volume(text(item) or ""))]

    return _each(node, path, report, read)


def _long_mount(item: Node) -> list[Node]:
    entry = fields(item)
    for key in ("type", "target"):
        if key not in entry:
            raise ValueError(f"`{key}` is missing")
    if any(child.value is BAD for child in entry.values()):
        return []
    kind, source = text(entry["type"]) or "", text(entry.get("source"))
    for other in {"bind", "volume", "tmpfs"} - {kind}:
        if fields(entry.get(other)):
            raise ValueError(f"`{other}` says how a {other} mount is made; this is a {kind} mount")
    if kind == "tmpfs" and source:
        raise ValueError("a tmpfs mount has no source")
    if kind == "volume" and not source:
        raise ValueError("gorae does not support a volume without a name yet; give it a `source`")
    if kind == "bind" and not source:
        raise ValueError("`source` is missing")
    options = fields(entry.get(kind))
    found: dict[str, Value] = {
        "type": kind,
        "source": source if kind != "tmpfs" else None,
        "target": mounts.target(text(entry["target"]) or ""),
        "read_only": flag(entry.get("read_only"), False) or None,
        "create_host_path": None if flag(options.get("create_host_path"), True) else False,
        "nocopy": flag(options.get("nocopy"), False) or None,
    }
    if (size := options.get("size")) and isinstance(size.value, str | int | float):
        found["size"] = units.size(size.value)
    if (mode := options.get("mode")) and isinstance(mode.value, str | int):
        found["mode"] = units.octal(mode.value)
    return [made(item, **found)]


_SERVICE: dict[str, Form] = {
    "command": _words,
    "entrypoint": _words,
    "environment": _entries,
    "labels": _entries,
    "depends_on": _depends_on,
    "env_file": _env_file,
    "healthcheck": _healthcheck,
    "ports": _ports,
    "expose": _expose,
    "tmpfs": _tmpfs,
    "volumes": _volumes,
}
