"""How the agent's loops make an event, and make anything durable. An event is for people; no decision reads one."""

from __future__ import annotations

import logging
from typing import Any

from agent.effects import Ports
from agent.kit import backoff
from agent.kit.errors import Temporary
from agent.ports import Change
from agent.wire.messages import Event

log = logging.getLogger("gorae.agent")

LONGEST, MOST = 1000, 20  # characters of a text, entries of a list


def bounded(value: Any, longest: int = LONGEST) -> Any:
    """A JSON value, cut where it is too long. An image or a container can say megabytes, and what is said is kept, and
    repeated in every status: a broker hangs up on a message that is too large, again and again."""
    if isinstance(value, str):
        return value if len(value) <= longest else value[: longest - 1] + "…"
    if isinstance(value, dict):
        return {bounded(key, longest): bounded(item, longest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bounded(item, longest) for item in value[:MOST]]
    return value


def event(
    ports: Ports, kind: str, message: str = "", *, evidence: dict[str, Any] | None = None, **fields: Any
) -> Event:
    """Stamped now. No validation: every value is ours."""
    now = ports.clock.wall()
    return Event.model_construct(
        id=ports.ulids.next(now),
        at=now,
        boot_id=ports.boot_id,
        monotonic=ports.clock.now(),
        source="agent",
        kind=kind,
        message=bounded(message),
        evidence=bounded(evidence or {}),
        **fields,
    )


async def persist(ports: Ports, change: Change) -> None:
    """Record it, trying again until it is durable: a full disk delays, and touches nothing that runs."""
    failures, this = 0, object()
    try:
        while True:
            try:
                await ports.journal.record(change)
            except Temporary as error:
                failures += 1
                if failures == 1:
                    log.error("%s; %s", error, error.hint or "it is tried again")
                ports.troubles.found(this, error, ports.clock.wall())
                await ports.clock.sleep(backoff.delay(failures, first=0.1, cap=5.0))
            else:
                if failures:
                    log.info("the journal can be written again")
                return
    finally:
        ports.troubles.over(this)
