"""Which address, ids and open host ports a new task gets: the record it begins with, to be journalled before use.

What runs without being known (the journal was lost) keeps what it has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from agent.board import Board
from agent.decide import addresses, mounts, networks
from agent.decide.diff import Observed, adopted, free_index
from agent.decide.joining import joins
from agent.decide.record import TaskRecord
from agent.effects import Ports
from agent.events import event
from agent.kit.errors import GoraeError, UserError
from agent.kit.pools import TASKS, Slice
from agent.ports import Allocation, Host
from agent.wire.messages import Event, PublishedPort, Task

log = logging.getLogger("gorae.agent")


class Allocator:
    def __init__(self, ports: Ports, board: Board, host: Host, slice_: Slice) -> None:
        self._ports, self._board, self._host, self._slice = ports, board, host, slice_
        self._next = 0
        self.reserved: set[int] = set()  # indexes of what is there without being known

    def reserve(self, tasks: Iterable[str]) -> None:
        self.reserved = {index for task in tasks if (index := self._host.trace(task)[1]) is not None}

    def records(
        self, stack: str, tasks: Sequence[Task], seen: Observed, cause: str | None
    ) -> tuple[list[TaskRecord], list[Event]]:
        """Records with an allocation each; what can be given none gets an event instead, and is asked for again."""
        taken = {record.allocation.index for record in self._board.records.values()} | self.reserved
        made: list[TaskRecord] = []
        failed: list[Event] = []
        for task in tasks:
            there = task.id in seen.parts or task.id in seen.attempts
            # What a task wrote that joined another has that one's ids.
            known = self._host.trace(task.id)[1] if there and not joins(task.container) else None
            try:
                index = self._index(task, taken) if known is None else known
                allocation = self._allocation(stack, task, index, made, tasks)
            except GoraeError as error:
                log.error("%s", error)
                place: dict[str, Any] = {"stack": stack, "service": task.service, "slot": task.slot, "task": task.id}
                failed.append(event(self._ports, "task.failed", error.message, reason=error.code, **place))
                continue
            taken.add(index)
            now = self._ports.clock.wall()
            record = TaskRecord(
                id=task.id,
                stack=stack,
                service=task.service,
                slot=task.slot,
                template=task.template,
                image_id=task.container.image_id,
                since=now,
                allocation=allocation,
                restart_request=task.restart_request,
                mounts=self._mounts(stack, task),
                cause=cause,
            )
            made.append(adopted(record, seen.attempts.get(task.id, ()), self._board.boot, now) or record)
        return made, failed

    def _mounts(self, stack: str, task: Task) -> dict[str, str]:
        """The mounts of the host on which the task's binds lie. One that its predecessor had, and that is away just
        now, counts: an update must not take an empty directory for a disk."""
        sources = mounts.of_host(task)
        if not sources:
            return {}
        table = self._ports.mounts.table()
        self._board.look_at(table.points)
        before: dict[str, str] = {}
        for record in self._board.of(stack):
            if (record.service, record.slot) == (task.service, task.slot):
                before |= {source: at for source, at in record.mounts.items() if at not in table.points}
        now = {source: table.holding(self._ports.mounts.real(source)) for source in sources}
        return {s: point for s, at in now.items() if (point := before.get(s) or at) is not None}

    def _index(self, task: Task, taken: set[int]) -> int:
        index = free_index(taken, self._next)
        if index is None:
            raise UserError(
                f"cannot start {task.service}.{task.slot}: all {TASKS} addresses of this instance are in use",
                code="no-address",
                hint="remove tasks",
            )
        self._next = (index + 1) % TASKS
        return index

    def _allocation(
        self, stack: str, task: Task, index: int, made: list[TaskRecord], together: Sequence[Task]
    ) -> Allocation:
        others = [*self._board.records.values(), *made]
        taken = {(port.protocol, port.published) for other in others for port in other.allocation.ports}
        ports: list[PublishedPort] = []
        for port in task.container.ports:
            busy = frozenset(number for protocol, number in taken if protocol == port.protocol)
            number = port.published or self._host.free_port(port, busy)
            taken.add((port.protocol, number))
            ports.append(
                PublishedPort(target=port.target, published=number, protocol=port.protocol, host_ip=port.host_ip)
            )
        own, on = self._slice.address(index), networks.memberships(stack, task.container)
        if not on:
            return Allocation(index, "", self._slice.uid_base(index), tuple(ports))
        holders: dict[str, TaskRecord] = {}
        chosen: frozenset[str] = frozenset()
        if any(membership.subnets for membership in on):
            holders = {at: one for one in others for at in (one.allocation.address, one.allocation.address_6) if at}
            assigned = [task for one in self._board.assignments.values() for task in one.tasks]
            chosen = addresses.chosen([*assigned, *together])
        address, address_6 = addresses.pick(on, index, own, self._slice.twin(own), holders.keys() | chosen)
        for at in (address, address_6):
            holder = holders.get(at)
            if holder and (holder.stack, holder.service, holder.slot) != (stack, task.service, task.slot):
                raise UserError(
                    f"cannot start {task.service}.{task.slot}: the address {at} that it is to have is that of "
                    f"{holder.stack}/{holder.service}.{holder.slot}",
                    code="address-taken",
                    hint="choose another address, or take that container down first",
                )
        return Allocation(index, address, self._slice.uid_base(index), tuple(ports), address_6)
