"""The API's socket and the HTTP server on it.

The socket is made here, 0660, and handed to uvicorn: what it makes itself is 0666. uvicorn's own signal handling and
its ten wake-ups a second are switched off: main.py says when to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from agent.kit.errors import UserError
from orchestrator.api.peer import PeerProtocol

GROUP = "gorae"  # its members are as good as root, as with docker
MESSAGE = 1 << 20  # bytes of a WebSocket's message
GRACE = 1  # seconds that streams get to end
_BACKLOG = 512


def bind(path: Path) -> socket.socket:
    """A listening unix socket at `path`, 0660, of group gorae where there is one. Takes the place of a stale one."""
    beside = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o117)
    try:
        listener.bind(str(beside))
        with contextlib.suppress(KeyError, PermissionError):  # no such group, or we are in it alone already
            os.chown(beside, -1, grp.getgrnam(GROUP).gr_gid)
        listener.listen(_BACKLOG)
        beside.rename(path)  # nobody ever sees it missing, or with other rights
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on {path}: {error.strerror or error}",
            code="api-socket",
            hint="is the directory there, owned by user gorae, and the path under 108 bytes?",
        ) from error
    finally:
        os.umask(mask)
    return listener


class Server(uvicorn.Server):
    """Runs until `stop` is set."""

    def __init__(self, app: FastAPI, stop: asyncio.Event) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PeerProtocol,
                ws="wsproto",
                ws_max_size=MESSAGE,
                ws_ping_interval=None,  # a socket of this host tells by itself when its peer is gone
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._stop = stop

    async def main_loop(self) -> None:
        await self._stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
