"""Files into and out of running containers, over the agent's socket (agent/wire/streams.py): bytes of a tar, handed on
between the client and a process inside the container (copy_child.py). A few buffers are all that is held here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.decide.record import TaskRecord
from agent.kit.errors import GoraeError, Permanent, UserError, from_document
from agent.ports import Process
from agent.runtime import pidfd
from agent.runtime.execs import Stream
from agent.runtime.spawn import Child, spawn
from agent.streams.execs import Agent, chosen
from agent.streams.requests import Conversation, Take, text
from agent.wire.frames import END, STDIN, STDOUT, Duplex

_SOURCES = Path(__file__).resolve().parents[2]
_LAST = 10.0  # seconds for the process to end once its bytes have
_TIDY = 1.0  # seconds between SIGTERM and SIGKILL: it takes away a file that is half there
_SAID = 64 * 1024
_KINDS = ("file", "directory", "content", "archive")


class CopyRequests:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.conversations: dict[str, Conversation] = {"copy-out": self._out, "copy-in": self._in}

    async def _out(self, request: dict[str, Any], take: Take) -> Any:
        record, process = chosen(self._agent, request, "copy from")
        spec = {"way": "out", "path": _path(request), "follow": bool(request.get("follow", False))}
        async with _inside(record, process, spec) as (stream, child):
            duplex = await take(_named(record))
            while data := await stream.read():
                await duplex.send(STDOUT, data)
            result = await child.ended()
            await duplex.send(END)
            return result

    async def _in(self, request: dict[str, Any], take: Take) -> Any:
        record, process = chosen(self._agent, request, "copy to")
        kind = request.get("source")
        if kind not in _KINDS:
            raise Permanent("cannot understand the request: source is no kind of source", code="bad-request")
        spec = {"way": "in", "path": _path(request), "source": kind, "name": str(request.get("name") or "")}
        if "/" in spec["name"] or spec["name"] in (".", ".."):
            raise Permanent("cannot understand the request: name is no name", code="bad-request")
        spec["archive"] = bool(request.get("archive", False))
        async with _inside(record, process, spec) as (stream, child):
            duplex = await take(_named(record))
            feeding = asyncio.ensure_future(_feed(duplex, stream))
            ending = asyncio.ensure_future(child.ended(None))
            try:
                # Whatever ends first: one that has refused reads no more of what is sent.
                await asyncio.wait({feeding, ending}, return_when=asyncio.FIRST_COMPLETED)
                if feeding.done():
                    feeding.result()
                return await ending
            finally:
                for task in (feeding, ending):
                    task.cancel()
                await asyncio.gather(feeding, ending, return_exceptions=True)


async def _feed(duplex: Duplex, stream: Stream) -> None:
    """What the client sends, to its END. Permanent cut-off: there was none."""
    try:
        while (frame := await duplex.receive()) is not None:
            if frame.kind == END:
                stream.close()
                return
            if frame.kind == STDIN:
                await stream.write(frame.payload)
    except BrokenPipeError:
        return  # the process has ended, and says why
    raise Permanent("cannot finish the copy: what was sent is cut off", code="cut-off")


class _Child:
    def __init__(self, child: Child, said: int, record: TaskRecord) -> None:
        self.child, self._said, self._record = child, said, record

    async def ended(self, timeout: float | None = _LAST) -> Any:
        """Its result; raises what it met."""
        code = await self.child.wait(timeout)
        try:
            document = json.loads(os.pread(self._said, _SAID, 0) or b"{}")
        except ValueError:
            document = {}
        if "error" in document:
            raise from_document(document["error"])
        if code != 0 or "result" not in document:
            what = f"{self._record.stack}/{self._record.service}"
            raise Permanent(f"cannot finish the copy: the process in {what} was ended", code="not-copied")
        return document["result"]


@asynccontextmanager
async def _inside(record: TaskRecord, process: Process, spec: dict[str, Any]) -> AsyncIterator[tuple[Stream, _Child]]:
    """The process, with a socket to it; ended with the block. UserError nothing-runs. By descriptor, as programs are: a
    transport of the loop's would take this socket for one of TCP."""
    container = pidfd.open_process(process.pid, process.start_ticks)
    if container is None:
        raise _ended(record)
    ours, theirs = socket.socketpair()
    stream = Stream(ours.detach())
    said = os.memfd_create("copy", os.MFD_CLOEXEC)
    child = None
    try:
        try:
            command = [sys.executable, "-S", "-P", "-m", "agent.streams.copy_child", str(container), json.dumps(spec)]
            environment = {"PYTHONPATH": str(_SOURCES), "PYTHONUTF8": "1"}
            end = theirs.fileno()
            child = spawn(command, env=environment, stdin=end, stdout=end, stderr=said, keep=(container,))
        except OSError as error:
            raise Permanent(f"cannot copy: {error.strerror}", code="not-copied") from error
        finally:
            theirs.close()
        yield stream, _Child(child, said, record)
    finally:
        if child is not None:
            if child.fd >= 0:
                pidfd.kill(child.fd, signal.SIGTERM)
                await child.wait(_TIDY)
            child.kill()
        stream.close()
        os.close(said)
        os.close(container)


def _path(request: dict[str, Any]) -> str:
    path = text(request, "path")
    if "\0" in path or len(path.encode(errors="surrogateescape")) > 4095:
        raise UserError("cannot copy: that is no path", code="bad-path", hint="4095 bytes at most, and no NUL")
    return path


def _named(record: TaskRecord) -> dict[str, Any]:
    return {"task": record.id, "service": record.service, "slot": record.slot}


def _ended(record: TaskRecord) -> GoraeError:
    return UserError(
        f"cannot copy from or to {record.stack}/{record.service}.{record.slot}: its container does not run",
        code="nothing-runs",
        hint=f"gorae start {record.stack}/{record.service}",
    )
