"""The agent's picture in memory: what is assigned, and the records as the journal has them. No effects, no loop.

Workers read the world around their task here, and put their record here only after it is durable. Whoever waits for a
change (a dependent, the next task of a slot) is woken; nobody else is, or a hundred tasks would wake a hundred each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.decide import depends, joining, networks, parting, zone
from agent.decide.depends import Gate
from agent.decide.health import Check
from agent.decide.networks import Names
from agent.decide.record import Ending, Joined, TaskRecord, health_of, status
from agent.decide.view import World
from agent.decide.zone import Place
from agent.wire.messages import Assignment, Task, TaskStatus

_GATED = frozenset({"pending", "preparing", "backoff"})


def _concern(record: TaskRecord) -> tuple[object, ...]:
    """What others wait for."""
    return record.state, health_of(record), record.greeting, record.restart_request, record.boot


@dataclass(slots=True)
class _Stack:
    assignment: Assignment
    number: int  # of its assignment among all
    tasks: dict[str, Task] = field(default_factory=dict)  # assigned now; empty under a tombstone
    services: dict[str, list[str]] = field(default_factory=dict)  # service → assigned task ids
    dependents: dict[str, list[str]] = field(default_factory=dict)  # service → tasks that depend on it
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)  # service → where it is reached


class Board:
    """`virtual`, `twin`: the address of a number, and its like in IPv6 (kit/pools.py)."""

    def __init__(self, boot: str, virtual: Callable[[int], str], twin: Callable[[str], str]) -> None:
        self.boot = boot
        self._virtual, self._twin = virtual, twin
        self.records: dict[str, TaskRecord] = {}
        self.mounted: frozenset[str] = frozenset()  # mount points of the host
        self._stacks: dict[str, _Stack] = {}
        self._count = 0  # assignments taken
        self._statuses: dict[str, TaskStatus] = {}  # of every record
        self._ids: dict[str, set[str]] = {}  # stack → tasks that have a record
        self._slots: dict[tuple[str, str, int], set[str]] = {}
        self._networks: dict[str, dict[str, Names]] = {}  # network → stack → names there
        self._versions: dict[str, int] = {}  # of each network's names
        self._renamings = 0  # a network that comes again must not count from where views of the earlier one stood
        self._owners: dict[str, str] = {}  # task → whose sandbox it joins
        self._views: dict[tuple[str, tuple[str, ...]], tuple[int, Names]] = {}
        self._sights: dict[str, zone.Sight] = {}  # of each task; one on its way out keeps what it saw
        self.wake: Callable[[str], None] = lambda task: None
        self.renamed: Callable[[], None] = lambda: None

    # Assignments ------------------------------------------------------------------------------------------------

    @property
    def assignments(self) -> Mapping[str, Assignment]:
        return {name: stack.assignment for name, stack in self._stacks.items()}

    def assignment(self, stack: str) -> Assignment | None:
        found = self._stacks.get(stack)
        return found.assignment if found else None

    def assign(self, assignment: Assignment) -> None:
        """Its new tasks' records must have been put before: their addresses are part of everybody's names."""
        self._count += 1
        stack = self._stacks[assignment.stack] = _Stack(assignment, self._count)
        for task in () if assignment.removed else assignment.tasks:
            stack.tasks[task.id] = task
            stack.services.setdefault(task.service, []).append(task.id)
            waits_for_first = {task.service} if task.container.pre_start else set()
            for service in {need.service for need in task.policy.depends_on} | waits_for_first:
                stack.dependents.setdefault(service, []).append(task.id)
        stack.addresses = {
            service: (virtual := self._virtual(assignment.virtual[service]), self._twin(virtual))
            if service in assignment.virtual
            else tuple(address for i in ids if i in self.records for address in self._place(stack.tasks[i]).addresses)
            for service, ids in stack.services.items()
        }
        self._rejoin()
        self._rename(assignment.stack, networks.names(assignment.stack, stack.tasks.values(), stack.addresses))

    def _rejoin(self) -> None:
        before = self._owners
        self._owners = joining.owners({name: self.tasks(name) for name in self._stacks}, before)
        for task in before.keys() | self._owners.keys():
            if before.get(task) != self._owners.get(task):
                self.wake(task)

    def forget(self, stack: str) -> None:
        self._stacks.pop(stack, None)
        self._rejoin()
        self._rename(stack, {})
        self._views = {key: view for key, view in self._views.items() if key[0] != stack}

    def _rename(self, stack: str, now: Mapping[str, Names]) -> None:
        """Its names on each network. Neighbours of other stacks are woken; its own tasks are told of the assignment."""
        neighbours: set[str] = set()
        for network in [*(known for known, tables in self._networks.items() if stack in tables), *now]:
            tables = self._networks.setdefault(network, {})
            if tables.get(stack) == now.get(network):
                continue
            self._renamings += 1
            self._versions[network] = self._renamings
            if network in now:
                tables[stack] = now[network]
            else:
                del tables[stack]
            neighbours |= tables.keys() - {stack}
            if not tables:
                del self._networks[network], self._versions[network]
        for task in [task for other in neighbours for task in self._stacks[other].tasks]:
            self.wake(task)
        self.renamed()

    def names(self, record: TaskRecord) -> tuple[int, Names]:
        """What a task finds on its networks, and a number that changes with it. One that joins another finds what that
        one does."""
        owner = self.records.get(self._owners.get(record.id, ""))
        record = owner or record
        task = self.task(record)
        if task is not None and task.container.network_mode == "host":
            return self._beside_host(record.stack)
        on = networks.memberships(record.stack, task.container) if task else ()
        found = tuple(membership.network for membership in on if membership.network in self._networks)
        version = sum(self._versions[network] for network in found)
        view = self._views.get((record.stack, found))
        if view is None or view[0] != version:
            view = version, networks.seen_from(record.stack, (self._networks[network] for network in found))
            self._views[record.stack, found] = view
        return view

    def _beside_host(self, stack: str) -> tuple[int, Names]:
        """What a task in the host's network finds: the services of its stack, whatever their networks."""
        known = self._stacks[stack]
        tables = networks.names(stack, known.tasks.values(), known.addresses)
        return known.number, networks.seen_from(stack, ({stack: table} for table in tables.values()))

    def joined(self, task: str) -> Joined | None:
        """The sandbox of another that a task is to be in; None: it has its own, or the other's is not there yet."""
        owner = self.records.get(self._owners.get(task, ""))
        if owner is None or not owner.space.startswith(f"{self.boot} "):
            return None
        allocation = owner.allocation
        return Joined(owner.id, owner.space, allocation.address, allocation.uid_base, allocation.address_6)

    def _network(self, task: Task) -> Gate:
        if not joining.joins(task.container) or self.joined(task.id):
            return depends.OPEN
        kind, _, name = task.container.network_mode.partition(":")
        owner = self.records.get(self._owners.get(task.id, ""))
        why = f"it is {owner.state}" if owner else "there is none that has a network"
        return Gate(False, f"waiting for the network of {kind} {name} ({why})")

    def zone(self) -> str:
        """What the resolver is to know of every task: decide/zone.py."""
        places = [
            self._place(task)
            for stack in self._stacks.values()
            for task in stack.tasks.values()
            if task.id in self.records
        ]
        reached = {
            (name, service): addresses
            for name, stack in self._stacks.items()
            for service, addresses in stack.addresses.items()
        }
        leaving = {task: sight for task, sight in self._sights.items() if task in self.records}
        self._sights = {**leaving, **zone.sights(places, reached)}
        return zone.text(self._sights)

    def _place(self, task: Task) -> Place:
        record = self.records[task.id]
        return Place(record.stack, task, record.allocation.address, record.allocation.address_6)

    def task(self, record: TaskRecord) -> Task | None:
        stack = self._stacks.get(record.stack)
        return stack.tasks.get(record.id) if stack else None

    def tasks(self, stack: str) -> Sequence[Task]:
        """Assigned now: none under a tombstone."""
        found = self._stacks.get(stack)
        return tuple(found.tasks.values()) if found else ()

    def cause(self, stack: str) -> str | None:
        found = self._stacks.get(stack)
        return found.assignment.cause if found else None

    # Records ----------------------------------------------------------------------------------------------------

    def put(self, record: TaskRecord) -> bool:
        """Whether the world sees a difference."""
        before = self.records.get(record.id)
        shown, told = status(record), self._statuses.get(record.id)
        self._statuses[record.id] = shown
        self.records[record.id] = record
        self._ids.setdefault(record.stack, set()).add(record.id)
        self._slots.setdefault((record.stack, record.service, record.slot), set()).add(record.id)
        if before is None or _concern(before) != _concern(record):
            self._wake_around(record)
        if before is None or before.space != record.space:
            for task, owner in self._owners.items():
                if owner == record.id:
                    self.wake(task)
        return shown != told

    def drop(self, task: str) -> None:
        record = self.records.pop(task, None)
        if record is None:
            return
        del self._statuses[task]
        ids = self._ids[record.stack]
        ids.discard(task)
        if not ids:
            del self._ids[record.stack]
        slot = self._slots[record.stack, record.service, record.slot]
        slot.discard(task)
        if not slot:
            del self._slots[record.stack, record.service, record.slot]
        self._wake_around(record)
        for other in slot:
            self.wake(other)

    def of(self, stack: str) -> Sequence[TaskRecord]:
        """Records of a stack, by service and slot."""
        found = [self.records[i] for i in self._ids.get(stack, ())]
        return sorted(found, key=lambda r: (r.service, r.slot, r.id))

    def look_at(self, mounted: frozenset[str]) -> None:
        """Wakes whom a change of the host's mounts concerns."""
        changed, self.mounted = self.mounted ^ mounted, mounted
        for record in self.records.values():
            if not changed.isdisjoint(record.mounts.values()):
                self.wake(record.id)

    def _wake_around(self, record: TaskRecord) -> None:
        stack = self._stacks.get(record.stack)
        for task in stack.dependents.get(record.service, ()) if stack else ():
            other = self.records.get(task)
            if other is not None and (other.upstream or (other.state in _GATED and other.met != self.boot)):
                self.wake(task)
        if record.ending.needs and record.state not in ("pending", "preparing", "starting"):
            for task in self._ids.get(record.stack, ()):
                other = self.records[task]
                if other.state == "running" and other.service in record.ending.needs and self._going(other):
                    self.wake(task)

    def _going(self, record: TaskRecord) -> bool:
        task = self.task(record)
        return task is None or not task.wanted

    # Views ------------------------------------------------------------------------------------------------------

    def world(self, record: TaskRecord, check: Check | str | None, ending: Ending | None, roll: float) -> World:
        stack = self._stacks.get(record.stack)
        task = stack.tasks.get(record.id) if stack else None
        gate, upstream, renewed = depends.OPEN, {}, ""
        if stack and task and record.met != self.boot and record.state in _GATED:
            if task.policy.depends_on:
                gate = depends.gate(task.policy.depends_on, self._current(stack), self.boot)
            if gate.open and task.container.pre_start:
                gate = depends.first_of_all(task, self._current(stack)[task.service])
        if stack and task and any(need.restart for need in task.policy.depends_on):
            needs, assigned = task.policy.depends_on, self._assigned(stack)
            upstream = depends.upstream(needs, assigned)
            if record.state == "running":
                renewed = depends.renewed(needs, record.upstream, assigned, self._current(stack), self.boot)
        holders: tuple[str, ...] = ()
        if record.state == "running" and (task is None or not task.wanted):
            everyone = [self.records[i] for i in self._ids.get(record.stack, ())]
            holders = depends.holders(record, [r for r in everyone if self._going(r)])
        mates = stack.services.get(record.service, ()) if stack and record.state == "backoff" else ()
        # Not itself, which may still be noted as running: what comes of it in one go is noted in one go.
        company = any(self.records[i].state == "running" for i in mates if i in self.records and i != record.id)
        gone = ""
        if task is None:
            others = [stack.tasks[i] for i in stack.services.get(record.service, ())] if stack else []
            gone = parting.why(stack.assignment if stack else None, record.service, record.slot, others)
        return World(
            boot=self.boot,
            gate=gate,
            slot_free=all(self._beside(record, other) for other in self._slot_mates(record)),
            holders=holders,
            company=company,
            upstream=upstream,
            renewed=renewed,
            check=check if isinstance(check, Check) or check is None else "unknown",
            ending=ending,
            unmounted=tuple(sorted(set(record.mounts.values()) - self.mounted)),
            virtual=self._virtual_of(stack, task.service) if stack and task else "",
            joined=self.joined(record.id),
            network=self._network(task) if task else depends.OPEN,
            gone=gone,
            peers=self.names(record)[0],
            roll=roll,
        )

    def _slot_mates(self, record: TaskRecord) -> set[str]:
        return self._slots.get((record.stack, record.service, record.slot), set()) - {record.id}

    def _beside(self, record: TaskRecord, other: str) -> bool:
        """Whether the two may live side by side: the newer of them is assigned, and says so."""
        tasks = self._stacks[record.stack].tasks if record.stack in self._stacks else {}
        return any(
            newer in tasks and tasks[newer].beside == older for newer, older in ((record.id, other), (other, record.id))
        )

    def _current(self, stack: _Stack) -> dict[str, list[TaskRecord]]:
        return {name: [self.records[i] for i in ids if i in self.records] for name, ids in stack.services.items()}

    def _assigned(self, stack: _Stack) -> dict[str, list[Task]]:
        return {name: [stack.tasks[i] for i in ids] for name, ids in stack.services.items()}

    def _virtual_of(self, stack: _Stack, service: str) -> str:
        number = stack.assignment.virtual.get(service)
        return "" if number is None else self._virtual(number)

    def statuses(self, stack: str) -> tuple[TaskStatus, ...]:
        return tuple(self._statuses[record.id] for record in self.of(stack))
