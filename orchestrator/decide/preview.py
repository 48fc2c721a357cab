"""What `gorae up` would do, and what that would mean for those who use the services. Pure, and therefore harmless: from
here nothing can be reached that runs (an import contract says so)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from agent.wire.messages import Port, Task
from orchestrator.compose.model import Stack
from orchestrator.decide import expand, rollout, runs
from orchestrator.decide.difference import difference
from orchestrator.decide.order import order
from orchestrator.decide.plan import Action, Intent, plan
from orchestrator.decide.records import StackRecord
from orchestrator.decide.refusal import Refusal
from orchestrator.decide.staying import as_they_are
from orchestrator.decide.update import Settings, settings

# What is done with the tasks of a service → what that is for the service; the first that occurs counts.
_CONSEQUENCES = {"replace": "recreate", "restart": "restart", "remove": "remove", "create": "create", "start": "start"}


def preview(
    record: StackRecord | None,
    stack: Stack,
    over: Mapping[str, str],
    missing: Collection[str],
    stay: Collection[str] = (),
    refused: Callable[[Sequence[Task]], Sequence[Refusal]] = lambda tasks: (),
) -> dict[str, Any]:
    """The document of docs/api.md. `stack`: with its images locked. `over`: as of plan. `missing`: images that are not
    here. `stay`: services that are to stay exactly as they are. `refused`: why these may not be the stack's tasks."""
    desired = expand.expand(stack, {name: lock.id for name, lock in stack.images.items()})
    if record is not None:
        desired |= {**as_they_are(record, stay), **runs.under_way(record, over)}
    templates = {name: want.template for name, want in desired.items()}
    current = rollout.basis(record.goal, record.tasks, templates) if record else ()
    numbers = itertools.count()
    planned = plan(
        desired,
        current,
        Intent("up", frozenset(stack.services) - frozenset(stay) if stay else None),
        order=order(stack.services),
        new_id=lambda: f"new{next(numbers)}",
        over=over,
    )
    how = settings(stack)
    names = list(dict.fromkeys(action.service for action in planned.actions))
    document = stack.model_dump(mode="json", exclude_defaults=True)
    services = [
        _service(name, [a for a in planned.actions if a.service == name], how.get(name, Settings())) for name in names
    ]
    changes = difference(record.model if record else {"name": stack.name, "services": {}}, document)
    return {
        "stack": stack.name,
        "revision": record.revision if record else None,
        "changes": planned.changes or bool(changes),
        "services": services,
        "pull": sorted(missing),
        "ports": _opened(current, planned.tasks),
        "difference": changes,
        "refusals": [
            {"code": one.code, "service": one.service, "message": one.message, "hint": one.hint}
            for one in refused(planned.tasks)
        ],
    }


def _service(name: str, actions: Sequence[Action], how: Settings) -> dict[str, Any]:
    kinds = {action.kind for action in actions}
    changed = [action for action in actions if action.kind != "keep"]
    consequence = next(
        (word for kind, word in _CONSEQUENCES.items() if kind in kinds), "live" if changed else "nothing"
    )
    replaced = sum(action.kind == "replace" for action in actions)
    stay = sum(action.kind != "remove" for action in actions)
    if consequence == "recreate" and (stay > 1 or how.order == "start-first"):
        consequence = "rolling"
    downtime = "none"
    if consequence == "rolling" and how.order == "stop-first":
        at_once = min(how.parallelism or replaced, replaced)
        downtime = f"{at_once} of {stay} at a time" if at_once < stay else "while the new ones start"
    elif consequence in ("recreate", "restart"):
        downtime = "while it starts"
    elif consequence == "remove" and all(action.kind == "remove" for action in actions):
        downtime = "for good"
    return {
        "name": name,
        "consequence": consequence,
        "containers": len(changed),
        "downtime": downtime,
        "order": how.order if replaced else None,
        "why": how.why if replaced else "",
        "causes": list(dict.fromkeys(action.cause for action in changed)),
    }


def _opened(before: Sequence[Task], after: Sequence[Task]) -> list[dict[str, Any]]:
    """Ports of the host that were not published by the stack before."""
    had = {port for task in before for port in task.container.ports}
    found: dict[tuple[str, Port], None] = {}
    for task in after:
        for port in task.container.ports:
            if port not in had:
                found[task.service, port] = None
    return [{"service": service, **port.model_dump(mode="json", exclude_none=True)} for service, port in found]
