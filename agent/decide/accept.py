"""Which assignments the agent obeys, by identity and order (store_id, wire_version, generation), and which are no good.

Pure. A refused assignment changes nothing; the reason is a sentence for the event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import ValidationError

from agent.kit.errors import UserError
from agent.wire.messages import HOSTNAME, WIRE_VERSION, Assignment, Task

# These become path components, cgroup and file names. The orchestrator keeps to them; the agent does not rely on it.
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_STACK = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")

Verdict = Literal["accept", "stale", "unknown-store"]


def parse(payload: bytes, stack: str) -> Assignment:
    """The assignment of `stack` in a message; UserError wire-version or bad-assignment."""
    try:
        # Not by way of json.loads: it takes what cannot be written to the journal (a lone surrogate), or overflows.
        assignment = Assignment.model_validate_json(payload)
    except ValidationError as error:
        _check_version(stack, _version(payload))
        first = error.errors()[0]
        raise _bad(stack, ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from error
    _check_version(stack, assignment.wire_version)
    if problem := _problem(assignment, stack):
        raise _bad(stack, problem)
    return assignment


def _version(payload: bytes) -> object:
    """Of a message that this version cannot read, if it is one at all."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return WIRE_VERSION
    return document.get("wire_version", WIRE_VERSION) if isinstance(document, dict) else WIRE_VERSION


def _check_version(stack: str, version: object) -> None:
    if version != WIRE_VERSION:
        raise UserError(
            f"cannot obey the assignment of {stack}: it speaks wire version {version}, this agent {WIRE_VERSION}",
            code="wire-version",
            hint="upgrade agent and orchestrator together",
        )


def _bad(stack: str, problem: str) -> UserError:
    return UserError(f"cannot obey the assignment of {stack}: {problem}", code="bad-assignment")


def _problem(assignment: Assignment, stack: str) -> str:
    if assignment.stack != stack or not _STACK.fullmatch(stack):
        return f"it names the stack {assignment.stack!r}"
    if not assignment.store_id:
        return "it names no store"
    ids: set[str] = set()
    slots: dict[tuple[str, int], list[Task]] = {}
    for task in assignment.tasks:
        if not _ID.fullmatch(task.id) or task.id in ids:
            return f"task id {task.id!r} is malformed or used twice"
        if not _SERVICE.fullmatch(task.service) or task.slot < 1:
            return f"task {task.id}: {task.service!r} slot {task.slot} is no place in a service"
        if task.container.hostname and not HOSTNAME.fullmatch(task.container.hostname):
            return f"task {task.id}: {task.container.hostname!r} is no hostname"
        if task.lineage and not _ID.fullmatch(task.lineage):
            return f"task {task.id}: {task.lineage!r} is no task id"
        if task.beside and not _ID.fullmatch(task.beside):
            return f"task {task.id}: {task.beside!r} is no task id"
        ids.add(task.id)
        slots.setdefault((task.service, task.slot), []).append(task)
    for (service, slot), mates in slots.items():
        if len(mates) > 1 and not _side_by_side(mates):
            return f"{len(mates)} tasks claim slot {slot} of {service}"
    return ""


def _side_by_side(mates: Sequence[Task]) -> bool:
    """An old task and the one that comes after it."""
    return len(mates) == 2 and (mates[0].beside == mates[1].id) != (mates[1].beside == mates[0].id)


def judge(offered: Assignment, bound: str | None, held: Assignment | None) -> Verdict:
    """`bound` None: never bound, the first store wins. Generations are compared within one store only."""
    if bound is not None and offered.store_id != bound:
        return "unknown-store"
    if held is not None and held.store_id == offered.store_id and offered.generation <= held.generation:
        return "stale"
    return "accept"


def held_after(offered: Assignment, before: Assignment | None) -> Assignment:
    """What the journal keeps. A tombstone keeps the tasks and the model it buries: how they are to be stopped, in which
    order, and which volumes go, must be known after a crash in the middle."""
    if not offered.removed or before is None:
        return offered
    return offered.model_copy(update={"tasks": offered.tasks or before.tasks, "model": offered.model or before.model})


def volumes(assignment: Assignment) -> tuple[str, ...]:
    """Names of the named volumes that belong to the stack. External ones are not its own; without a model only names
    with the stack's prefix are sure to be."""
    declared = assignment.model.get("volumes")
    if isinstance(declared, dict):
        entries = [entry for entry in declared.values() if isinstance(entry, dict) and not entry.get("external")]
        return tuple(sorted({str(entry["name"]) for entry in entries if entry.get("name")}))
    used = {m.source for t in assignment.tasks for m in t.container.mounts if m.kind == "volume" and m.source}
    return tuple(sorted(name for name in used if name.startswith(f"{assignment.stack}_")))
