"""Bytes to and from a running container over one of the API's conversations: a blocking pipe, both ways, in which
neither end ever holds more than a few buffers."""

from __future__ import annotations

import json
import select
from collections import deque
from typing import Any

from agent.kit.errors import from_document
from agent.wire.kinds import END, ERROR, RESULT, STDIN, STDOUT
from orchestrator.cli.websocket import HIGH, WebSocket


class Pipe:
    """Raises the daemon's error, or Unreachable, once, from whichever method meets it. What is written after that is
    dropped: tarfile writes more on its way out, and nobody would ever take it."""

    def __init__(self, path: str, target: str, ask: dict[str, object]) -> None:
        """`path`: of the daemon's socket; `target`: of the route; `ask`: the first message."""
        self.socket = WebSocket(path, target, {key: value for key, value in ask.items() if value is not None})
        self._pieces: deque[bytes] = deque()
        self._over = self._failed = False
        self._result: dict[str, Any] | None = None
        try:
            self.socket.wait_ready()
            for kind, payload in self.socket.early():
                self._take(kind, payload)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def write(self, data: bytes) -> int:
        if not self._failed:
            self.socket.send(STDIN, bytes(data))
            self.socket.flush()
            while self.socket.waiting > HIGH:
                self._turn()
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes; b"" at the end."""
        while not self._pieces and not self._over:
            self._turn()
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        if 0 <= size < len(piece):
            self._pieces.appendleft(piece[size:])
            piece = piece[:size]
        return piece

    def finish(self, *, end: bool = False) -> dict[str, Any]:
        """The result. `end`: nothing more is written."""
        if end:
            self.socket.send(END)
        while self._result is None:
            self._turn()
        return self._result

    def _turn(self) -> None:
        """Whatever the connection lets go on; waits for it."""
        try:
            connection = self.socket.socket
            ready, _, _ = select.select([connection], [connection] if self.socket.waiting else [], [])
            self.socket.flush()  # not before: with nothing left to send, only an answer would end the wait
            for kind, payload in self.socket.receive() if ready else ():
                self._take(kind, payload)
                if kind == RESULT:
                    return  # the end of the connection may stand behind it
        except BaseException:
            self._failed = True
            raise

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == STDOUT:
            self._pieces.append(payload)
        elif kind in (END, RESULT):
            self._over = True
        if kind == RESULT:
            self._result = json.loads(payload)
        elif kind == ERROR:
            raise from_document(json.loads(payload))
