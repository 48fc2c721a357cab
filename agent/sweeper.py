"""Looking at the whole host, and taking away what belongs to nobody. Only of this instance, only what nothing accounts
for, and never what runs in a stack that nothing is known of."""

from __future__ import annotations

import logging
from collections.abc import Collection

from agent import effects
from agent.decide.diff import Observed, observed
from agent.effects import Ports
from agent.events import event
from agent.kit import backoff
from agent.kit.errors import GoraeError
from agent.ports import Change

log = logging.getLogger("gorae.agent")


async def look(ports: Ports) -> Observed:
    """Everything of this instance; again until every part could be listed, for half a picture is none."""
    failures = 0
    while True:
        try:
            return observed(
                await ports.runtime.list(),
                sandboxes=await ports.sandboxes.list(),
                rootfs=await ports.rootfs.list(),
                mounts=await ports.volumes.mounted(),
                network=await ports.network.list(),
            )
        except GoraeError as error:
            failures += 1
            if failures == 1:
                log.error("cannot look at the host: %s", error)
            await ports.clock.sleep(backoff.delay(failures, first=0.2, cap=10.0))


async def sweep(ports: Ports, orphans: Collection[str], seen: Observed) -> list[str]:
    """What was swept. What fails is logged, and tried again at the next look."""
    swept: list[str] = []
    for task in orphans:
        try:
            for attempt in seen.attempts.get(task, ()):
                await ports.runtime.remove(task, attempt.attempt)
            await effects.discard(ports, task)
            told = event(ports, "task.swept", f"{task} belonged to nobody and was removed", task=task)
            await ports.journal.record(Change(records={task: None}, events=[told]))
        except GoraeError as error:
            log.warning("cannot sweep %s: %s", task, error)
            continue
        log.info("swept %s, which belonged to nobody", task)
        swept.append(task)
    return swept
