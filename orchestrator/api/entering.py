"""Into running containers, over WebSockets (RFC 6455): the agent's frames, relayed both ways (agent/wire/frames.py).

The asker's first message is JSON, as the route's body says; the first answer is {"ready": {task, service, slot,
attempt}}. From then on a message is one byte of kind and the payload, as a frame without its length. The last one is a
RESULT, {"exit_code"}, or an ERROR, which may also come first; then the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter
from pydantic import Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent.kit.errors import GoraeError, Temporary, UserError
from agent.kit.hangup import HangUp
from agent.kit.masking import masked
from agent.wire.frames import DETACH, END, ERROR, RESIZE, RESULT, SIGNAL, STDIN, Duplex, Frame
from agent.wire.streams import converse
from orchestrator.api.context import Context
from orchestrator.api.errors import document
from orchestrator.api.stacks import Body
from orchestrator.applying import Peer
from orchestrator.store.port import Change

router = APIRouter(prefix="/v1")
FROM_CLIENT = frozenset({STDIN, END, RESIZE, SIGNAL, DETACH})
FIRST = 10.0  # seconds for the first message
_Asked = TypeVar("_Asked", bound=Body)
Number = Annotated[int, Field(ge=0, le=65535)]


class ExecBody(Body):
    """Without `tty` its stdout and stderr come apart. `slot`: of the service's containers, else the first that runs.
    `detach`: it is begun, and left alone; exit_code is null then."""

    command: tuple[str, ...] = Field(min_length=1)
    slot: int | None = Field(default=None, ge=1)
    user: str | None = None
    working_dir: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    tty: bool = False
    size: tuple[Number, Number] = (0, 0)
    stdin: bool = False
    detach: bool = False


class AttachBody(Body):
    """`slot`: of the service's containers, else the first that runs. `wait`: for one that is only coming; what is
    `attended` (the run route) begins then. `size`: of its terminal."""

    slot: int | None = Field(default=None, ge=1)
    wait: bool = False
    size: tuple[Number, Number] = (0, 0)


# Path → what its first message is; `openapi.py` tells of them.
BODIES: dict[str, type[Body]] = {
    "/v1/stacks/{name}/services/{service}/exec": ExecBody,
    "/v1/stacks/{name}/services/{service}/attach": AttachBody,
}


@router.websocket("/stacks/{name}/services/{service}/exec")
async def exec_(socket: WebSocket, name: str, service: str) -> None:
    """Run a command in a running container. A client that closes ends it: SIGHUP, then SIGKILL."""

    async def enter(body: ExecBody) -> None:
        words = masked({"command": [word[:500] for word in body.command[:50]]})["command"]
        about = {"command": words, "tty": body.tty, "user": body.user}
        await _enter(socket, "exec", name, service, body, " ".join(words)[:200], about)

    await serve(socket, ExecBody, enter)


@router.websocket("/stacks/{name}/services/{service}/attach")
async def attach(socket: WebSocket, name: str, service: str) -> None:
    """The streams of the container's own program, from now on. It runs on when the client leaves."""

    async def enter(body: AttachBody) -> None:
        await _enter(socket, "attach", name, service, body, service, {})

    await serve(socket, AttachBody, enter)


async def serve(socket: WebSocket, kind: type[_Asked], enter: Callable[[_Asked], Awaitable[None]]) -> None:
    """`enter` with what was asked; its error is the last message. Whatever happens, the connection is closed."""
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # starlette's words for a client that is gone
        try:
            await enter(await _asked(socket, kind))
        except WebSocketDisconnect:
            return
        except Exception as error:  # a bug too must end it with an error
            await _send(socket, ERROR, json.dumps(document(error)["error"]).encode())
        await socket.close()


async def _asked(socket: WebSocket, kind: type[_Asked]) -> _Asked:
    try:
        async with asyncio.timeout(FIRST):
            text = await socket.receive_text()
        return kind.model_validate_json(text)
    except TimeoutError:
        raise Temporary(f"cannot wait any longer: no request came within {FIRST:g} s", code="too-slow") from None
    except (ValidationError, KeyError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "it is no text"}
        where = ".".join(str(part) for part in first["loc"]) or "the first message"
        raise UserError(
            f"cannot read the request: {where}: {first['msg']}", code="bad-request", hint="docs/api.md"
        ) from None


async def _enter(
    socket: WebSocket, op: str, name: str, service: str, body: Body, what: str, about: dict[str, Any]
) -> None:
    """One operation of the agent's, relayed, with an event for its beginning and one for its end. Neither keeps the
    program waiting for the disk."""
    here: Context = socket.app.state.context
    here.board.status(name, [service])  # raises stack-unknown or service-unknown
    who: Peer = socket.state.peer
    fields: dict[str, Any] = {"stack": name, "service": service, "slot": getattr(body, "slot", None), "reason": "user"}
    evidence = {"uid": who.uid, "verb": op, **about}
    text = f"{op}: {what} (by uid {who.uid})"
    begun = here.ledger.event(f"user.{op}", text, evidence=evidence, **fields)
    writing = asyncio.create_task(here.ledger.commit(Change(events=[begun])))
    end: dict[str, Any] = {"exit_code": None, "why": "the client left"}
    try:
        asked = body.model_dump(exclude_none=True)
        async with converse(here.agent_socket, op, stack=name, service=service, **asked) as (ready, duplex):
            await socket.send_text(json.dumps({"ready": ready}))
            if (last := await relay(socket, duplex)) is not None:
                end = _told(last)
    except GoraeError as error:
        end = {"exit_code": None, "why": error.message, "code": error.code}
        raise
    finally:
        await writing
        code = end["exit_code"]
        how = end.get("why") or ("it runs on" if code is None else f"exit {code}")
        ended = here.ledger.event(
            f"user.{op}-ended", f"{op} ended: {how}", cause=begun.id, evidence=evidence | end, **fields
        )
        await here.ledger.commit(Change(events=[ended]))


def _told(last: Frame) -> dict[str, Any]:
    found = last.document()
    if last.kind == RESULT:
        return {"exit_code": found.get("exit_code")}
    return {"exit_code": None, "why": found.get("message"), "code": found.get("code")}


async def relay(socket: WebSocket, duplex: Duplex) -> Frame | None:
    """Both ways, until the agent's last frame; None: the client has gone."""
    gone = asyncio.Event()
    watch = HangUp(socket.state.connection.fileno(), gone.set)
    down = asyncio.create_task(_down(socket, duplex))
    others = [asyncio.create_task(_up(socket, duplex)), asyncio.create_task(gone.wait())]
    try:
        await asyncio.wait([down, *others], return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.close()
        for task in (down, *others):
            task.cancel()
        results = await asyncio.gather(down, *others, return_exceptions=True)
    for result in results:
        if isinstance(result, GoraeError):
            raise result
    return results[0] if isinstance(results[0], Frame) else None


async def _down(socket: WebSocket, duplex: Duplex) -> Frame:
    while (frame := await duplex.receive()) is not None:
        await _send(socket, *frame)
        if frame.kind in (RESULT, ERROR):
            return frame
    raise Temporary("cannot go on: the agent ended the connection", code="agent-away", hint="gorae doctor")


async def _up(socket: WebSocket, duplex: Duplex) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or b""
        if not data or data[0] not in FROM_CLIENT:
            raise UserError(
                "cannot read a message: it is not bytes that begin with a kind", code="bad-request", hint="docs/api.md"
            )
        await duplex.send(data[0], data[1:])


async def _send(socket: WebSocket, kind: int, payload: bytes) -> None:
    await socket.send_bytes(bytes((kind,)) + payload)
