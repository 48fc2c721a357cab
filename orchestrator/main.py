"""gorae-orchestrator: `python -m orchestrator.main [--root DIR]`. The only place that wires concrete parts together.

It needs no privileges; the supervisor starts it as user gorae, owner of the orchestrator's directory and the API's.
Killing it touches no container.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from agent.kit import settings
from agent.kit.clock import RealClock
from agent.kit.errors import GoraeError, UserError
from agent.kit.layout import Layout
from agent.kit.lock import own
from agent.wire.bus import Bus
from agent.wire.mqtt import MqttBus
from orchestrator import keeping
from orchestrator.api import app
from orchestrator.api.server import Server, bind
from orchestrator.controller import Controller
from orchestrator.link import Link
from orchestrator.rolling import Rolling
from orchestrator.store.ledger import Ledger
from orchestrator.store.sqlite import SqliteStore

log = logging.getLogger("orchestrator")


def main() -> int:
    parser = argparse.ArgumentParser(prog="gorae-orchestrator", description="Decides what should run on this host.")
    parser.add_argument("--root", metavar="DIR", help="keep all state, sockets and configuration below DIR")
    layout = Layout.at(parser.parse_args().root)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    os.umask(0o077)
    try:
        lock = hold(layout.orchestrator_dir / "lock")
        bus = MqttBus(layout.bus_socket, "orchestrator", layout.bus_dir / "orchestrator.pw")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(layout, bus, signals=True))
        os.close(lock)
    except GoraeError as error:
        print(f"gorae-orchestrator: {error.message}" + (f"\ntry  {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


def hold(path: Path) -> int:
    """The lock that is held for life; UserError already-running names who holds it."""
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"cannot start the orchestrator: {path}: {error.strerror}",
            code="state-unusable",
            hint="gorae daemon makes its directories; start that",
        ) from error
    return own(lock, "the orchestrator", path.parent)


async def serve(layout: Layout, bus: Bus, *, signals: bool = False, stop: asyncio.Event | None = None) -> None:
    """Start, run until `stop` (or SIGTERM, SIGINT), end in reverse order."""
    stop = stop or asyncio.Event()
    if signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    limits = keeping.Limits(**settings.read(layout.settings).get("gc", {}))
    address = settings.default_address(layout.settings)
    store = await SqliteStore.open(layout.database)
    try:
        ledger = await Ledger.open(store, RealClock())
        controller = Controller(ledger, layout.agent_socket, default_address=address)
        server = Server(app.create(ledger, controller, layout.agent_socket), stop)
        listener = bind(layout.api_socket)
        gc.freeze()  # what start-up made stays: no collection walks it again
        async with asyncio.TaskGroup() as group:
            linking = group.create_task(Link(ledger, bus).run(), name="link")
            advancing = group.create_task(Rolling(ledger, controller.have_images).run(), name="rolling")
            rooming = group.create_task(keeping.keep_room(ledger, layout.agent_socket, limits), name="keep room")
            ending = group.create_task(_close(ledger, stop), name="close")
            log.info("serving on %s, store %s", layout.api_socket, ledger.identity.store_id)
            await server.serve(sockets=[listener])
            linking.cancel()
            advancing.cancel()
            rooming.cancel()
            await ending
    finally:
        await store.close()


async def _close(ledger: Ledger, stop: asyncio.Event) -> None:
    """Streams end before the server waits for them."""
    await stop.wait()
    ledger.close()


if __name__ == "__main__":
    sys.exit(main())
