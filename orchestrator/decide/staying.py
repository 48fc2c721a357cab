"""Services of a stack that a change of others leaves exactly as they are: those that `up SERVICE` does not mean, and
those of profiles that are not active now. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.compose.model import LockedImage, Stack
from orchestrator.decide.expand import Desired, as_it_is
from orchestrator.decide.records import StackRecord


@dataclass(frozen=True, slots=True)
class Others:
    """What an `up` says of the services that its model does not have: those named in `keep`, or, with `partial`, all of
    them stay; the rest goes."""

    partial: bool = False
    keep: frozenset[str] = frozenset()


def staying(record: StackRecord | None, model: Stack, others: Others) -> frozenset[str]:
    """The names of those that stay."""
    if record is None or record.removed:
        return frozenset()
    rest = frozenset(record.model.get("services", {})) - frozenset(model.services)
    return rest if others.partial else rest & others.keep


def beside(record: StackRecord, model: Stack, stay: Collection[str]) -> Stack:
    """The model, and the services that stay as they are stored, with what the stack has of volumes and networks."""
    stored = Stack.model_validate(record.model)
    return model.model_copy(
        update={
            "services": {**{name: one for name, one in stored.services.items() if name in stay}, **model.services},
            "volumes": {**stored.volumes, **model.volumes},
            "networks": {**stored.networks, **model.networks},
        }
    )


def locks(record: StackRecord, model: Stack) -> dict[str, LockedImage]:
    """Of the stored images, those that the model uses."""
    used = {service.image for service in model.services.values()}
    return {name: lock for name, lock in Stack.model_validate(record.model).images.items() if name in used}


def as_they_are(record: StackRecord, stay: Collection[str]) -> Mapping[str, Desired]:
    return {name: want for name, want in as_it_is(record.goal).items() if name in stay}
