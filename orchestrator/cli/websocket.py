"""The client's side of a WebSocket (RFC 6455) over the daemon's unix socket, by hand, as client.py does HTTP: what the
API's conversations need (docs/api.md), and nothing that costs start-up. It never blocks but in its making."""

from __future__ import annotations

import os
import select
from binascii import b2a_base64

from agent.kit.errors import Permanent, from_document
from agent.wire.kinds import ERROR, RESULT, STDIN
from orchestrator.cli import light
from orchestrator.cli.client import PATIENCE, Lines, TimedOut, Unreachable, connect

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_TEXT, _BYTES, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_PAYLOAD = 32 * 1024  # bytes in one message of ours
HIGH = 512 * 1024  # bytes that wait to be sent: more is not taken from whoever types


class WebSocket:
    """Messages of the API's conversations: a kind (agent/wire/kinds.py) and bytes."""

    def __init__(self, path: str, target: str, ask: dict[str, object]) -> None:
        """`path`: of the socket. `ask`: the first message. Raises the daemon's error, or Unreachable."""
        self._path = path
        self.socket = connect(path, "gorae")
        self._in, self._out = bytearray(), bytearray()
        self._parts = bytearray()
        self.about: dict[str, Any] | None = None  # what {"ready": …} says
        self._early: list[tuple[int, bytes]] = []
        try:
            self._shake_hands(target)
        except OSError as error:
            self.close()
            raise self._away(error.strerror or str(error)) from error
        except TimedOut:
            self.close()
            raise self._away(f"it said nothing for {PATIENCE:g} s") from None
        except BaseException:
            self.close()
            raise
        self.socket.setblocking(False)
        self._frame(_TEXT, light.dumps(ask).encode())

    def close(self) -> None:
        self.socket.close()

    @property
    def waiting(self) -> int:
        """Bytes that the socket has not yet taken."""
        return len(self._out)

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Queued, and sent by `flush`. Only STDIN may be long."""
        for at in range(0, len(payload), _PAYLOAD) if kind == STDIN else (0,):
            self._frame(_BYTES, bytes((kind,)) + (payload[at : at + _PAYLOAD] if kind == STDIN else payload))

    def flush(self) -> None:
        """As much as the socket takes."""
        try:
            while self._out:
                sent = self.socket.send(memoryview(self._out)[: 256 * 1024])
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # the reader meets the end, and what was said before it

    def wait(self, wake: int, *, reads: bool) -> tuple[bool, bool, bool]:
        """Send what is queued until there is something to read: from `wake`, from our input (not looked at unless it
        `reads`, nor while much waits to be sent), from the other side."""
        self.flush()
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        poll.register(wake, select.POLLIN)
        if reads and len(self._out) < HIGH:
            poll.register(0, select.POLLIN)
        events = dict(poll.poll())
        return wake in events, 0 in events, bool(events.get(self.socket.fileno(), 0) & ~select.POLLOUT)

    def wait_ready(self) -> dict[str, Any]:
        """What the container's side says of itself. Raises the daemon's error."""
        while self.about is None:
            self.flush()
            select.select([self.socket], [self.socket] if self._out else [], [])
            for message in self.receive():  # one by one: an error comes with the end of the connection behind it
                if message[0] == ERROR:
                    outcome(*message)
                self._early.append(message)
        return self.about

    def early(self) -> list[tuple[int, bytes]]:
        """What came together with that; once."""
        found, self._early = self._early, []
        return found

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """What has come. Unreachable: the connection has ended before a last message."""
        try:
            data = self.socket.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._away(error.strerror or str(error)) from error
        if not data:
            raise self._away("it ended in the middle of the answer")
        self._in += data
        while (frame := self._next()) is not None:
            final, opcode, payload = frame
            if opcode == _PING:
                self._frame(_PONG, payload)
            elif opcode == _CLOSE:
                raise self._away("it ended the conversation")
            elif opcode != _PONG:
                self._parts += payload
                if final:
                    whole, self._parts = bytes(self._parts), bytearray()
                    if whole[:1] == b"{":  # the only text there is
                        self.about = light.loads(whole)["ready"]
                    elif whole:
                        yield whole[0], whole[1:]

    # RFC 6455, section 5.2 -------------------------------------------------------------------------------------------

    def _frame(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        self._out.append(0x80 | opcode)
        if length < 126:
            self._out.append(0x80 | length)
        elif length < 65536:
            self._out.append(0x80 | 126)
            self._out += length.to_bytes(2, "big")
        else:
            self._out.append(0x80 | 127)
            self._out += length.to_bytes(8, "big")
        key = os.urandom(4)
        self._out += key
        mask = (key * (length // 4 + 1))[:length]
        self._out += (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(length, "big")

    def _next(self) -> tuple[bool, int, bytes] | None:
        data = self._in
        if len(data) < 2:
            return None
        length, start = data[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(data) < start:
                return None
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            return None
        frame = bool(data[0] & 0x80), data[0] & 0x0F, bytes(data[start : start + length])
        del data[: start + length]
        return frame

    def _shake_hands(self, target: str) -> None:
        key = b2a_base64(os.urandom(16), newline=False).decode()
        head = (
            f"GET {target} HTTP/1.1",
            "Host: gorae",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        self.socket.sendall("\r\n".join((*head, "", "")).encode())
        lines = Lines(self.socket)
        first = lines.next(PATIENCE) or b""
        length = 0
        while line := (lines.next(PATIENCE) or b"").strip():
            if line[:15].lower() == b"content-length:":
                length = int(line[15:])
        if first.split(None, 2)[1:2] == [b"101"]:
            return
        self.socket.settimeout(PATIENCE)
        body = lines.exactly(length)
        try:
            raise from_document(light.loads(body)["error"])
        except (ValueError, KeyError, TypeError):
            text = f"{first.decode(errors='replace')} {body[:200].decode(errors='replace')}".strip()
            raise Permanent(
                f"cannot use the daemon's answer: {text}",
                code="bad-answer",
                hint="after an update: gorae daemon --stop && gorae daemon --detach (containers stay)",
            ) from None

    def _away(self, reason: str) -> Unreachable:
        return Unreachable(f"cannot go on: gorae at {self._path}: {reason}", code="daemon-away", hint="gorae doctor")


def outcome(kind: int, payload: bytes) -> int | None:
    """The exit code of a last message, None if there is none yet: it runs on. Raises the daemon's error."""
    document = light.loads(payload)
    if kind == ERROR:
        raise from_document(document)
    assert kind == RESULT
    code = document.get("exit_code")
    return None if code is None else int(code)


def write(fd: int, data: bytes) -> None:
    """All of it."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # somebody else's setting of a shared file or terminal
            select.select([], [fd], [])
