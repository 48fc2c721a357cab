"""Frames: what both directions of a connection to the agent's socket carry once an operation has answered
`{"ready": …}` (agent/wire/streams.py). Also, without the length, the messages of the API's WebSockets.

A frame is one byte of kind, four bytes of length (big-endian, at most CHUNK) and the payload:

    0 STDIN    bytes for the other end to read
    1 STDOUT   bytes that it wrote
    2 STDERR
    3 END      no payload: no STDIN will follow (from the client), or no output (from the agent, where it matters)
    4 RESIZE   rows, columns: two bytes each, big-endian
    5 SIGNAL   its name or number, as text
    6 RESULT   a JSON document; the agent's last frame: success
    7 ERROR    a JSON document, as kit.errors has it; the agent's last frame: failure
    8 DETACH   no payload: the client leaves, and what it ran is to run on
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

from agent.kit.errors import Permanent
from agent.kit.hangup import HangUp
from agent.wire.kinds import DETACH, END, ERROR, RESIZE, RESULT, SIGNAL, STDERR, STDIN, STDOUT

__all__ = ["DETACH", "END", "ERROR", "RESIZE", "RESULT", "SIGNAL", "STDERR", "STDIN", "STDOUT"]  # and what is here
CHUNK = 64 * 1024  # bytes of payload
LINGER = 1.0  # seconds that a peer gets to close after the last frame
_HEAD = struct.Struct(">BI")
_SIZE = struct.Struct(">HH")
_HIGH, _LOW = 4 * CHUNK, CHUNK  # bytes received and not yet taken: where reading pauses, and where it goes on


class Frame(NamedTuple):
    kind: int
    payload: bytes

    def document(self) -> Any:
        """Of RESULT and ERROR. Permanent bad-frame."""
        try:
            return json.loads(self.payload)
        except ValueError:
            raise _bad("its document is no JSON") from None

    def size(self) -> tuple[int, int]:
        """(rows, columns) of RESIZE. Permanent bad-frame."""
        if len(self.payload) != _SIZE.size:
            raise _bad("a size is two numbers of two bytes")
        rows, columns = _SIZE.unpack(self.payload)
        return int(rows), int(columns)


def pack(kind: int, payload: bytes = b"") -> bytes:
    """One frame; more than CHUNK bytes become several, which only data may."""
    if len(payload) <= CHUNK:
        return _HEAD.pack(kind, len(payload)) + payload
    return b"".join(pack(kind, payload[at : at + CHUNK]) for at in range(0, len(payload), CHUNK))


def resize(rows: int, columns: int) -> bytes:
    """The payload of RESIZE; what does not fit is cut."""
    return _SIZE.pack(max(0, min(rows, 0xFFFF)), max(0, min(columns, 0xFFFF)))


class Decoder:
    """Frames of bytes that come in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Those that are complete. Permanent bad-frame: nothing after it can be trusted."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEAD.size:
                kind, length = _HEAD.unpack_from(self._buffer, at)
                if kind > DETACH or length > CHUNK:
                    raise _bad(f"kind {kind}, {length} bytes")
                if len(self._buffer) - at - _HEAD.size < length:
                    return
                start, at = at + _HEAD.size, at + _HEAD.size + length
                yield Frame(kind, bytes(self._buffer[start:at]))
        finally:
            del self._buffer[:at]

    @property
    def torn(self) -> bool:
        """Whether the bytes so far end inside a frame."""
        return bool(self._buffer)


class Duplex(asyncio.Protocol):
    """Frames both ways over a connected unix socket, with a bound on what waits in either direction.

    It knows at once when the peer has closed its socket, also while it does not read (`gone`), so that whoever works
    for a peer that has vanished can be ended.
    """

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self._lost = asyncio.Event()
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()
        self._waiting = 0  # bytes in _frames
        self._bell = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = self._drops = False
        self._error: Permanent | None = None
        self._transport: asyncio.Transport | None = None
        self._watch: HangUp | None = None

    async def receive(self) -> Frame | None:
        """The next; None: the peer sends no more. Permanent bad-frame, also for an end inside a frame."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._bell.clear()
            await self._bell.wait()
        frame = self._frames.popleft()
        before, self._waiting = self._waiting, self._waiting - len(frame.payload) - _HEAD.size
        if before > _LOW >= self._waiting and self._transport is not None and self._error is None:
            self._transport.resume_reading()
        return frame

    async def send(self, kind: int, payload: bytes = b"") -> None:
        """Returns when there is room for more. ConnectionResetError: the peer is gone."""
        if self.gone.is_set() or self._transport is None:
            raise ConnectionResetError("the peer has gone")
        self._transport.write(pack(kind, payload))
        await self._room.wait()

    async def tell(self, kind: int, document: Any) -> None:
        """RESULT or ERROR. What does not fit into a frame is an error itself."""
        payload = json.dumps(document).encode()
        if len(payload) > CHUNK:
            kind, payload = ERROR, json.dumps(_bad("the answer is too long for a frame").document()).encode()
        await self.send(kind, payload)

    async def close(self) -> None:
        """What was sent is still delivered, unless the peer has gone. What it goes on sending is dropped for a moment:
        closed under it, the connection would be reset, and the last frame lost to a peer that is writing."""
        if self._transport is None:
            return
        try:
            if not self.gone.is_set() and not self._transport.is_closing():
                await self._part()
        finally:
            self._transport.close()
        await self._lost.wait()

    async def _part(self) -> None:
        """Until the peer has closed, for LINGER seconds at most."""
        assert self._transport is not None
        self._drops = True
        self._frames.clear()
        self._waiting = 0
        if not self._ended:
            self._transport.resume_reading()
        self._transport.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self.gone.wait()

    async def abort(self) -> None:
        """What the peer has not taken is dropped."""
        if self._transport is not None:
            self._transport.abort()
            await self._lost.wait()

    # asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        transport.set_write_buffer_limits(high=_HIGH, low=_LOW)
        self._watch = HangUp(transport.get_extra_info("socket").fileno(), self._hung_up)

    def data_received(self, data: bytes) -> None:
        if self._drops:
            return
        try:
            for frame in self._decoder.feed(data):
                self._frames.append(frame)
                self._waiting += len(frame.payload) + _HEAD.size
        except Permanent as error:
            self._error = error
        if self._transport is not None and (self._waiting > _HIGH or self._error is not None):
            self._transport.pause_reading()
        self._bell.set()

    def eof_received(self) -> bool:
        self._finish()
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.close()
        self._finish()
        self.gone.set()
        self._lost.set()
        self._room.set()

    def _hung_up(self) -> None:
        self.gone.set()
        self._room.set()

    def _finish(self) -> None:
        if self._decoder.torn and self._error is None:
            self._error = _bad("it ends in the middle")
        self._ended = True
        self._bell.set()


def _bad(why: str) -> Permanent:
    return Permanent(f"cannot read a frame: {why}", code="bad-frame")


async def take_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Duplex:
    """The connection of a pair of streams as a Duplex; the pair is of no use afterwards. Drain the writer before."""
    transport = cast(asyncio.Transport, writer.transport)
    transport.pause_reading()
    duplex = Duplex()
    transport.set_protocol(duplex)
    duplex.connection_made(transport)
    early = b""
    if not reader.at_eof():
        reader.feed_eof()
        early = await reader.read()
    if early:
        duplex.data_received(early)
    transport.resume_reading()
    return duplex
