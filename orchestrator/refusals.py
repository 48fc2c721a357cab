"""The refusals that several modules give, in one wording. Each is about a name that a user typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from agent.kit.errors import Temporary, UserError
from orchestrator.compose.model import Stack
from orchestrator.decide.records import StackRecord


def no_stack(name: str) -> UserError:
    return UserError(f"cannot find stack {name}", code="stack-unknown", hint="gorae ls shows the stacks there are")


def no_revision(name: str, number: int | None) -> UserError:
    which = "an earlier revision" if number is None else f"revision {number}"
    return UserError(
        f"cannot find {which} of stack {name}",
        code="revision-unknown",
        hint=f"gorae history {name} shows those that are kept",
    )


def no_service(service: str, stack: str | None, known: Iterable[str]) -> UserError:
    where = f" in stack {stack}" if stack else ""
    names = sorted(known)
    near = get_close_matches(service, names, 1)
    guess = f"is it {near[0]}? " if near else ""
    return UserError(
        f"cannot find service {service}{where}",
        code="service-unknown",
        hint=f"{guess}there are {', '.join(names) or 'none'}",
    )


def name_taken(name: str) -> UserError:
    return UserError(f"cannot run {name}: there is one of that name", code="name-taken", hint="take another --name")


def nothing_runs(stack: str, services: Sequence[str], slot: int | None = None) -> UserError:
    names = [f"{stack}/{service}" + ("" if slot is None else f".{slot}") for service in services]
    return UserError(
        f"cannot look into {', '.join(names) or f'stack {stack}'}: no container runs",
        code="nothing-runs",
        hint=f"gorae status {stack} says why",
    )


def removing(name: str) -> Temporary:
    return Temporary(
        f"cannot change {name}: it is being removed",
        code="stack-removing",
        hint=f"wait until it is gone from gorae status {name}, then try again",
    )


def changed(name: str) -> Temporary:
    return Temporary(f"cannot change {name}: it was changed meanwhile", code="changed", hint="try again")


def held(name: str) -> UserError:
    return UserError(
        f"cannot change {name}: the restored database names it, but the agent does not run it",
        code="not-adopted",
        hint=f"gorae up starts it, gorae down -p {name} forgets it",
    )


def drained(what: str) -> UserError:
    return UserError(f"cannot run {what}: the host is drained", code="host-drained", hint="gorae drain --undo")


def agent_silent() -> Temporary:
    return Temporary(
        "cannot change anything yet: the agent has not said what runs",
        code="agent-away",
        hint="is gorae-agent running? gorae doctor",
    )


def must_have(record: StackRecord, services: Iterable[str]) -> None:
    """Raise no_service for the first that the stack does not have."""
    known = set(record.model.get("services", {})) | {task.service for task in record.tasks}
    for service in services:
        if service not in known:
            raise no_service(service, record.name, known)


def volumes(stack: Stack, found: Mapping[str, Mapping[str, str]]) -> None:
    """`found`: volumes of the host → the options they were made with."""
    for volume in stack.volumes.values():
        if volume.external and volume.name not in found:
            raise UserError(
                f"cannot start {stack.name}: the volume {volume.name} is external, and does not exist",
                code="volume-missing",
                hint=f"gorae volume create {volume.name}, or take `external` out",
            )
        if not volume.external and dict(found.get(volume.name, volume.driver_opts)) != volume.driver_opts:
            raise UserError(
                f"cannot start {stack.name}: the volume {volume.name} was made with other driver_opts",
                code="volume-differs",
                hint=f"write those of gorae volume inspect {volume.name}, or choose another name for a new volume",
            )
