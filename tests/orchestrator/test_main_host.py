"""The real program, as user gorae, over a real mosquitto: what mocks of either would hide."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.kit.layout import Layout
from tests.orchestrator.api.test_api import Client
from tests.orchestrator.test_main import serving
from tests.support.fake_agent import FakeAgent
from tests.wire.harness import MosquittoHarness

pytestmark = pytest.mark.host
TWO: dict[str, Any] = {"web": {"image": "web:1", "replicas": 2}, "db": {"image": "db:1"}}


@pytest.fixture
async def broker() -> AsyncIterator[MosquittoHarness]:
    harness = MosquittoHarness()
    await harness.start()
    gorae = pwd.getpwnam("gorae")
    for directory in (harness.layout.orchestrator_dir, harness.layout.api_dir):
        directory.mkdir(parents=True)
        os.chown(directory, gorae.pw_uid, gorae.pw_gid)
    yield harness
    await harness.close()


# The privileges are dropped after the imports, those made at the first request too: a developer's interpreter may be
# where only root can read, under /root for one.
LAUNCH = """
import os, sys
import anyio._backends._asyncio, uvicorn.lifespan.off
from orchestrator import main
os.setgroups([{bus}]), os.setgid({gid}), os.setuid({uid})
sys.exit(main.main())
"""


async def start(layout: Layout) -> asyncio.subprocess.Process:
    gorae = pwd.getpwnam("gorae")
    code = LAUNCH.format(uid=gorae.pw_uid, gid=gorae.pw_gid, bus=pwd.getpwnam("mosquitto").pw_gid)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "--root", str(layout.state.parent)),
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE,
    )
    await serving(process)
    return process


async def test_up_survives_the_broker_and_the_orchestrator(broker: MosquittoHarness) -> None:
    layout = broker.layout
    client = Client(layout.api_socket)
    async with FakeAgent(broker).life(layout.agent_socket) as agent:
        layout.agent_socket.chmod(0o666)
        process = await start(layout)
        try:
            assert layout.api_socket.stat().st_gid == pwd.getpwnam("gorae").pw_gid
            assert layout.database.stat().st_mode & 0o777 == 0o600
            await client.up(**TWO)
            assert (await client.converge(1))["stacks"][0]["converged"]
            starts = list(agent.starts)

            await broker.stop()
            crashes = [await agent.emit("task.exited", stack="shop", attempt=n) for n in range(5)]
            await broker.start()
            async with asyncio.timeout(10):
                assert (await client.converge(1))["stacks"][0]["converged"]
                await agent.until(lambda: agent.forgotten == 5)

            process.kill()
            await process.wait()
            crashes.append(await agent.emit("task.exited", stack="shop", attempt=5))
            process = await start(layout)
            async with asyncio.timeout(10):
                assert (await client.up(**TWO))["result"]["generation"] == 1
                await agent.until(lambda: agent.forgotten == 6)
                assert (await client.converge(1))["stacks"][0]["converged"]
            told = [e for e in await client.lines("GET", "/v1/events?stack=shop") if e["source"] == "agent"]
            assert [event["id"] for event in told] == [event.id for event in crashes]
            assert agent.starts == starts

            _, answer = await client.ask("DELETE", "/v1/stacks/shop")
            assert (await client.converge(answer["generation"]))["stacks"] == []
            assert agent.running == {}
        finally:
            if process.returncode is None:
                process.terminate()
                assert await process.wait() == 0
