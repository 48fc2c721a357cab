"""An orchestrator without its HTTP server, on a memory bus, beside a FakeAgent: started, killed and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kit.clock import RealClock
from agent.wire.memory import MemoryBroker
from agent.wire.messages import Event
from orchestrator.applying import Applied, Peer
from orchestrator.compose.model import Stack
from orchestrator.controller import Controller
from orchestrator.link import Link
from orchestrator.rolling import Rolling
from orchestrator.store.ledger import Ledger
from orchestrator.store.port import Store
from orchestrator.store.sqlite import SqliteStore

ALICE = Peer(uid=1000)


def stack(name: str = "shop", **services: Any) -> Stack:
    """A model with short service documents: stack(web={"image": "web:1", "replicas": 2})."""
    return Stack.model_validate({"name": name, "services": services or {"web": {"image": "web:1"}}})


@dataclass
class Orchestrating:
    ledger: Ledger
    controller: Controller

    async def up(self, model: Stack) -> Applied:
        await self.until(lambda: self.ledger.bound)
        return await self.controller.up(model, "missing", ALICE, lambda _: None)

    async def until(self, test: Callable[[], object], timeout: float = 5.0) -> None:
        async with asyncio.timeout(timeout):
            with self.ledger.listen() as bell:
                while not test():
                    bell.clear()
                    await bell.wait()

    async def converged(self, name: str = "shop") -> None:
        def test() -> bool:
            from orchestrator.decide.status import fold

            record = self.ledger.stacks[name]
            status, drained = self.ledger.statuses.get(name), bool(self.ledger.drained)
            return bool(fold(record, status, self.ledger.online, drained)["converged"])

        await self.until(test)

    async def events(self, **where: Any) -> list[Event]:
        return list(await self.ledger.store.events(**where))

    def ids(self, name: str = "shop") -> list[str]:
        return [task.id for task in self.ledger.stacks[name].tasks]


@asynccontextmanager
async def orchestrating(broker: MemoryBroker, socket: Path, store: Store | Path) -> AsyncIterator[Orchestrating]:
    """One life. A path is opened as SQLite, and closed at the end; leaving is as abrupt as a kill for the bus."""
    opened = await SqliteStore.open(store) if isinstance(store, Path) else store
    ledger = await Ledger.open(opened, RealClock())
    link = asyncio.create_task(Link(ledger, broker.bus("orchestrator")).run())
    controller = Controller(ledger, socket, patience=0.3)
    rolling = asyncio.create_task(Rolling(ledger, controller.have_images).run())
    try:
        yield Orchestrating(ledger, controller)
    finally:
        link.cancel()
        rolling.cancel()
        results = await asyncio.gather(link, rolling, return_exceptions=True)
        await opened.close()
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                raise AssertionError("the link or the rollouts ended by themselves") from result
