"""Who is obeyed: carries out what decide.identity says. Each step is one transaction, so a restart between any two
finds its place again. Must not talk to the bus: the link publishes what is in the ledger afterwards.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from agent.kit.ids import Ulids
from agent.wire.messages import Cursor, Event, HostStatus
from orchestrator.decide import identity as identities
from orchestrator.decide.identity import Adopt, Bound, Rename, Seen, Wait
from orchestrator.decide.records import Revision, StackRecord
from orchestrator.store.ledger import Ledger
from orchestrator.store.port import Change

log = logging.getLogger(__name__)


async def settle(ledger: Ledger, seen: Seen) -> Bound | Wait:
    """Go as far as what was seen allows; afterwards assignments may be published, or something is missing."""
    while True:
        verdict = identities.judge(ledger.identity, ledger.counters, ledger.cursors, seen)
        if isinstance(verdict, Rename):
            await _rename(ledger, verdict, seen.host)
        elif isinstance(verdict, Adopt):
            await _adopt(ledger, verdict)
        else:
            if isinstance(verdict, Bound) and not ledger.identity.settled:
                await ledger.commit(Change(identity=replace(ledger.identity, settled=True)))
            return verdict


async def _rename(ledger: Ledger, verdict: Rename, host: HostStatus | None) -> None:
    """The events that only the newer database had are lost, so they are not asked for again."""
    ledger.bound = False
    async with ledger.changing:
        fresh = identities.renamed(ledger.identity, Ulids().next())
        message = f"the database is an older copy: {verdict.why}"
        event = ledger.event("store.restored", message, evidence={"store": fresh.store_id})
        cursor = None
        if host is not None and host.acknowledged > ledger.cursors.get(host.journal_id, 0):
            cursor = Cursor(journal_id=host.journal_id, seq=host.acknowledged)
        await ledger.commit(Change(identity=fresh, events=[event], cursor=cursor))
    log.warning("%s; taking over what runs", message)


async def _adopt(ledger: Ledger, verdict: Adopt) -> None:
    async with ledger.changing:
        now = ledger.clock.wall()
        changed = identities.take_over(ledger.stacks, ledger.identity, verdict, now)
        records = {name: await _numbered(ledger, record) for name, record in changed.items()}
        taken = [record for record in records.values() if not record.held]
        for record in records.values():
            if record.held:
                ledger.statuses.pop(record.name, None)  # of the time of the copy: nothing of it runs
        change = Change(
            identity=identities.adopted(ledger.identity, verdict.store_id),
            drained=(ledger.drained or now) if verdict.drained else 0.0,
            forget_statuses=True,
            statuses=dict(ledger.statuses),
            stacks=records,
            revisions=[Revision(record.name, record.revision, now, None, record.model) for record in taken],
            events=[_event(ledger, record, verdict.store_id) for record in records.values()],
        )
        await ledger.commit(change)
    log.info("took over %d stacks from store %s", len(taken), verdict.store_id)


async def _numbered(ledger: Ledger, record: StackRecord) -> StackRecord:
    """Revisions never change: where this database has another model under the reported number, take the next."""
    known = await ledger.store.revision(record.name, record.revision)
    if known is None or known.model == record.model:
        return record
    return replace(record, revision=ledger.counters[record.name].revision + 1)


def _event(ledger: Ledger, record: StackRecord, store_id: str) -> Event:
    if record.held:
        message = "the restored database names it, but the agent does not run it; it was not started"
        return ledger.event("stack.held", message, stack=record.name, reason="not-adopted")
    return ledger.event(
        "stack.adopted",
        f"taken over from the agent at generation {record.generation}",
        stack=record.name,
        evidence={"store": store_id, "generation": record.generation},
    )
