"""Tars into and out of containers over WebSockets: the daemon's side against the command line's own client."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tarfile
from typing import Any

import pytest

from agent.kit.errors import UserError
from agent.wire.frames import END, ERROR, RESULT, STDIN, STDOUT, Duplex
from orchestrator.cli.carrying import Pipe
from tests.orchestrator.api.test_api import TWO, Setting, s
from tests.orchestrator.api.test_entering import echo, events, talk

__all__ = ["s"]
AT = "/v1/stacks/shop/services/web"
IN: dict[str, object] = {"path": "/x", "source": "archive", "slot": None}


async def test_in_and_its_event(s: Setting) -> None:
    await s.client.up(**TWO)
    got = bytearray()

    async def take(duplex: Duplex) -> None:
        while (frame := await duplex.receive()) is not None and frame.kind != END:
            got.extend(frame.payload)
        await duplex.tell(RESULT, {"entries": 1})

    s.agent.conversations["copy-in"] = take
    data = os.urandom(3_000_000)

    def send() -> dict[str, Any]:
        with Pipe(str(s.client.socket), f"{AT}/copy-in", IN) as pipe:
            for at in range(0, len(data), 250_000):
                pipe.write(data[at : at + 250_000])
            return pipe.finish(end=True)

    assert await asyncio.to_thread(send) == {"entries": 1}
    assert bytes(got) == data
    (event,) = await events(s, "user.copy-in", 1)
    assert (event["message"], event["service"]) == (f"copy-in: /x (by uid {os.getuid()})", "web")


async def test_out(s: Setting) -> None:
    await s.client.up(**TWO)
    data = os.urandom(3_000_000)

    async def give(duplex: Duplex) -> None:
        for at in range(0, len(data), 50_000):
            await duplex.send(STDOUT, data[at : at + 50_000])
        await duplex.send(END)
        await duplex.tell(RESULT, {"entries": 2})

    s.agent.conversations["copy-out"] = give

    def read() -> tuple[bytes, dict[str, Any]]:
        with Pipe(str(s.client.socket), f"{AT}/copy-out", {"path": "/x"}) as pipe:
            parts = []
            while part := pipe.read(10_000):
                parts.append(part)
            return b"".join(parts), pipe.finish()

    assert await asyncio.to_thread(read) == (data, {"entries": 2})


async def test_a_refusal_is_said_though_much_is_on_its_way(s: Setting) -> None:
    """tarfile writes once more as it is left by an error: nobody takes that."""
    await s.client.up(**TWO)

    async def refuse(duplex: Duplex) -> None:
        await duplex.receive()
        await duplex.tell(ERROR, UserError("cannot copy to /x: it is read-only there", code="read-only").document())

    s.agent.conversations["copy-in"] = refuse

    def send() -> None:
        with Pipe(str(s.client.socket), f"{AT}/copy-in", IN) as pipe:
            stream: Any = pipe
            with tarfile.open(mode="w|", fileobj=stream, bufsize=256 * 1024) as tar:
                entry = tarfile.TarInfo("large")
                entry.size = 20_000_000
                tar.addfile(entry, io.BytesIO(bytes(entry.size)))
            pipe.finish(end=True)

    async with asyncio.timeout(8):
        with pytest.raises(UserError, match="read-only there"):
            await asyncio.to_thread(send)


async def test_a_port_is_asked_for_and_no_event_written(s: Setting) -> None:
    """One verb may make hundreds of connections."""
    await s.client.up(**TWO)
    s.agent.conversations["forward"] = echo
    ask = {"port": 5432, "slot": 2}
    got, _ = await asyncio.to_thread(
        talk, str(s.client.socket), ask, (STDIN, b"data"), (END, b""), target=f"{AT}/forward"
    )
    assert got[0] == (STDOUT, b"data")
    (request,) = [request for request in s.agent.requests if request["op"] == "forward"]
    assert request == {"op": "forward", "stack": "shop", "service": "web", "port": 5432, "slot": 2}
    kinds = {event["kind"] for event in await s.client.lines("GET", "/v1/events?limit=1000")}
    assert not {kind for kind in kinds if "forward" in kind}


@pytest.mark.parametrize("port", [0, 65536, "http", None])
async def test_what_is_no_port(s: Setting, port: object) -> None:
    await s.client.up(**TWO)
    got, _ = await asyncio.to_thread(talk, str(s.client.socket), {"port": port}, target=f"{AT}/forward")
    assert [(kind, json.loads(payload)["code"]) for kind, payload in got] == [(ERROR, "bad-request")]


LIMITED = """
import sys
from orchestrator.cli import forwarding
forwarding.AT_ONCE = 2
listener = forwarding.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
forwarding.run(sys.argv[1], sys.argv[2], None, [(listener, 80)])
"""


async def test_connections_beyond_the_limit_wait_for_their_turn(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.conversations["forward"] = echo
    words = [sys.executable, "-c", LIMITED, str(s.client.socket), f"{AT}/forward"]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await process.stdout.readline())

    async def said_back(ends: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
        ends[1].write(b"x")
        return await ends[0].readexactly(1) == b"x"

    def begun() -> int:
        return sum(request["op"] == "forward" for request in s.agent.requests)

    async with asyncio.timeout(20):
        first, second, third = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _ in range(3):
            assert await said_back(first) and await said_back(second)
        assert begun() == 2
        first[1].close()
        assert await said_back(third)
        assert begun() == 3
    process.terminate()
    assert await process.wait() == 0
    for _, writer in (second, third):
        writer.close()
