"""Admission: may these tasks run on this host, beside everything else? Pure; each refusal explains itself.

Only what is asked for *newly* is judged: a stack that already holds a port, or already reserves too much, may still be
changed. The agent checks again when it attaches, since the host may have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from agent.kit.pools import TASKS
from agent.wire.messages import HostStatus, Task, TaskStatus
from agent.wire.topics import MESSAGE_LIMIT
from orchestrator.decide import addresses, ports
from orchestrator.decide.expand import Desired
from orchestrator.decide.refusal import Refusal

_Measure = Callable[[Task], float]


def fits(
    stack: str, desired: Mapping[str, Desired], current: Sequence[Task], others: Mapping[str, Sequence[Task]]
) -> Refusal | None:
    """Whether so many containers can be numbered and told of at all; asked before any plan is made of them."""
    wanted, taken = sum(want.replicas for want in desired.values()), sum(map(len, others.values()))
    if not wanted:
        return None
    if wanted > len(current) and wanted + taken > TASKS:
        most = max(desired.values(), key=lambda want: want.replicas).service
        return Refusal(
            "no-room",
            most,
            f"cannot start {stack}/{most}: the stack wants {wanted} containers, and {max(TASKS - taken, 0)} of {TASKS} "
            "are free",
            "fewer replicas, or gorae down another stack",
            {"wanted": wanted, "taken": taken, "most": TASKS},
        )
    sizes = {
        name: want.replicas * len(want.container.model_dump_json() + want.policy.model_dump_json())
        for name, want in desired.items()
    }
    if sum(sizes.values()) > MESSAGE_LIMIT // 2:  # the other half is for the model and the rest of the assignment
        largest = max(sizes, key=lambda name: sizes[name])
        return Refusal(
            "stack-too-large",
            largest,
            f"cannot start {stack}/{largest}: what its {desired[largest].replicas} containers are given comes to "
            f"{_size(sizes[largest])}, and a stack may have {_size(MESSAGE_LIMIT // 2)}",
            "keep large texts in files, or lower the number of replicas",
            {"bytes": sum(sizes.values()), "most": MESSAGE_LIMIT // 2},
        )
    return None


def admit(
    stack: str,
    tasks: Sequence[Task],
    current: Sequence[Task],
    others: Mapping[str, Sequence[Task]],
    host: HostStatus | None,
    reported: Mapping[str, TaskStatus] | None = None,
) -> tuple[Refusal, ...]:
    """`tasks`: the stack as it will be; `current`: as it is; `others`: all other stacks; `reported`: what the agent
    says of all their tasks, by id. Empty: all may run.

    Stopped tasks hold nothing. Without a `host` message only the stacks are compared with each other.
    """
    running, before = _running(tasks), _running(current)
    beside = {name: _running(theirs) for name, theirs in sorted(others.items())}
    refusals = [
        *ports.addresses(stack, running, before),
        *ports.conflicts(stack, running, before, beside, host, reported or {}),
        *addresses.conflicts(stack, running, before, beside, host, reported or {}),
    ]
    if host is not None:
        refusals += _capacity(stack, running, before, beside, host)
    return tuple(refusals)


def _running(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.wanted]  # what is paused keeps its memory and its address


def _capacity(
    stack: str,
    tasks: Sequence[Task],
    before: Sequence[Task],
    others: Mapping[str, Sequence[Task]],
    host: HostStatus,
) -> Iterator[Refusal]:
    everyone = [task for theirs in others.values() for task in theirs]
    memory = _first_over(tasks, before, everyone, _memory, host.memory)
    if memory is not None:
        service, need, free = memory
        yield Refusal(
            "memory-short",
            service,
            f"cannot start {stack}/{service}: it reserves {_size(need)} of memory, "
            f"and {_size(free)} of {_size(host.memory)} are not reserved yet",
            "lower deploy.resources.reservations.memory, or stop another stack",
            {"reserve": need, "free": free},
        )
    cpu = _first_over(tasks, before, everyone, _cpus, host.cpus)
    if cpu is not None:
        service, need, free = cpu
        yield Refusal(
            "cpu-short",
            service,
            f"cannot start {stack}/{service}: it reserves {need:g} cpus, "
            f"and {free:g} of {host.cpus} are not reserved yet",
            "lower deploy.resources.reservations.cpus, or stop another stack",
            {"reserve": need, "free": free},
        )


def _memory(task: Task) -> float:
    return task.policy.resources.memory_reservation or 0


def _cpus(task: Task) -> float:
    return task.policy.resources.cpus_reservation or 0


def _first_over(
    tasks: Sequence[Task], before: Sequence[Task], others: Sequence[Task], of: _Measure, capacity: float
) -> tuple[str, float, float] | None:
    """(service, what it reserves, what is left for it) of the first service that does not fit any more."""
    if sum(map(of, tasks)) <= sum(map(of, before)):
        return None
    left = capacity - sum(map(of, others))
    needs: dict[str, float] = {}
    for task in tasks:
        needs[task.service] = needs.get(task.service, 0) + of(task)
    for service, need in needs.items():
        if need > left + 1e-9 and need > 0:
            return service, need, max(left, 0)
        left -= need
    return None


def _size(size: float) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}".replace(".0 ", " ")
    return f"{size:.0f} bytes"
