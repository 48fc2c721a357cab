"""A Prober whose answers the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.ports import ProbeResult, Process, UserIds
from agent.wire.messages import Healthcheck, Hook


class FakeProber:
    """`answers[task]`: used one by one, the last one for good; no entry: healthy. `probes`: what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Sequence[ProbeResult]] = {}
        self.probes: list[tuple[str, int, Healthcheck]] = []
        self.hooks: list[tuple[str, int, tuple[str, ...]]] = []  # begun
        self.outcomes: dict[tuple[str, ...], ProbeResult | asyncio.Future[ProbeResult]] = {}  # command → how it ends

    async def probe(
        self, task: str, attempt: int, process: Process, check: Healthcheck, address: str, timeout: float
    ) -> ProbeResult:
        self.probes.append((task, attempt, check))
        answers = self.answers.get(task)
        if not answers:
            return ProbeResult(True, "", 0)
        if len(answers) > 1:
            self.answers[task] = answers[1:]
        return answers[0]

    async def run(
        self, task: str, attempt: int, process: Process, hook: Hook, ids: UserIds | None, timeout: float | None
    ) -> ProbeResult:
        self.hooks.append((task, attempt, hook.command))
        outcome = self.outcomes.get(hook.command, ProbeResult(True, "", 0))
        return outcome if isinstance(outcome, ProbeResult) else await asyncio.shield(outcome)
