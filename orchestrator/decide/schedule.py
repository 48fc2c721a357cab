"""Admission: may these tasks run on this host, beside everything else? Pure; each refusal explains itself.

Only what is asked for *newly* is judged: a stack that already holds a port, or already reserves too much, may still be
changed. The agent checks again when it attaches, since the host may have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from agent.kit.errors import UserError
from agent.kit.pools import TASKS
from agent.wire.messages import MESSAGE_LIMIT, HostStatus, Port, Task
from orchestrator.decide.expand import Desired

ANY = ("", "0.0.0.0", "::", "*")
_Measure = Callable[[Task], float]


@dataclass(frozen=True, slots=True)
class Refusal:
    """`code`: no-room, stack-too-large, bad-address, port-conflict, port-taken, port-in-use, memory-short,
    cpu-short."""

    code: str
    service: str
    message: str
    hint: str
    evidence: dict[str, object] = field(default_factory=dict)

    def error(self) -> UserError:
        return UserError(self.message, code=self.code, hint=self.hint, **self.evidence)


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
) -> tuple[Refusal, ...]:
    """`tasks`: the stack as it will be; `current`: as it is; `others`: all other stacks. Empty: all may run.

    Stopped tasks hold nothing. Without a `host` message only the stacks are compared with each other.
    """
    running, before = _running(tasks), _running(current)
    beside = {name: _running(theirs) for name, theirs in sorted(others.items())}
    refusals = [*_addresses(stack, running, before), *_ports(stack, running, before, beside, host)]
    if host is not None:
        refusals += _capacity(stack, running, before, beside, host)
    return tuple(refusals)


def _running(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.desired == "running"]


def _addresses(stack: str, tasks: Sequence[Task], before: Sequence[Task]) -> Iterator[Refusal]:
    held = {port for task in before for port in task.container.ports}
    for service, port in dict.fromkeys((task.service, port) for task in tasks for port in task.container.ports):
        if port in held or not port.host_ip:
            continue
        try:
            why = "" if ip_address(port.host_ip).version == 4 else "ports are published on IPv4 addresses only"
        except ValueError:
            why = "that is no address"
        if why:
            yield Refusal(
                "bad-address",
                service,
                f"cannot start {stack}/{service}: cannot publish {port.target} on {port.host_ip}: {why}",
                "leave the address out, or write one like 127.0.0.1",
                {"address": port.host_ip, "port": port.target},
            )


def _fixed(tasks: Sequence[Task]) -> Iterator[tuple[str, Port]]:
    """(service, port) of every fixed host port, once per service."""
    seen: set[tuple[str, Port]] = set()
    for task in tasks:
        for port in task.container.ports:
            if port.published is not None and (task.service, port) not in seen:
                seen.add((task.service, port))
                yield task.service, port


def _clash(a: Port, b: Port) -> bool:
    return a.published == b.published and a.protocol == b.protocol and _overlap(a.host_ip, b.host_ip)


def _overlap(a: str, b: str) -> bool:
    return a == b or a in ANY or b in ANY


def _ports(
    stack: str,
    tasks: Sequence[Task],
    before: Sequence[Task],
    others: Mapping[str, Sequence[Task]],
    host: HostStatus | None,
) -> Iterator[Refusal]:
    wanted, held = list(_fixed(tasks)), [port for _, port in _fixed(before)]
    for index, (service, port) in enumerate(wanted):
        name = f"{port.published}" + ("/udp" if port.protocol == "udp" else "")
        start = f"cannot start {stack}/{service}: port {name}"
        evidence: dict[str, object] = {"port": port.published, "protocol": port.protocol}
        for other, theirs in wanted[:index]:
            if other != service and _clash(port, theirs):
                yield Refusal(
                    "port-conflict",
                    service,
                    f"{start} is also published by service {other} of the same stack",
                    "publish one of them on another port",
                    evidence,
                )
        for other_stack, theirs_tasks in others.items():
            for other, theirs in _fixed(theirs_tasks):
                if _clash(port, theirs):
                    yield Refusal(
                        "port-taken",
                        service,
                        f"{start} is held by stack {other_stack} (service {other})",
                        f"publish another port, or gorae stop {other_stack}/{other}",
                        {**evidence, "stack": other_stack, "service": other},
                    )
        if host is None or any(_clash(port, mine) for mine in held):
            continue
        for listener in host.listeners:
            if (listener.port, listener.protocol) == (port.published, port.protocol) and _overlap(
                port.host_ip, listener.address
            ):
                holder = listener.holder or "another program"
                yield Refusal(
                    "port-in-use",
                    service,
                    f"{start} is in use by {holder}",
                    "publish another port, or end that program",
                    {**evidence, "holder": listener.holder, "address": listener.address},
                )
                break


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
