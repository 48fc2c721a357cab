"""Commands that people run in containers, over the agent's socket (agent/wire/streams.py): frames to and from a
program's streams or terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from difflib import get_close_matches
from typing import Any, Protocol

from agent.attendance import Attendance
from agent.decide.execs import Wanted, process_spec
from agent.decide.oci_config import STDIN
from agent.decide.record import TaskRecord
from agent.kit.errors import GoraeError, Temporary, UserError, leaf
from agent.kit.layout import Layout
from agent.ports import Process, Rootfs, Runtime
from agent.runtime.attach import Attached
from agent.runtime.execs import Execs, Execution, Stream
from agent.streams.requests import Conversation, Take, labels, signal, text, texts
from agent.wire import frames
from agent.wire.frames import Duplex, Frame

LINGER = 0.5  # seconds that nothing is written after the program's end, while something it left holds its output open
_MOST_HELD = 4096  # bytes
_END_OF_TYPING = b"\x04"  # what a terminal takes for the end of input (termios(3), VEOF)


class Agent(Protocol):
    def records(self, stack: str | None = None, services: Collection[str] = ()) -> Sequence[TaskRecord]: ...

    def live(self, stack: str | None = None, services: Collection[str] = ()) -> Sequence[TaskRecord]:
        """Those that have a process."""


class ExecRequests:
    def __init__(
        self, layout: Layout, execs: Execs, agent: Agent, rootfs: Rootfs, runtime: Runtime, attendance: Attendance
    ) -> None:
        self._layout, self._execs, self._agent = layout, execs, agent
        self._rootfs, self._runtime, self._attendance = rootfs, runtime, attendance
        self._left: set[asyncio.Task[None]] = set()  # what runs on without those who began it
        self.conversations: dict[str, Conversation] = {"exec": self._exec, "attach": self._attach}

    async def _exec(self, request: dict[str, Any], take: Take) -> Any:
        wanted = _wanted(request)
        record, process = chosen(self._agent, request, "run a command in")
        ids = None if wanted.user is None else await self._rootfs.user(record.id, wanted.user)
        spec = process_spec(self._execs.config(record.id, record.attempt), wanted, ids)
        name = f"{record.stack}/{record.service}"
        about = _about(record)
        if request.get("detach", False):
            await self._execs.detach(record.id, record.attempt, process, spec, name)
            await take(about)
            return {"exit_code": None}
        stdin = bool(request.get("stdin", False))
        async with AsyncExitStack() as stack:
            running = self._execs.running(record.id, record.attempt, process, spec, name, stdin=stdin)
            execution = await stack.enter_async_context(running)
            duplex = await take(about)
            try:
                return {"exit_code": await _converse(duplex, execution, tty=wanted.tty)}
            except BaseExceptionGroup as group:
                if not isinstance(error := leaf(group), _Detached):
                    raise error from None
            left = asyncio.create_task(_leave(stack.pop_all(), execution))
            self._left.add(left)
            left.add_done_callback(self._left.discard)
            return {"exit_code": None}

    async def _attach(self, request: dict[str, Any], take: Take) -> Any:
        if request.get("wait", False):
            record, process = await self._coming(text(request, "stack"), text(request, "service"))
        else:
            record, process = chosen(self._agent, request, "attach to")
        config = self._execs.config(record.id, record.attempt)
        tty, stdin = bool(config["process"]["terminal"]), STDIN in config["annotations"]
        theirs = stdin and not tty and config["annotations"][STDIN] == "theirs"
        attached = Attached(self._layout, record.id, record.attempt, patient=record.ending.once)
        ended = asyncio.create_task(self._runtime.wait(record.id, record.attempt, process))
        try:
            duplex = await take({**_about(record), "tty": tty, "stdin": stdin})
            if tty and all(size := _size(request)):
                attached.resize(*size)
            self._attendance.release(record.id)

            async def forward(number: int) -> None:
                await self._runtime.signal(record.id, record.attempt, process, number)

            try:
                async with asyncio.TaskGroup() as group:
                    feeding = group.create_task(_feed_attached(duplex, attached, forward, stdin=stdin, ends=theirs))
                    while (read := await attached.read()) is not None:
                        errors, data = read
                        await duplex.send(frames.STDERR if errors else frames.STDOUT, data)
                    feeding.cancel()
            except BaseExceptionGroup as group_:
                if isinstance(error := leaf(group_), _Detached):
                    return {"exit_code": None}
                raise error from None
            return {"exit_code": self._code(record, (await ended).code)}
        finally:
            attached.close()
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _coming(self, stack: str, service: str) -> tuple[TaskRecord, Process]:
        """The service's only task, as soon as somebody may attach to it; what hinders it from starting is raised."""
        with self._attendance.watching(stack, service) as bell:
            while True:
                bell.clear()
                for record in self._agent.records(stack, [service]):
                    process = self._attendance.held(record.id) or record.process
                    if process is not None:
                        return record, process
                    if record.state not in ("pending", "preparing", "starting"):
                        code = str(record.evidence.get("code") or "nothing-runs")
                        hint = str(record.evidence.get("hint") or "gorae events")
                        said = record.message or f"cannot attach to {stack}/{service}: it is {record.state}"
                        raise Temporary(said, code=code, hint=hint)
                await bell.wait()

    def _code(self, record: TaskRecord, found: int | None) -> int | None:
        """The worker, which waits for the same end, may have put conmon's note of it away already."""
        if found is not None:
            return found
        exits = (now.exit for now in self._agent.records(record.stack) if now.id == record.id)
        return next((exit_.code for exit_ in exits if exit_ is not None), None)


async def _feed_attached(
    duplex: Duplex, attached: Attached, forward: Callable[[int], Awaitable[None]], *, stdin: bool, ends: bool
) -> None:
    """`ends`: its input ends with what it is sent."""
    while (frame := await duplex.receive()) is not None:
        match frame:
            case Frame(frames.STDIN, payload) if stdin:
                await attached.write(payload)
            case Frame(frames.END) if ends:
                attached.end()
            case Frame(frames.RESIZE):
                attached.resize(*frame.size())
            case Frame(frames.SIGNAL, payload):
                await forward(signal(payload.decode(errors="replace")))
            case Frame(frames.DETACH):
                raise _Detached


def _about(record: TaskRecord) -> dict[str, Any]:
    return {"task": record.id, "service": record.service, "slot": record.slot, "attempt": record.attempt}


class _Detached(Exception):
    """The client has left, and the program is to run on."""


async def _leave(stack: AsyncExitStack, execution: Execution) -> None:
    """It runs on, and what it writes is lost."""

    async def drop(stream: Stream | None) -> None:
        while stream is not None and await stream.read():
            pass

    async with stack:
        drops = [asyncio.create_task(drop(stream)) for stream in (execution.stdout, execution.stderr)]
        try:
            with suppress(GoraeError):
                await execution.wait()
        finally:
            for task in drops:
                task.cancel()
            await asyncio.gather(*drops, return_exceptions=True)


async def _converse(duplex: Duplex, execution: Execution, *, tty: bool) -> int:
    """Everything it writes has been sent when it returns its exit status."""
    streams = [(execution.stdout, frames.STDOUT), *(() if tty else ((execution.stderr, frames.STDERR),))]
    held = _Held(duplex, execution, streams[-1][1])
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(_feed(duplex, execution, tty=tty))
        outputs = {
            group.create_task(_drain(held, stream, kind)): stream for stream, kind in streams if stream is not None
        }
        code = await execution.wait()
        await _settle(outputs)
        feeding.cancel()
        for task in outputs:
            task.cancel()
    await held.release()
    return code


class _Held:
    """What crun writes before the program begins is held back: where it does not begin, our own error says it."""

    def __init__(self, duplex: Duplex, execution: Execution, kind: int) -> None:
        """`kind`: of the stream on which crun speaks."""
        self._duplex, self._execution, self._kind = duplex, execution, kind
        self._data: bytes | None = b""  # None: the program has begun

    async def send(self, kind: int, data: bytes) -> None:
        if kind == self._kind and self._data is not None:
            self._data += data
            if len(self._data) < _MOST_HELD and not self._execution.begun():
                return
            await self.release()
        else:
            await self._duplex.send(kind, data)

    async def release(self) -> None:
        data, self._data = self._data, None
        if data:
            await self._duplex.send(self._kind, data)


async def _feed(duplex: Duplex, execution: Execution, *, tty: bool) -> None:
    while (frame := await duplex.receive()) is not None:
        match frame:
            case Frame(frames.STDIN, payload) if execution.stdin is not None:
                await _write(execution.stdin, payload)
            case Frame(frames.END) if execution.stdin is not None and tty:
                await _write(execution.stdin, _END_OF_TYPING)
            case Frame(frames.END) if execution.stdin is not None:
                execution.stdin.close()
            case Frame(frames.RESIZE) if tty and execution.stdout is not None:
                execution.stdout.resize(*frame.size())
            case Frame(frames.DETACH):
                raise _Detached
            case Frame(frames.SIGNAL, payload):
                execution.signal(signal(payload.decode(errors="replace")))


async def _write(stream: Stream, data: bytes) -> None:
    with suppress(BrokenPipeError):  # it reads no more: what comes is dropped
        await stream.write(data)


async def _drain(held: _Held, stream: Stream, kind: int) -> None:
    while data := await stream.read():
        await held.send(kind, data)


async def _settle(outputs: dict[asyncio.Task[None], Stream]) -> None:
    """Until all is read. What the program left in the background may keep its output open for ever; but as long as
    there is something to read, or a slow client has yet to take it, it is waited for."""
    pending = set(outputs)
    while pending:
        before = [outputs[task].count for task in pending]
        idle = all(outputs[task].waiting for task in pending)
        _, left = await asyncio.wait(pending, timeout=LINGER)
        if idle and left == pending and before == [outputs[task].count for task in pending]:
            return
        pending = left


def chosen(agent: Agent, request: dict[str, Any], what: str) -> tuple[TaskRecord, Process]:
    """The task that is meant: of the slot that is named, else the first that runs. UserError service-unknown,
    nothing-runs, paused."""
    stack, service = text(request, "stack"), text(request, "service")
    slot = None if request.get("slot") is None else int(request["slot"])
    known = agent.records(stack)
    if not any(record.service == service for record in known):
        raise _unknown(stack, service, {record.service for record in known})
    live = sorted(agent.live(stack, [service]), key=lambda r: (r.state != "running", r.slot, r.id))
    name = f"{stack}/{service}" + ("" if slot is None else f".{slot}")
    for record in live:
        if record.process is None or slot not in (None, record.slot):
            continue
        if record.paused:
            raise UserError(
                f"cannot {what} {name}: it is paused", code="paused", hint=f"gorae unpause {stack}/{service}"
            )
        return record, record.process
    raise UserError(
        f"cannot {what} {name}: no container runs", code="nothing-runs", hint=f"gorae status {stack} says why"
    )


def _unknown(stack: str, service: str, known: set[str]) -> UserError:
    near = get_close_matches(service, known, 1)
    hint = f"is it {near[0]}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
    return UserError(f"cannot find service {service} in stack {stack}", code="service-unknown", hint=hint)


def _wanted(request: dict[str, Any]) -> Wanted:
    return Wanted(
        command=tuple(texts(request, "command")),
        user=text(request, "user") if request.get("user") is not None else None,
        working_dir=text(request, "working_dir") if request.get("working_dir") is not None else None,
        environment=labels(request, "environment"),
        tty=bool(request.get("tty", False)),
        size=_size(request),
    )


def _size(request: dict[str, Any]) -> tuple[int, int]:
    """Rows, columns."""
    rows, columns = request.get("size") or (0, 0)
    return int(rows), int(columns)
