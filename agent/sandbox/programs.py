"""Programs that the agent runs inside a container besides its own: checks and hooks."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kit.errors import Temporary
from agent.ports import Process
from agent.runtime import pidfd
from agent.sandbox.link import Helper, Link


@dataclass(slots=True)
class Program:
    """One that was begun."""

    link: Link
    question: int
    answer: asyncio.Future[dict[str, Any]]

    async def wait(self, timeout: float | None = None) -> int | None:
        """The exit status as a shell says it: 127 there is no such command, 126 it cannot be executed, 125 the
        container cannot be entered. None: the time is over, it still runs. Temporary sandbox-helper: what has become
        of it nobody knows; what was still running was killed."""
        done, _ = await asyncio.wait({self.answer}, timeout=timeout)
        if not done:
            return None
        answer = self.answer.result()
        if "error" in answer:
            raise Temporary(f"cannot enter the container: {answer['error']}", code="not-entered", errno=answer["errno"])
        status: int = answer["status"]
        return status

    def kill(self) -> None:
        """It alone; what it has started is its cgroup's. Nothing happens once it has ended."""
        self.link.kill(self.question)

    def abandon(self) -> None:
        """Kill it; nobody waits for it any more."""
        self.kill()
        self.answer.cancel()


def begin(helper: Helper, process: Process, entry: Path, output: int) -> Program | None:
    """In the container whose first process is `process`; None: that has ended. `entry`: a file of decide/entry.py.
    `output`: a descriptor for both its streams."""
    held = pidfd.open_process(process.pid, process.start_ticks)
    if held is None:
        return None
    try:
        link = helper.ready()
        return Program(link, *link.ask({"entry": str(entry)}, (held, output)))
    finally:
        os.close(held)
