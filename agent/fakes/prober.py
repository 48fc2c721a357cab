"""A Prober whose answers the test decides."""

from __future__ import annotations

from collections.abc import Sequence

from agent.ports import ProbeResult, Process
from agent.wire.messages import Healthcheck


class FakeProber:
    """`answers[task]`: used one by one, the last one for good; no entry: healthy. `probes`: what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Sequence[ProbeResult]] = {}
        self.probes: list[tuple[str, int, Healthcheck]] = []

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
