"""The HTTP application (docs/api.md). Routes decide nothing: they read the board and call the controller."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastapi import FastAPI

from agent.kit.version import VERSION
from orchestrator.api import (
    entering,
    errors,
    host,
    images,
    inside,
    inspect,
    logs,
    reaching,
    revisions,
    stacks,
    upgrades,
    volumes,
)
from orchestrator.api.board import Board
from orchestrator.api.context import Context
from orchestrator.controller import Controller
from orchestrator.store.ledger import Ledger

# The first that matches answers: revisions' own words come before the route of any verb.
ROUTERS = tuple(
    module.router for module in (revisions, stacks, volumes, host, logs, images, inside, inspect, entering, reaching)
)


def create(ledger: Ledger, controller: Controller, agent_socket: Path) -> FastAPI:
    app = FastAPI(
        title="gorae",
        version=VERSION,
        description="On a unix socket. Errors are {error: {kind, code, message, hint, evidence}}.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = Context(ledger, controller, Board(ledger), agent_socket)
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.openapi = partial(upgrades.whole, app)  # type: ignore[method-assign]
    return app
