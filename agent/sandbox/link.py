"""The agent's side of the sandbox helper: starts it, asks it, notices its death."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.kit.errors import Temporary
from agent.sandbox.helper import MESSAGE

_ROOT = Path(__file__).parents[2]  # where the packages lie: a clone, or a virtual environment's site-packages
_CODE = """import sys
sys.path.insert(0, sys.argv[1])
from agent.sandbox import helper
helper.main(*map(int, sys.argv[2:]))
"""


class Link:
    """One helper process. Once `alive` is False it stays so; the owner opens another."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self.process = process
        self.alive = True
        self._socket = ours
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive)

    @classmethod
    def open(cls) -> Link:
        """Start a helper. Call it from the event loop's own thread: the helper dies with the thread that started it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = subprocess.Popen(  # a millisecond; the helper must be a child of this thread
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
        ours.setblocking(False)
        return cls(process, ours)

    def ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """The question's number, and its answer to come: Temporary sandbox-helper if the helper dies first, with the
        request done or not. `fds` stay the caller's, who may close them at once."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if not self.alive:
            future.set_exception(_dead())
            return 0, future
        self._count += 1
        self._asked[self._count] = future
        self._send({"id": self._count, **request}, fds)
        return self._count, future

    def kill(self, question: int) -> None:
        """The program that was asked for, if it has not ended."""
        if self.alive and question in self._asked:
            self._send({"kill": question})

    def close(self) -> None:
        """End the helper. It holds nothing that is not pinned; programs that it has begun end with it."""
        if not self.alive:
            return
        self.alive = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
        self.process.kill()  # it ends by itself at the end of its socket; this is for one that hangs
        self.process.wait()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(_dead())
        self._asked.clear()

    def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        self._unsent.append((json.dumps(message).encode(), [os.dup(fd) for fd in fds]))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                socket.send_fds(self._socket, [data], fds)
            except BlockingIOError:
                loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:  # it is dead: the end of the socket comes next
                pass
            for fd in fds:
                os.close(fd)
            self._unsent.popleft()
        loop.remove_writer(self._socket.fileno())

    def _receive(self) -> None:
        try:
            data = self._socket.recv(MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        answer = json.loads(data)
        future = self._asked.pop(answer["id"], None)
        if future is not None and not future.done():  # done: the one who asked was cancelled
            future.set_result(answer)


class Helper:
    """The helper process, begun when it is first needed, and anew when it has died."""

    def __init__(self) -> None:
        self.link: Link | None = None

    def ready(self) -> Link:
        """Temporary sandbox-helper: it cannot be started."""
        if self.link is None or not self.link.alive:
            self.link = Link.open()
        return self.link

    def close(self) -> None:
        if self.link is not None:
            self.link.close()


def _dead() -> Temporary:
    return Temporary("cannot ask the sandbox helper: it has ended", code="sandbox-helper")
