"""What every Prober does, the fake and the host's alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from agent.fakes.prober import FakeProber
from agent.ports import Prober, ProbeResult, Process
from agent.probes.prober import HostProber
from agent.wire.messages import Healthcheck
from tests.agent.runtime.host import Host, new_root

WELL = Healthcheck(test=("CMD-SHELL", "exit 0"))
ILL = Healthcheck(test=("CMD-SHELL", "echo no; exit 3"))
ENDLESS = Healthcheck(test=("CMD", "sleep", "1000"))


@dataclass
class Place:
    prober: Prober
    task: str
    process: Process

    async def probe(self, check: Healthcheck, timeout: float = 5.0) -> ProbeResult:
        return await self.prober.probe(self.task, 1, self.process, check, "127.0.0.1", timeout)


@pytest_asyncio.fixture(params=["fake", pytest.param("host", marks=pytest.mark.host)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "fake":
        prober = FakeProber()
        late = ProbeResult(False, "ended", timed_out=True)
        prober.answers["t1"] = [ProbeResult(True, "", 0), ProbeResult(False, "no\n", 3), late]
        yield Place(prober, "t1", Process(2, 20, 1))
        return
    host = Host(new_root())
    try:
        bundle = host.bundle("sleep", "1000")
        yield Place(HostProber(host.layout, host.instance, host.helper), bundle.task, await host.runtime.start(bundle))
    finally:
        await host.close()


async def test_well_ill_and_late(place: Place) -> None:
    assert await place.probe(WELL) == ProbeResult(True, "", 0)
    assert await place.probe(ILL) == ProbeResult(False, "no\n", 3)
    late = await place.probe(ENDLESS, timeout=0.2)
    assert (late.ok, late.timed_out) == (False, True)
