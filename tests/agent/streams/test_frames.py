"""Frames in any pieces, and conversations: bounded both ways, and a peer that vanishes is noticed at once."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import Permanent, Temporary, UserError
from agent.streams.requests import Conversation, Take
from agent.wire import frames
from agent.wire.frames import CHUNK, END, RESULT, STDIN, STDOUT, Decoder, Duplex, Frame, pack
from agent.wire.streams import converse
from tests.agent.streams.test_server import Place, serving

FRAMES = st.lists(st.builds(Frame, st.integers(0, frames.DETACH), st.binary(max_size=300)), max_size=12)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The daemons run on uvloop, whose transports behave in their own ways."""

    async def whole(path: Path) -> None:
        await (test(path) if inspect.signature(test).parameters else test())
        for _ in range(5):
            await asyncio.sleep(0)  # uvloop closes descriptors a round later

    def both(tmp_path: Path) -> None:
        for run in (asyncio.run, uvloop.run):
            run(whole(tmp_path))

    both.__name__ = test.__name__
    return both


@given(sent=FRAMES, cuts=st.lists(st.integers(0, 4000), max_size=30))
def test_frames_come_whole_however_their_bytes_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(pack(*frame) for frame in sent)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    decoder = Decoder()
    got = [frame for a, b in itertools.pairwise(places) for frame in decoder.feed(data[a:b])]
    assert got == sent
    assert not decoder.torn


def test_one_byte_at_a_time() -> None:
    sent = [Frame(STDIN, b"abc"), Frame(END, b""), Frame(RESULT, b"{}")]
    decoder, got = Decoder(), list[Frame]()
    for byte in b"".join(pack(*frame) for frame in sent):
        got += decoder.feed(bytes((byte,)))
    assert got == sent


def test_more_than_a_frame_holds_becomes_several() -> None:
    data = bytes(range(256)) * 600
    got = list(Decoder().feed(pack(STDOUT, data)))
    assert [len(frame.payload) for frame in got] == [CHUNK, CHUNK, len(data) - 2 * CHUNK]
    assert b"".join(frame.payload for frame in got) == data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes((99, 0, 0, 0, 0)), id="unknown kind"),
        pytest.param(bytes((STDIN, 255, 255, 255, 255)), id="too long"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(Permanent, match="cannot read a frame"):
        list(Decoder().feed(data))


@given(rows=st.integers(-5, 100_000), columns=st.integers(-5, 100_000))
def test_sizes(rows: int, columns: int) -> None:
    got = Frame(frames.RESIZE, frames.resize(rows, columns)).size()
    assert got == (max(0, min(rows, 65535)), max(0, min(columns, 65535)))


def test_a_size_of_another_length_is_refused() -> None:
    with pytest.raises(Permanent):
        Frame(frames.RESIZE, b"123").size()


async def pair() -> tuple[Duplex, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, duplex = await asyncio.get_running_loop().create_connection(Duplex, sock=ours)
    return duplex, theirs


@on_both_loops
async def test_a_peer_that_vanishes_is_noticed_while_nobody_reads() -> None:
    duplex, peer = await pair()
    loop = asyncio.get_running_loop()
    flood = pack(STDIN, bytes(CHUNK))
    with pytest.raises(TimeoutError):  # it stops taking, with a bound on what waits
        async with asyncio.timeout(0.3):
            while True:
                await loop.sock_sendall(peer, flood)
    assert not duplex.gone.is_set()
    peer.close()
    async with asyncio.timeout(5):
        await duplex.gone.wait()
    with pytest.raises(ConnectionResetError):
        await duplex.send(STDOUT, b"x")
    await duplex.abort()


@on_both_loops
async def test_what_waits_to_be_read_and_to_be_sent_is_bounded() -> None:
    duplex, peer = await pair()
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            while True:
                await duplex.send(STDOUT, bytes(CHUNK))
                sent += CHUNK
    assert sent < 2_000_000
    got = 0
    while got < sent:
        got += len(await asyncio.get_running_loop().sock_recv(peer, 1 << 20))
    await asyncio.wait_for(duplex.send(STDOUT, b"more"), 5)
    peer.close()
    await duplex.abort()


@on_both_loops
async def test_nothing_is_kept_of_what_comes_after_a_bad_frame() -> None:
    duplex, peer = await pair()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, pack(STDIN, b"whole") + b"\xff" * 5)
    with pytest.raises(TimeoutError):  # nobody takes it
        async with asyncio.timeout(0.3):
            await loop.sock_sendall(peer, bytes(8 << 20))
    assert await duplex.receive() == Frame(STDIN, b"whole")
    with pytest.raises(Permanent, match="kind 255"):
        await duplex.receive()
    peer.close()
    async with asyncio.timeout(5):
        await duplex.gone.wait()
    await duplex.abort()


@on_both_loops
async def test_an_end_inside_a_frame_is_an_error() -> None:
    duplex, peer = await pair()
    peer.send(pack(STDIN, b"whole") + pack(STDIN, b"half")[:-1])
    peer.shutdown(socket.SHUT_WR)
    assert await duplex.receive() == Frame(STDIN, b"whole")
    with pytest.raises(Permanent, match="in the middle"):
        await duplex.receive()
    peer.close()
    await duplex.abort()


# At the agent's socket --------------------------------------------------------------------------------------------


@asynccontextmanager
async def place(path: Path, conversation: Conversation) -> AsyncIterator[Path]:
    made = Place(path / "agent.sock")
    server = serving(made, conversations={"talk": conversation})
    async with server.serving():
        yield made.path


async def echo(request: dict[str, Any], take: Take) -> Any:
    if request.get("refuse"):
        raise UserError("cannot talk to you", code="refused")
    duplex = await take({"hello": request["name"]})
    count = 0
    while (frame := await duplex.receive()) is not None and frame.kind != END:
        if frame.payload == b"fail":
            raise UserError("cannot go on", code="failed")
        count += len(frame.payload)
        await duplex.send(STDOUT, frame.payload)
    return {"count": count}


@on_both_loops
async def test_a_conversation(tmp_path: Path) -> None:
    data, got = bytes(range(256)) * 20_000, bytearray()
    async with place(tmp_path, echo) as path, converse(path, "talk", name="x") as (ready, duplex):
        assert ready == {"hello": "x"}

        async def write() -> None:
            await duplex.send(STDIN, data)
            await duplex.send(END)

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            while (frame := await duplex.receive()) is not None and frame.kind == STDOUT:
                got += frame.payload
        assert frame is not None
        assert (frame.kind, frame.document()) == (RESULT, {"count": len(data)})
        assert await duplex.receive() is None
    assert got == data


@on_both_loops
async def test_frames_sent_before_the_answer_are_not_lost(tmp_path: Path) -> None:
    async with place(tmp_path, echo) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"op": "talk", "name": "x"}\n' + pack(STDIN, b"early") + pack(END))
        assert await reader.readline() == b'{"ready": {"hello": "x"}}\n'
        expected = pack(STDOUT, b"early") + pack(RESULT, b'{"count": 5}')
        assert await asyncio.wait_for(reader.read(), 5) == expected
        writer.close()


@on_both_loops
async def test_errors_before_and_after_the_answer(tmp_path: Path) -> None:
    async with place(tmp_path, echo) as path:
        with pytest.raises(UserError, match="cannot talk"):
            async with converse(path, "talk", refuse=True):
                pass
        async with converse(path, "talk", name="x") as (_, duplex):
            await duplex.send(STDIN, b"fail")
            frame = await duplex.receive()
            assert frame is not None
            assert frame.kind == frames.ERROR
            assert frame.document()["code"] == "failed"


@on_both_loops
async def test_a_client_that_vanishes_ends_the_operation_though_it_does_not_read(tmp_path: Path) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def stuck(request: dict[str, Any], take: Take) -> Any:
        await take({})
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with place(tmp_path, stuck) as path:
        async with converse(path, "talk") as (_, duplex):
            await began.wait()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    while True:
                        await duplex.send(STDIN, bytes(CHUNK))
        async with asyncio.timeout(5):
            await ended.wait()


@on_both_loops
async def test_the_last_frame_reaches_a_client_that_is_still_sending(tmp_path: Path) -> None:
    async def refuse(request: dict[str, Any], take: Take) -> Any:
        await (await take({})).receive()
        raise UserError("cannot take it", code="refused")

    async def flood(duplex: Duplex) -> None:
        with suppress(ConnectionError):
            while True:
                await duplex.send(STDIN, bytes(CHUNK))
                await asyncio.sleep(0)  # another round, in which the agent may have closed

    async with place(tmp_path, refuse) as path, converse(path, "talk") as (_, duplex):
        sending = asyncio.create_task(flood(duplex))
        async with asyncio.timeout(5):
            last = await duplex.receive()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert last is not None and last.document()["message"] == "cannot take it"


async def test_an_agent_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="cannot reach the agent"):
        async with converse(tmp_path / "none.sock", "talk"):
            pass
