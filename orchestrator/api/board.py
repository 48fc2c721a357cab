"""Status as bytes: each stack is folded and serialised once per change, not once per question."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from agent.wire.messages import StackStatus
from orchestrator import refusals
from orchestrator.decide.records import StackRecord
from orchestrator.decide.status import fold, of_some
from orchestrator.store.ledger import Ledger

_Key = tuple[StackRecord, StackStatus | None, bool, bool]


class Board:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._cache: dict[str, tuple[_Key, dict[str, Any], bytes]] = {}

    def stack(self, name: str) -> dict[str, Any] | None:
        entry = self._entry(name)
        return entry[0] if entry else None

    def stacks(self) -> list[dict[str, Any]]:
        return [entry[0] for name in sorted(self._ledger.stacks) if (entry := self._entry(name))]

    def status(self, stack: str | None = None, services: Collection[str] = ()) -> bytes:
        """The status document, of these services (none named: of all). UserError stack-unknown, service-unknown."""
        if services:
            return self._document([_dump(entry) for entry in self._chosen(stack, services)])
        if stack is None:
            self._cache = {name: kept for name, kept in self._cache.items() if name in self._ledger.stacks}
            return self._document([e[1] for name in sorted(self._ledger.stacks) if (e := self._entry(name))])
        entry = self._entry(stack)
        if entry is None:
            raise refusals.no_stack(stack)
        return self._document([entry[1]])

    def one(self, stack: str, services: Collection[str] = ()) -> tuple[dict[str, Any] | None, bytes]:
        """One stack's entry, None when there is no such stack (any more), and the status document of it; of these
        services alone, if any are named."""
        entry = self._entry(stack)
        if entry is None:
            return None, self._document([])
        if not services:
            return entry[0], self._document([entry[1]])
        some = of_some(entry[0], services)
        return some, self._document([_dump(some)])

    def _entry(self, name: str) -> tuple[dict[str, Any], bytes] | None:
        ledger = self._ledger
        record = ledger.stacks.get(name)
        if record is None:
            return None
        key = (record, ledger.statuses.get(name), ledger.online, bool(ledger.drained))
        kept = self._cache.get(name)
        if kept is None or any(a is not b for a, b in zip(kept[0], key, strict=True)):
            document = fold(*key)
            kept = self._cache[name] = (key, document, _dump(document))
        return kept[1], kept[2]

    def _chosen(self, stack: str | None, services: Collection[str]) -> list[dict[str, Any]]:
        if stack is not None and stack not in self._ledger.stacks:
            raise refusals.no_stack(stack)
        entries = [entry for entry in self.stacks() if stack in (None, entry["name"])]
        known = {row["name"] for entry in entries for row in entry["services"]}
        for service in services:
            if service not in known:
                raise refusals.no_service(service, stack, known)
        chosen = [
            {**entry, "services": [row for row in entry["services"] if row["name"] in services]} for entry in entries
        ]
        return [entry for entry in chosen if entry["services"]]

    def _document(self, stacks: list[bytes]) -> bytes:
        ledger = self._ledger
        head = {
            "version": 1,
            "at": round(ledger.clock.wall(), 3),
            "agent": {"online": ledger.online, "since": ledger.online_since},
            "drained": ledger.drained or None,
            "troubles": troubles(ledger),
        }
        return _dump(head)[:-1] + b', "stacks": [' + b", ".join(stacks) + b"]}"


def troubles(ledger: Ledger) -> list[dict[str, Any]]:
    """What the daemons try again and again without success."""
    found = [("agent", one) for one in ledger.told] + [("orchestrator", one) for one in ledger.troubles.told()]
    return [{"of": who, **asdict(one), "stack": one.stack or None} for who, one in found]


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
