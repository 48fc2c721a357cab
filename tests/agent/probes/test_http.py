"""http and tcp probes against servers that answer well, badly, slowly and without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.probes import http


@asynccontextmanager
async def server(
    answer: bytes, *, endless: bytes = b"", silent: bool = False
) -> AsyncIterator[tuple[int, list[bytes]]]:
    asked: list[bytes] = []
    leave = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            while endless:
                writer.write(endless)
                await writer.drain()
            if silent:
                await leave.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], asked
    finally:
        leave.set()
        listener.close()


@pytest.mark.parametrize(
    ("answer", "ok", "code", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhi", True, 200, "200"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True, 204, "204"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", True, 302, "302"),
        (b"HTTP/1.1 399\r\n\r\n", True, 399, "399"),
        (b"HTTP/1.1 400 Bad\r\n\r\n", False, 400, "400"),
        (b"HTTP/1.1 503 Busy\r\nA: b\r\n\r\ndatabase away\xff", False, 503, "database away\ufffd"),
        (b"HTTP/1.1 199 Odd\r\n\r\n", False, 199, "199"),
        (b"SSH-2.0-OpenSSH\r\n", False, None, "not HTTP"),
        (b"", False, None, "not HTTP"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", False, None, "not HTTP"),
        (b"HTTP/1.1 " + b"2" * 4000 + b" OK\r\n\r\n", False, None, "not HTTP"),
    ],
    ids=[
        "200",
        "204",
        "redirect is not followed",
        "399",
        "400",
        "body of a failure",
        "199",
        "ssh",
        "nothing",
        "no number",
        "no code",
    ],
)
async def test_answers(answer: bytes, ok: bool, code: int | None, said: str) -> None:
    async with server(answer) as (port, asked):
        result = await http.get("127.0.0.1", port, "/health?x=1", 5)
    assert (result.ok, result.code, result.timed_out) == (ok, code, False)
    assert said in result.output
    assert len(asked) == 1
    assert asked[0].startswith(b"GET /health?x=1 HTTP/1.1\r\n")


async def test_no_answer_is_late() -> None:
    async with server(b"", silent=True) as (port, _):
        result = await http.get("127.0.0.1", port, "/", 0.1)
    assert (result.ok, result.timed_out) == (False, True)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 500 E\r\n", b"HTTP/1.1 500 E\r\n\r\n"], ids=["status", "headers", "body"]
)
@pytest.mark.parametrize("endless", [b"x" * 65536, b"A: b\r\n" * 1000], ids=["one line", "many"])
async def test_endless_answers_are_bounded(answer: bytes, endless: bytes) -> None:
    async with server(answer, endless=endless) as (port, _):
        result = await http.get("127.0.0.1", port, "/", 5)
    assert not result.ok
    assert not result.timed_out
    assert len(result.output) < 5000


@pytest.mark.parametrize("path", ["", "health", "/a b", "/a\r\nX: y", "/\x7f", "/é"])
async def test_a_path_cannot_smuggle(path: str) -> None:
    assert "not a plain path" in (await http.get("127.0.0.1", 1, path, 1)).output


async def test_refused_and_open() -> None:
    async with server(b"") as (port, _):
        assert (await http.connect("127.0.0.1", port, 5)).ok
    for result in (await http.connect("127.0.0.1", port, 5), await http.get("127.0.0.1", port, "/", 5)):
        assert (result.ok, result.timed_out) == (False, False)
        assert result.output
