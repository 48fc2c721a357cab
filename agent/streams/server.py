"""The agent's unix socket: one-shot requests and streams, as agent/wire/streams.py documents them.

It works with orchestrator and broker down. Who connects is asked of the kernel: root, or the orchestrator's user.
A client that vanishes ends its request; nothing a client does ends the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from agent.kit.errors import GoraeError, Permanent, Temporary, UserError
from agent.ports import Images, ImageShelf, LogFiles, Logins, Logs, Rootfs, Surroundings
from agent.streams.connection import Connection
from agent.streams.images import ImageRequests
from agent.streams.requests import Conversation, Operation, Send, number, signal, text, texts
from agent.streams.usage import UsageRequests
from agent.streams.volumes import Both, Users, VolumeRequests
from agent.wire import batches
from agent.wire.messages import Listener, StackStatus
from agent.wire.streams import LIMIT

log = logging.getLogger("gorae.agent")

# Of one kind at a time: each costs descriptors, and one of stats some for each container. Others are over soon.
_LASTING = {"logs": 64, "attach": 64, "stats": 16}
_CONVERSATIONS = 256
_MALFORMED = (LookupError, TypeError, ValueError, OverflowError, RecursionError)
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))


class Agent(Users, Protocol):
    """What the server asks of the loops."""

    instance: str
    epoch: int
    version: str

    def statuses(self) -> Sequence[StackStatus]: ...

    def in_use(self) -> dict[str, str]:
        """Image id → who uses it."""

    async def listeners(self) -> Sequence[Listener]: ...

    async def adopt(self, store_id: str) -> None: ...

    async def kill(self, stack: str, services: Sequence[str], signal: int, cause: str | None) -> int: ...


class AllLogs(Logs, LogFiles, Protocol):
    pass


class StreamServer:
    def __init__(
        self,
        path: Path,
        agent: Agent,
        images: Images,
        shelf: ImageShelf,
        logins: Logins,
        logs: AllLogs,
        volumes: Both,
        rootfs: Rootfs,
        *,
        log_budget: int,
        inside: Mapping[str, Operation] | None = None,
        conversations: Mapping[str, Conversation] | None = None,
        surroundings: Callable[[], Awaitable[Surroundings]],
        uid: int,
        gid: int,
    ) -> None:
        """uid: the orchestrator's user, besides root. gid: the group that may connect at all. inside: what looks into
        running containers. conversations: what takes the connection over."""
        self._path = path
        self._agent, self._logs = agent, logs
        self._surroundings = surroundings
        self._uid, self._gid = uid, gid
        self._operations: dict[str, Operation] = {
            "ping": self._ping,
            "logs": self._read_logs,
            "status": self._status,
            "adopt": self._adopt,
            "kill": self._kill,
            "listeners": self._listeners,
            "surroundings": self._look_around,
            **VolumeRequests(volumes, agent).operations,
            **UsageRequests(agent, images, shelf, rootfs, volumes, logs, log_budget).operations,
            **ImageRequests(images, shelf, logins, agent.in_use).operations(),
            **(inside or {}),
        }
        self._conversations = dict(conversations or {})
        self._lasting: Counter[str] = Counter()  # that go on until somebody ends them, by operation

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen until the block ends; a socket file left by a killed agent is replaced."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        old = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(old)
        os.chown(self._path, 0 if os.geteuid() == 0 else -1, self._gid)
        self._path.chmod(0o660)
        server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LIMIT)
        try:
            async with server:
                yield
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Connection(reader, writer)
        try:
            if self._peer(writer) not in (0, self._uid):
                await client.send("error", _denied().document())
                return
            raw = await reader.readline()
            if raw:
                await self._answer(raw, client)
        except (ConnectionError, asyncio.LimitOverrunError, ValueError):
            return  # the client went away, or never meant to ask
        finally:
            await client.close()

    @staticmethod
    def _peer(writer: asyncio.StreamWriter) -> int:
        """The uid behind the connection, as the kernel saw it connect (unix(7), SO_PEERCRED)."""
        peer = writer.get_extra_info("socket")
        _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return int(uid)

    async def _answer(self, raw: bytes, client: Connection) -> None:
        try:
            request = json.loads(raw)
            name = str(request.get("op")) if isinstance(request, dict) else ""
        except (ValueError, RecursionError):
            name = ""
        if name not in self._operations and name not in self._conversations:
            unknown = Permanent("cannot do that: no such operation", code="bad-request")
            await client.send("error", unknown.document())
            return
        taking = name in self._conversations
        work = self._handle(name, request, client)
        if taking or request.get("follow", False):
            work = self._within_bounds(name, work, client)
        await self._until_gone(client.gone(taking=taking), work)

    async def _within_bounds(self, name: str, work: Coroutine[Any, Any, None], client: Connection) -> None:
        others = self._lasting[name]
        if others >= _LASTING.get(name, _CONVERSATIONS):
            work.close()
            await client.send("error", _too_many(name, others).document())
            return
        self._lasting[name] += 1
        try:
            await work
        finally:
            self._lasting[name] -= 1

    async def _until_gone(self, leaving: Any, work: Any) -> None:
        """Run `work` to its end, or until `leaving` returns."""
        request = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(leaving)
        try:
            await asyncio.wait({request, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (request, gone):
                task.cancel()
            results = await asyncio.gather(request, gone, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                raise result

    async def _handle(self, name: str, request: dict[str, Any], client: Connection) -> None:
        send = client.send
        try:
            if name in self._conversations:
                result = await self._conversations[name](request, client.take)
            else:
                result = await self._operations[name](request, send)
        except GoraeError as error:
            await send("error", error.document())
        except _MALFORMED as error:
            bad = Permanent(f"cannot understand the request: {type(error).__name__} {error}", code="bad-request")
            await send("error", bad.document())
        except ConnectionError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                await send("error", _disk_full().document())
            else:
                await self._met_a_bug(request, send)
        except Exception:
            await self._met_a_bug(request, send)
        else:
            await send("result", result)

    async def _met_a_bug(self, request: dict[str, Any], send: Send) -> None:
        """What one request met must not end the agent; it is logged whole, but not what was asked: it may hold a
        password."""
        log.exception("bug: a request at the agent's socket failed: %.40r", request.get("op"))
        bug = Permanent("cannot answer: the agent met a bug; its log has the details", code="bug")
        await send("error", bug.document())

    # Operations -------------------------------------------------------------------------------------------------

    async def _ping(self, request: dict[str, Any], send: Send) -> Any:
        agent = self._agent
        return {"version": agent.version, "instance": agent.instance, "epoch": agent.epoch}

    async def _read_logs(self, request: dict[str, Any], send: Send) -> Any:
        tail = request.get("tail")
        found = self._logs.read(
            text(request, "stack") if "stack" in request else None,
            texts(request, "services") if "services" in request else (),
            follow=bool(request.get("follow", False)),
            since=number(request, "since"),
            until=number(request, "until"),
            tail=None if tail is None else max(0, int(tail)),
            task=text(request, "task") if "task" in request else None,
            after=batches.places(text(request, "after")) if "after" in request else None,
        )
        async with contextlib.aclosing(found):
            async for parts in found:
                await send("batch", batches.encode(parts))
        return {}

    async def _status(self, request: dict[str, Any], send: Send) -> Any:
        return list(self._agent.statuses())

    async def _adopt(self, request: dict[str, Any], send: Send) -> Any:
        await self._agent.adopt(text(request, "store_id"))
        return {}

    async def _kill(self, request: dict[str, Any], send: Send) -> Any:
        sent = signal(str(request.get("signal") or "SIGKILL"))
        services = texts(request, "services") if "services" in request else ()
        cause = text(request, "cause") if "cause" in request else None
        return {"signalled": await self._agent.kill(text(request, "stack"), services, sent, cause)}

    async def _listeners(self, request: dict[str, Any], send: Send) -> Any:
        return list(await self._agent.listeners())

    async def _look_around(self, request: dict[str, Any], send: Send) -> Any:
        return dataclasses.asdict(await self._surroundings())


def _disk_full() -> UserError:
    return UserError(
        "cannot do that: no room is free on the disk of the agent's state directory",
        code="no-space",
        hint="make room: gorae df says what takes how much",
    )


def _too_many(name: str, others: int) -> Temporary:
    return Temporary(
        f"cannot begin another {name}: {others} others look already",
        code="too-many",
        hint="end some of them, then again; what does not follow is answered",
    )


def _denied() -> UserError:
    return UserError(
        "cannot use the agent's socket: only root and the orchestrator may", code="denied", hint="ask the API"
    )
