"""WebSockets into containers: the daemon's side against the command line's own client, and what is remembered of it."""

from __future__ import annotations

import asyncio
import json
import os
import select
from typing import Any

import pytest

from agent.kit.errors import GoraeError, UserError
from agent.wire.frames import END, ERROR, RESULT, SIGNAL, STDERR, STDIN, STDOUT, Duplex
from orchestrator.api import entering
from orchestrator.cli.client import Unreachable
from orchestrator.cli.websocket import WebSocket, outcome
from tests.orchestrator.api.test_api import TWO, Setting, s

__all__ = ["s"]
PATH = "/v1/stacks/shop/services/web/exec"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def echo(duplex: Duplex) -> None:
    count = 0
    while (frame := await duplex.receive()) is not None and frame.kind != END:
        if frame.kind == SIGNAL:
            await duplex.tell(ERROR, UserError("cannot go on", code="failed").document())
            return
        count += len(frame.payload)
        await duplex.send(STDOUT, frame.payload)
    await duplex.send(STDERR, str(count).encode())
    await duplex.tell(RESULT, {"exit_code": 3})


async def deaf(duplex: Duplex) -> None:
    """Takes nothing; ends when its client is gone."""
    await duplex.gone.wait()


def talk(
    path: str, ask: dict[str, Any], *messages: tuple[int, bytes], target: str = PATH
) -> tuple[list[tuple[int, bytes]], WebSocket]:
    """All answers, the last one included."""
    socket = WebSocket(path, target, ask)
    try:
        waiting = list(messages)
        got: list[tuple[int, bytes]] = []
        while not got or got[-1][0] not in (RESULT, ERROR):
            while waiting and socket.waiting < 300_000:
                socket.send(*waiting.pop(0))
            socket.flush()
            select.select([socket.socket], [socket.socket] if socket.waiting else [], [], 10)
            for message in socket.receive():  # one by one: the end of the connection may be behind the last
                got.append(message)
                if message[0] in (RESULT, ERROR):
                    break
        return got, socket
    finally:
        socket.close()


async def events(s: Setting, kind: str, count: int) -> list[dict[str, Any]]:
    """So many events of a kind; each comes after the answer it tells of."""
    async with asyncio.timeout(10):
        while True:
            found = [event for event in await s.client.lines("GET", "/v1/events?limit=1000") if event["kind"] == kind]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def test_a_conversation_and_its_events(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.conversations["exec"] = echo
    data = os.urandom(3_000_000)
    ask = {"command": ["sh", "-c", "x"], "environment": {"PASSWORD": "hidden"}, "tty": False, "slot": 2}
    got, _ = await asyncio.to_thread(talk, str(s.client.socket), ask, (STDIN, data), (END, b""))
    assert b"".join(payload for kind, payload in got if kind == STDOUT) == data
    assert got[-2] == (STDERR, str(len(data)).encode())
    assert outcome(*got[-1]) == 3
    request = next(request for request in s.agent.requests if request["op"] == "exec")
    assert (request["stack"], request["service"], request["slot"], request["command"]) == (
        "shop",
        "web",
        2,
        ["sh", "-c", "x"],
    )
    (begun,) = await events(s, "user.exec", 1)
    (ended,) = await events(s, "user.exec-ended", 1)
    assert begun["message"] == f"exec: sh -c x (by uid {os.getuid()})"
    assert (begun["service"], begun["slot"], begun["evidence"]["uid"]) == ("web", 2, os.getuid())
    assert begun["evidence"]["command"] == ["sh", "-c", "x"]
    assert (ended["cause"], ended["evidence"]["exit_code"]) == (begun["id"], 3)
    assert "hidden" not in json.dumps([begun, ended])


async def test_what_looks_like_a_secret_is_in_no_event(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.conversations["exec"] = echo
    ask = {"command": ["env", "DB_PASSWORD=hidden", "psql", "postgres://app:hidden@db/app", "A=shown"]}
    await asyncio.to_thread(talk, str(s.client.socket), ask, (END, b""))
    (begun,) = await events(s, "user.exec", 1)
    (ended,) = await events(s, "user.exec-ended", 1)
    assert "hidden" not in json.dumps([begun, ended])
    assert "A=shown" in begun["message"] and "A=shown" in begun["evidence"]["command"]
    sent = next(request for request in s.agent.requests if request["op"] == "exec")
    assert sent["command"] == ask["command"]


def _refused(path: str, target: str, ask: Any) -> GoraeError:
    with pytest.raises(GoraeError) as caught:
        socket = WebSocket(path, target, ask)
        try:
            while True:
                socket.flush()
                select.select([socket.socket], [], [], 10)
                for kind, payload in socket.receive():
                    if kind in (RESULT, ERROR):
                        outcome(kind, payload)
        finally:
            socket.close()
    return caught.value


@pytest.mark.parametrize(
    ("target", "ask", "code"),
    [
        pytest.param(PATH.replace("web", "wbe"), {"command": ["sh"]}, "service-unknown", id="service"),
        pytest.param(PATH.replace("shop", "shap"), {"command": ["sh"]}, "stack-unknown", id="stack"),
        pytest.param(PATH, {"command": []}, "bad-request", id="no command"),
        pytest.param(PATH, {"command": ["sh"], "colour": 1}, "bad-request", id="unknown field"),
        pytest.param(PATH, ["sh"], "bad-request", id="no object"),
        pytest.param(PATH, {"command": ["sh"]}, "op-unknown", id="an agent that cannot"),
        pytest.param("/v1/none", {"command": ["sh"]}, "bad-answer", id="no such path"),
    ],
)
async def test_refusals(s: Setting, target: str, ask: Any, code: str) -> None:
    await s.client.up(**TWO)
    assert (await asyncio.to_thread(_refused, str(s.client.socket), target, ask)).code == code


async def test_an_error_of_the_agent_in_the_middle(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.conversations["exec"] = echo
    got, _ = await asyncio.to_thread(talk, str(s.client.socket), {"command": ["sh"]}, (SIGNAL, b"9"))
    with pytest.raises(UserError, match="cannot go on"):
        outcome(*got[-1])
    (ended,) = await events(s, "user.exec-ended", 1)
    assert ended["evidence"]["code"] == "failed"


async def test_a_client_that_vanishes_ends_it_though_nothing_is_read(s: Setting) -> None:
    await s.client.up(**TWO)
    ended = asyncio.Event()

    async def watched(duplex: Duplex) -> None:
        await deaf(duplex)
        ended.set()

    s.agent.conversations["exec"] = watched

    def flood() -> None:
        """Until nobody takes any more; then as if killed."""
        socket = WebSocket(str(s.client.socket), PATH, {"command": ["sh"]})
        for _ in range(40):
            socket.send(STDIN, bytes(100_000))
            socket.flush()
            select.select([], [socket.socket], [], 0.05)
        assert socket.waiting
        socket.close()

    await asyncio.to_thread(flood)
    async with asyncio.timeout(10):
        await ended.wait()
    (event,) = await events(s, "user.exec-ended", 1)
    assert event["evidence"]["why"] == "the client left"


async def test_an_agent_that_dies_is_said(s: Setting) -> None:
    await s.client.up(**TWO)

    async def die(duplex: Duplex) -> None:
        await duplex.send(STDOUT, b"last words")
        await duplex.abort()

    s.agent.conversations["exec"] = die
    error = await asyncio.to_thread(_refused, str(s.client.socket), PATH, {"command": ["sh"]})
    assert error.code == "agent-away"


async def test_messages_that_are_none_are_refused(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.conversations["exec"] = deaf
    got, _ = await asyncio.to_thread(talk, str(s.client.socket), {"command": ["sh"]}, (STDOUT, b"x"))
    with pytest.raises(UserError) as caught:
        outcome(*got[-1])
    assert caught.value.code == "bad-request"


async def test_nobody_listens() -> None:
    with pytest.raises(Unreachable):
        WebSocket("/tmp/none/at/all.sock", PATH, {})


async def test_who_asks_nothing_is_let_go(s: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entering, "FIRST", 0.05)
    _, _, reader, writer = await s.client.open("GET", PATH, version="1.1", headers=UPGRADE)
    async with asyncio.timeout(5):
        frame = await reader.readexactly(2)  # RFC 6455, 5.2: final, bytes; a short length
        message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        assert (frame[0], message[0], json.loads(message[1:])["code"]) == (0x82, ERROR, "too-slow")
        writer.write(b"\x88\x80\0\0\0\0")  # close
        assert (await reader.read())[0] == 0x88
    writer.close()
