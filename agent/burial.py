"""The end of a stack, when the last task under a tombstone is gone: volumes (if asked), logs, the acknowledgement.

The tombstone stays in the journal, and the acknowledgement on the bus, until the orchestrator has cleared its topic.
"""

from __future__ import annotations

import logging

from agent.board import Board
from agent.decide import accept
from agent.effects import Ports
from agent.kit.errors import GoraeError, Temporary
from agent.ports import Change
from agent.reporter import Reporter
from agent.wire.messages import Assignment

log = logging.getLogger("gorae.agent")


class Burial:
    def __init__(self, ports: Ports, board: Board, reporter: Reporter) -> None:
        self.done: set[str] = set()  # stacks of which nothing is left
        self._ports, self._board, self._reporter = ports, board, reporter
        self._closed = False

    async def work(self, emptied: set[str], *, strangers: bool) -> None:
        """`emptied`: stacks whose topic the orchestrator has cleared. Temporary: to be called again; what could not be
        ended holds up no other stack."""
        trouble: Temporary | None = None
        for stack, assignment in self._board.assignments.items():
            if not assignment.removed or self._board.of(stack):
                continue
            if stack not in self.done:
                try:
                    await self._remove_rest(stack, assignment)
                except Temporary as error:
                    trouble = error
                    continue
                self.done.add(stack)
                log.info("%s: nothing of it is left", stack)
                self._reporter.changed(stack)
            if stack in emptied:
                await self._ports.journal.record(Change(assignments={stack: None}))
                self._board.forget(stack)
                emptied.discard(stack)
                self.done.discard(stack)
                self._reporter.clear(stack)
                self._reporter.host_changed()
        await self._close_network(idle=not self._board.records and not strangers)
        if trouble is not None:
            raise trouble

    async def _remove_rest(self, stack: str, assignment: Assignment) -> None:
        names: list[str] = []
        try:
            if assignment.remove_volumes:
                found = await self._ports.volumes.list()
                names += accept.volumes(assignment)
                names += [volume.name for volume in found if volume.owner and volume.stack == stack]
            used = {
                mount.source
                for other in self._board.assignments
                for task in self._board.tasks(other)
                for mount in task.container.mounts
                if mount.kind == "volume"
            }
            await self._ports.volumes.remove([name for name in names if name not in used])
            await self._ports.logs.remove(stack)
        except GoraeError as error:
            raise Temporary(error.message, code=error.code, hint=error.hint, stack=stack) from error

    async def _close_network(self, *, idle: bool) -> None:
        """After the last task of all, once."""
        if idle and not self._closed:
            try:
                await self._ports.network.close()
            except GoraeError as error:
                log.warning("%s", error)
                return
        self._closed = idle
