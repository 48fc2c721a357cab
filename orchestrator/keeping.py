"""Which images must stay, and when the others go: the orchestrator alone knows the revisions a stack can go back to.

The agent spares by itself what tasks use, what a pull or an `up` is about to use, and what is young. When the disk of
the store is fuller than `high` percent, the longest unused go until it is at `low`; with `days`, those that nobody has
wanted for so long, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kit.errors import GoraeError, UserError
from agent.wire import streams
from orchestrator.compose.model import Stack
from orchestrator.store.ledger import Ledger

log = logging.getLogger(__name__)

EVERY = 300.0  # seconds between two looks at the disk
YOUNG = 3600.0  # seconds; what was wanted since then stays, however full the disk is
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Percent of the disk; days, 0 for no limit of age."""

    high: int = 85
    low: int = 80
    days: int = 0

    def __post_init__(self) -> None:
        """UserError bad-settings."""
        if not 0 < self.low <= self.high <= 100:
            raise UserError(
                f"cannot keep the disk between {self.low} and {self.high} percent",
                code="bad-settings",
                hint="in [gc] of gorae.toml, low is at most high, and that at most 100",
            )


async def needed(ledger: Ledger) -> dict[str, str]:
    """Image id → the stack and revision that name it, of every stack that is not gone."""
    found: dict[str, str] = {}
    for name, record in list(ledger.stacks.items()):
        for revision in await ledger.store.revisions(name):
            locks = revision.model.get("images", {}).values()
            found |= {lock["id"]: f"{name}, revision {revision.number}" for lock in locks}
        found |= {lock.id: name for lock in Stack.model_validate(record.model).images.values()}
        found |= {task.container.image_id: f"{name}/{task.service}" for task in (*record.tasks, *record.goal)}
    return found


def wish(usage: Mapping[str, Any], limits: Limits) -> dict[str, Any] | None:
    """What to ask of the agent's image-collect; None when nothing is to go. Pure."""
    used, total = usage["total"] - usage["free"], usage["total"]
    surplus = used - total * limits.low // 100 if used > total * limits.high // 100 else 0
    if not usage["unused"] or not (surplus or limits.days):
        return None
    return {"young": YOUNG, "bytes": surplus, **({"old": limits.days * _DAY} if limits.days else {})}


async def keep_room(ledger: Ledger, agent: Path, limits: Limits) -> None:
    """For life. What cannot be done now is tried at the next look."""
    failing = False
    while True:
        await ledger.clock.sleep(EVERY)
        try:
            usage = await streams.call(agent, "image-usage", keep={})
            asked = wish(usage, limits)
            if asked is not None and ledger.bound:
                answer = await streams.call(agent, "image-collect", keep=await needed(ledger), **asked)
                if answer["removed"]:
                    log.info("removed unused images: %s; %d bytes freed", ", ".join(answer["removed"]), answer["freed"])
            failing = False
        except (GoraeError, ValueError) as error:  # ValueError: another version stored what this one cannot read
            if not failing:
                log.warning("cannot look after the image store: %s", error)
            failing = True
