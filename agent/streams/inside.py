"""What the agent's socket says of running containers (agent/wire/streams.py): what they use, their processes,
and what they were started with."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from agent.decide import inspect, stats
from agent.decide.record import TaskRecord
from agent.decide.stats import Sample
from agent.kit import threads
from agent.kit.layout import Layout
from agent.network.wire import link_name
from agent.runtime import counters, processes
from agent.runtime.cgroups import Cgroups
from agent.streams.requests import Operation, Send, number, text, texts

BATCH = 8  # containers that are looked at before the loop may do something else
LEAST, MOST = 0.1, 3600.0  # seconds between two looks


class Agent(Protocol):
    def records(self, stack: str | None = None, services: Collection[str] = ()) -> Sequence[TaskRecord]: ...

    def live(self, stack: str | None = None, services: Collection[str] = ()) -> Sequence[TaskRecord]:
        """Those that have a process."""


class InsideRequests:
    def __init__(self, layout: Layout, instance: str, agent: Agent) -> None:
        self._layout, self._instance, self._agent, self._cgroups = layout, instance, agent, Cgroups(instance)
        self._memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.operations: dict[str, Operation] = {
            "stats": self._stats,
            "processes": self._processes,
            "containers": self._containers,
        }

    async def _stats(self, request: dict[str, Any], send: Send) -> Any:
        every = min(max(number(request, "every") or 1.0, LEAST), MOST)
        before: dict[str, Sample] = {}
        with counters.reading(self._cgroups) as reading:
            while True:
                records = self._chosen(request)
                now = await self._look(reading, records)
                await send("line", self._document(records, now, before))
                if not request.get("follow", False):
                    return {}
                before = now
                await asyncio.sleep(every)

    async def _look(self, reading: counters.Reading, records: Sequence[TaskRecord]) -> dict[str, Sample]:
        indexes = {record.id: record.allocation.index for record in self._agent.live()}
        links, found = counters.links(), {}
        for place, record in enumerate(records):
            if place % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            index = indexes.get(record.joined.task) if record.joined else record.allocation.index
            link = None if index is None else links.get(link_name(self._instance, index))
            found[_name(record)] = reading.sample(_name(record), link)
        reading.keep(found)
        return found

    def _document(
        self, records: Sequence[TaskRecord], now: dict[str, Sample], before: dict[str, Sample]
    ) -> dict[str, Any]:
        rows = [
            {
                **_identity(record),
                **stats.document(now[_name(record)], before.get(_name(record))),
                "cpus_limit": record.resources.cpus,
                "memory_limit": record.resources.memory,
                "pids_limit": record.resources.pids,
            }
            for record in records
        ]
        return {"at": round(time.time(), 3), "cpus": os.cpu_count(), "memory": self._memory, "tasks": rows}

    async def _processes(self, request: dict[str, Any], send: Send) -> Any:
        found = []
        for record in self._chosen(request):
            assert record.process is not None
            base = record.joined.uid_base if record.joined else record.allocation.uid_base
            about = (self._cgroups, _name(record), record.process.pid, base)
            rows = await threads.run("look at processes", processes.of, *about)
            found.append({**_identity(record), "processes": rows})
        return found

    async def _containers(self, request: dict[str, Any], send: Send) -> Any:
        records = _sorted(self._agent.records(*_of(request)))
        return [inspect.document(record, self._config(record)) for record in records]

    def _config(self, record: TaskRecord) -> dict[str, Any] | None:
        """What its last attempt was started with; None: its bundle is gone, or was never made."""
        path = self._layout.run_tasks / record.id / str(record.attempt) / "config.json"
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return config if isinstance(config, dict) else None

    def _chosen(self, request: dict[str, Any]) -> list[TaskRecord]:
        return _sorted(self._agent.live(*_of(request)))


def _of(request: dict[str, Any]) -> tuple[str | None, Sequence[str]]:
    stack = text(request, "stack") if "stack" in request else None
    return stack, texts(request, "services") if "services" in request else ()


def _sorted(records: Sequence[TaskRecord]) -> list[TaskRecord]:
    return sorted(records, key=lambda r: (r.stack, r.service, r.slot, r.id))


def _name(record: TaskRecord) -> str:
    return f"{record.id}.{record.attempt}"


def _identity(record: TaskRecord) -> dict[str, Any]:
    return {
        "task": record.id,
        "stack": record.stack,
        "service": record.service,
        "slot": record.slot,
        "attempt": record.attempt,
    }
