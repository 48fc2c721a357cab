"""Commands: the service's own, and those that are run before and after it (pre_start, post_start, pre_stop).

All run in the service's container. docker compose runs pre_start in a container of its own, which may be of another
image; that is refused here.
"""

from __future__ import annotations

from agent.wire.messages import Hook
from orchestrator.compose.context import Context, absolute
from orchestrator.compose.nodes import BAD, Node, fields, flag, items, text
from orchestrator.compose.values import short


def hooks(entry: dict[str, Node], path: str, context: Context) -> dict[str, tuple[Hook, ...]]:
    return {
        kind: tuple(
            hook
            for index, node in enumerate(items(entry.get(kind)))
            if (hook := _hook(node, f"{path}.{kind}[{index}]", text(entry.get("image")), context))
        )
        for kind in ("pre_start", "post_start", "pre_stop")
    }


def _hook(node: Node, path: str, image: str | None, context: Context) -> Hook | None:
    if node.value is BAD:
        return None
    entry = fields(node)
    command = words(entry.get("command"))
    if not command or not command[0]:
        context.report.problem(node, f"cannot use {path}: it has no command")
        return None
    if "image" in entry and text(entry["image"]) != image:
        message = f"cannot run {path} in another image: gorae runs it in the service's own container"
        context.report.problem(entry["image"], message, "make it a service of its own, with depends_on")
        return None
    return Hook(
        command=command,
        user=text(entry.get("user")) or None,
        environment=environment(entry, path, context),
        working_dir=context.value(entry.get("working_dir"), f"{path}.working_dir", absolute),
        privileged=flag(entry.get("privileged"), False),
        per_replica="image" not in entry or flag(entry.get("per_replica"), False),
    )


def environment(entry: dict[str, Node], path: str, context: Context) -> dict[str, str]:
    """A variable without a value has been looked up; it is absent where it is not set."""
    found = {}
    for name, node in fields(entry.get("environment")).items():
        if not name or "=" in name:
            message = f"cannot use {short(name)} as the name of a variable in {path}: it is empty or holds '='"
            context.report.problem(node.key_at, message)
        elif (value := text(node)) is not None:
            found[name] = value
    return found


def words(node: Node | None) -> tuple[str, ...] | None:
    return tuple(text(word) or "" for word in node.value) if node and isinstance(node.value, list) else None
