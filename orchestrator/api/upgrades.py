"""OpenAPI has no words for WebSockets: their routes appear as the GET that is upgraded, with the schema of the first
message as `x-first-message`; docs/api.md has the rest."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from orchestrator.api import entering, reaching


def whole(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, WebSockets included."""
    found = FastAPI.openapi(app)
    for route in (*entering.router.routes, *reaching.router.routes):
        assert isinstance(route, WebSocketRoute)
        found["paths"][route.path] = {"get": _upgraded(route)}
    return found


def _upgraded(route: WebSocketRoute) -> dict[str, Any]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    return {
        "summary": route.name.strip("_").title(),
        "description": (route.endpoint.__doc__ or "").strip(),
        "operationId": route.name.strip("_"),
        "parameters": [{"in": "path", "name": name, "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {"101": {"description": "a WebSocket; docs/api.md, Into a container"}},
        "x-first-message": (entering.BODIES | reaching.BODIES)[route.path].model_json_schema(),
    }
