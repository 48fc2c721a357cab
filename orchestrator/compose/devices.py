"""The short forms of devices → the long ones: `devices` and `gpus` of a service, reservations of `deploy`."""

from __future__ import annotations

from orchestrator.compose.errors import Report
from orchestrator.compose.forms import each
from orchestrator.compose.nodes import Node, Value, fields, made, text


def devices(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        if isinstance(item.value, dict):
            if "target" not in item.value:
                raise ValueError("`target` is missing")
            return [item]
        parts = (text(item) or "").split(":")
        if len(parts) > 3 or not parts[0]:
            raise ValueError("a device is written as SOURCE[:TARGET[:PERMISSIONS]]")
        source, target, permissions = (*parts, *("", "")[len(parts) - 1 :])[:3]
        return [made(item, source=source, target=target or source, permissions=permissions or "rwm")]

    return each(node, path, report, read)


def gpus(node: Node, path: str, report: Report) -> Value:
    if isinstance(node.value, str):
        return [made(node, count=-1)]
    return requests(node, path, report)


def requests(node: Node, path: str, report: Report) -> Value:
    def read(item: Node) -> list[Node]:
        entry = fields(item)
        count = entry.get("count")
        if count is not None and "device_ids" in entry:
            raise ValueError("`count` and `device_ids` exclude each other")
        if count is None:
            return [item.with_value({**entry, "count": item.with_value(-1)} if "device_ids" not in entry else entry)]
        if isinstance(count.value, str):
            if count.value != "all" and not count.value.isdecimal():
                raise ValueError("`count` is a number, or all")
            count = count.with_value(-1 if count.value == "all" else int(count.value[:9]))
        return [item.with_value({**entry, "count": count})]

    return each(node, path, report, read)
