"""What the routes work with; main.py makes it once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from orchestrator.api.board import Board
from orchestrator.controller import Controller
from orchestrator.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Context:
    ledger: Ledger
    controller: Controller
    board: Board
    agent_socket: Path


async def context(request: Request) -> Context:
    found = request.app.state.context
    assert isinstance(found, Context)
    return found
