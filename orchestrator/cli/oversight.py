"""The full-screen view, alive: one thread asks the daemon, once a second; the other draws and takes keys. A daemon that
goes away is waited for."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from agent.kit.errors import GoraeError, UserError
from orchestrator.cli.client import Client
from orchestrator.cli.fullscreen import FullScreen, opened
from orchestrator.cli.overseeing import View, frame, tree
from orchestrator.cli.render import Screen

AGAIN = 1.0  # seconds between tries to reach the daemon


@dataclass
class _Known:
    """What was said last. Each field is replaced as a whole, by the asking thread alone."""

    documents: tuple[dict[str, Any], dict[str, Any]] | None = None  # status, stats
    note: str = ""
    over: threading.Event = field(default_factory=threading.Event)


def run(client: Client) -> int:
    """Until the user has seen enough. UserError no-terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "cannot draw a full screen: this is no terminal",
            code="no-terminal",
            hint="gorae stats --no-stream; gorae top SERVICE",
        )
    known = _Known(documents=_ask(client))  # fails at once where there is nobody to ask
    with opened(sys.stdin.fileno()) as screen:
        asking = threading.Thread(target=_keep_asking, args=(client, known, screen), daemon=True)
        asking.start()
        try:
            _show(screen, known)
        except (KeyboardInterrupt, EOFError):
            pass  # the usual ends
        finally:
            known.over.set()
    return 0


def _show(screen: FullScreen, known: _Known) -> None:
    paint, view = Screen().paint, View()
    while True:
        width, height = screen.size()
        assert known.documents is not None
        screen.draw(frame(*known.documents, view, width, height, paint, known.note))
        rows = len(tree(*known.documents, view.sort))
        for key in screen.pressed():
            if key in ("q", "escape"):
                return
            view = view.pressed(key, rows, height)


def _keep_asking(client: Client, known: _Known, screen: FullScreen) -> None:
    while not known.over.is_set():
        try:
            with client.stream("GET", "/v1/stats", follow=True) as stats:
                for document in stats:
                    known.documents = client.get("/v1/status"), document
                    known.note = ""
                    screen.wake()
                    if known.over.is_set():
                        return
            raise client.ended()
        except GoraeError as error:
            known.note = f"{error.message}; trying again"
            screen.wake()
        known.over.wait(AGAIN)


def _ask(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
    with client.stream("GET", "/v1/stats") as stats:
        return client.get("/v1/status"), stats.next()
