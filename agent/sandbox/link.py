"""The agent's side of the sandbox helper: starts it, asks it, notices its death."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.kit import threads
from agent.kit.errors import Temporary

_ROOT = Path(__file__).parents[2]  # where the packages lie: a clone, or a virtual environment's site-packages
_CODE = """import sys
sys.path.insert(0, sys.argv[1])
from agent.sandbox import helper
helper.main(*map(int, sys.argv[2:]))
"""


class Link(asyncio.Protocol):
    """One helper process. Once `alive` is False it stays so; the owner opens another."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.alive = True
        self._buffer = b""
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls) -> Link:
        """Start a helper. Call it from the event loop's own thread: the helper dies with the thread that started it."""
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  (a millisecond; the helper must be a child of this thread)
                [sys.executable, "-I", "-S", "-c", _CODE, str(_ROOT), str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                close_fds=True,
                start_new_session=True,  # a Ctrl-C at the terminal is for the agent to answer
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise Temporary(f"cannot start the sandbox helper: {error}", code="sandbox-helper") from error
        finally:
            theirs.close()
        link = cls(process)
        ours.setblocking(False)
        # From the result, not from connection_made(): uvloop calls that later.
        link._transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        return link

    async def ask(self, **request: Any) -> dict[str, Any]:
        """The helper's answer; Temporary sandbox-helper if it dies first, with the request done or not."""
        if not self.alive or self._transport is None:
            raise self._dead()
        self._count += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[self._count] = future
        self._transport.write(json.dumps({"id": self._count, **request}).encode() + b"\n")
        return await threads.finish(future)  # so that no late namespace appears after a cancelled call

    def close(self) -> None:
        """End the helper. It holds nothing that is not pinned."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            future = self._asked.pop(answer["id"], None)
            if future is not None and not future.done():  # done: the one who asked was cancelled
                future.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.alive = False
        self.process.kill()  # it ends by itself at the end of its socket; this is for one that hangs
        self.process.wait()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(self._dead())
        self._asked.clear()

    def _dead(self) -> Temporary:
        return Temporary("cannot make namespaces: the sandbox helper ended", code="sandbox-helper")
