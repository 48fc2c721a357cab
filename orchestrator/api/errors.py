"""Errors as HTTP answers: {"error": {kind, code, message, hint, evidence}} with a status that says whose turn it is."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.kit.errors import GoraeError, Temporary, UserError

log = logging.getLogger(__name__)

BODY_LIMIT = 8 * 1024 * 1024  # bytes
_DRAIN = 8 * BODY_LIMIT  # bytes of a refused body that are read: answered in the middle, the client sees a reset
_CONFLICTS = (
    "no-room",
    "port-",
    "memory-",
    "cpu-",
    "stack-removing",
    "not-adopted",
    "host-drained",
    "changed",
    "image-in-use",
    "volume-in-use",
    "volume-exists",
    "volume-differs",
)


def http_status(error: GoraeError) -> int:
    """404 unknown, 409 in conflict with what is there, 400 the asker's, 503 may work later, 500 ours."""
    if error.code.endswith("-unknown") or error.code == "image-missing":
        return 404
    if error.code.startswith(_CONFLICTS):
        return 409
    if isinstance(error, UserError):
        return 413 if error.code == "body-too-large" else 400
    return 503 if isinstance(error, Temporary) else 500


def document(error: BaseException) -> dict[str, Any]:
    """{"error": …}. What is not ours is a bug: logged with its trace, told without it."""
    if not isinstance(error, GoraeError):
        log.error("a request failed", exc_info=error)
        error = GoraeError(
            f"cannot finish the request: {type(error).__name__} in gorae-orchestrator",
            code="internal",
            hint="the log of gorae-orchestrator has the details; please report it",
        )
    return {"error": error.document()}


# A command line that was updated while the daemons were not asks what they do not know.
_HINT = "docs/api.md; after an update, gorae daemon --stop && gorae daemon --detach (containers stay)"


def install(app: FastAPI) -> None:
    app.add_exception_handler(GoraeError, _gorae)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _gorae)
    app.add_middleware(LimitBody)


async def _gorae(request: Request, error: Exception) -> Response:
    status = http_status(error) if isinstance(error, GoraeError) else 500
    return JSONResponse(document(error), status)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    problem = UserError(
        f"cannot read the request: {where or first['loc'][0]}: {first['msg']}",
        code="bad-request",
        hint=_HINT,
        problems=[{"at": list(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()[:20]],
    )
    return JSONResponse(document(problem), 400)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "path-unknown", 405: "method-unknown"}.get(error.status_code, "bad-request")
    problem = UserError(
        f"cannot {request.method} {request.url.path}: {str(error.detail).lower()}", code=code, hint=_HINT
    )
    return JSONResponse(document(problem), error.status_code)


class LimitBody:
    """Refuse bodies over BODY_LIMIT, announced or not, before anything parses them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > BODY_LIMIT:
            await self._refuse(receive, send)
            return
        taken = 0
        started = False

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > BODY_LIMIT:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, limited, watched)
        except _TooLarge:
            if not started:
                await self._refuse(receive, send)

    async def _refuse(self, receive: Receive, send: Send) -> None:
        drained, more = 0, True
        while more and drained < _DRAIN:
            message = await receive()
            drained += len(message.get("body", b""))
            more = bool(message.get("more_body"))
        error = UserError(
            f"cannot take the request: its body is over {BODY_LIMIT >> 20} MiB", code="body-too-large", hint="send less"
        )
        body = json.dumps(document(error)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})


class _TooLarge(BaseException):
    """Passes every `except Exception` between the body and LimitBody; never leaves this module."""
