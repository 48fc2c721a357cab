"""A Runtime in memory: containers are rows, programs are a table, ends come when the test says so."""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.kit.clock import Clock, RealClock
from agent.kit.errors import GoraeError
from agent.ports import Before, Bundle, Exit, Found, Process
from agent.wire.messages import Resources

# What a signal without a handler does to pid 1 of a container: nothing, unless the program asked for it. The fake's
# programs do ask for these.
_HEEDED = frozenset({signals.SIGTERM, signals.SIGINT, signals.SIGQUIT, signals.SIGHUP, signals.SIGKILL})


@dataclass(slots=True)
class _Container:
    bundle: Bundle
    process: Process
    exit: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    resources: Resources | None = None


class FakeRuntime:
    """Steer it by its public fields and `finish`; read what it did from `started`, `signals` and `removed`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or RealClock()
        self._containers: dict[tuple[str, int], _Container] = {}
        self._next_pid = 1000
        self.failures: dict[str, GoraeError] = {}  # task → raised by its next start
        self.codes: dict[str, int] = {}  # task → exits with this code as soon as it has started
        self.stubborn: set[str] = set()  # tasks that heed no signal but KILL
        self.started: list[tuple[str, int]] = []
        self.signals: list[tuple[str, int, int]] = []  # task, attempt, signal
        self.removed: list[tuple[str, int]] = []
        self.updates: list[tuple[str, int, Resources]] = []
        self.frozen: set[str] = set()  # tasks that heed no signal but KILL until they are thawed

    async def start(self, bundle: Bundle, before: Before | None = None) -> Process:
        failure = self.failures.pop(bundle.task, None)
        if failure is not None:
            raise failure
        self._next_pid += 2
        process = Process(self._next_pid, start_ticks=self._next_pid * 10, conmon=self._next_pid - 1)
        if before is not None:
            await before(process)
        self._containers[bundle.task, bundle.attempt] = _Container(bundle, process)
        self.started.append((bundle.task, bundle.attempt))
        if bundle.task in self.codes:
            self.finish(bundle.task, self.codes[bundle.task])
        return process

    async def wait(self, task: str, attempt: int, process: Process) -> Exit:
        container = self._containers.get((task, attempt))
        if container is None or container.process.start_ticks != process.start_ticks:
            return Exit(None, None, False, self._clock.wall())
        if process.conmon is None or container.process.conmon is None:
            self._end(container, None)
        return await asyncio.shield(container.exit)

    async def signal(self, task: str, attempt: int, process: Process, signal: int, *, everyone: bool = False) -> None:
        self.signals.append((task, attempt, signal))
        container = self._containers.get((task, attempt))
        if container is None or container.exit.done():
            return
        if everyone or signal == signals.SIGKILL or (signal in _HEEDED and task not in self.stubborn | self.frozen):
            self._end(container, 128 + signal)

    async def remove(self, task: str, attempt: int) -> None:
        container = self._containers.pop((task, attempt), None)
        if container is not None:
            self._end(container, 128 + signals.SIGKILL)
        self.removed.append((task, attempt))

    async def list(self) -> Sequence[Found]:
        return [
            Found(task, attempt, None if c.exit.done() else c.process, c.exit.result() if c.exit.done() else None)
            for (task, attempt), c in self._containers.items()
        ]

    async def update(
        self, task: str, attempt: int, resources: Resources | None = None, *, frozen: bool | None = None
    ) -> None:
        if resources is not None:
            self.updates.append((task, attempt, resources))
        if frozen is not None:
            (self.frozen.add if frozen else self.frozen.discard)(task)

    # For tests -------------------------------------------------------------------------------------------------------

    def finish(self, task: str, code: int | None = 0, *, oom: bool = False) -> None:
        """End every running attempt of `task`, as if by itself."""
        for (name, _), container in self._containers.items():
            if name == task:
                self._end(container, code, oom)

    def lose_conmon(self, task: str) -> None:
        """kill -9 of the monitor: the container's wait ends with code None."""
        for (name, _), container in self._containers.items():
            if name == task and not container.exit.done():
                container.process = Process(container.process.pid, container.process.start_ticks, None)
                self._end(container, None)

    def running(self, task: str) -> Bundle | None:
        """The bundle that runs for `task` now."""
        for (name, _), container in self._containers.items():
            if name == task and not container.exit.done():
                return container.bundle
        return None

    def _end(self, container: _Container, code: int | None, oom: bool = False) -> None:
        if not container.exit.done():
            number = code - 128 if code is not None and code > 128 else None
            container.exit.set_result(Exit(code, number, oom, self._clock.wall()))
