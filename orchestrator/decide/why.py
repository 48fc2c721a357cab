"""Why a service is as it is: the last thing that happened to it, and what that followed from, out of the events. Pure.

Events are for people; nothing is decided by what is read here. A chain goes back along `cause` to a change that
somebody made, or to where the world began it, and no further than the life of the container before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from agent.wire.messages import Event

LONGEST = 20  # events of a chain
NEAR = 120.0  # seconds before, in which the trouble of a dependency is worth telling
LINES = 5  # of a log
_SILENT = frozenset({"task.removed", "task.updated", "task.healthy", "plan.keep", "update.done", "update.retired"})
_TROUBLE = frozenset({"task.exited", "task.unhealthy", "task.failed", "task.start-failed", "task.stopping"})
_SAID = {
    "task.started": "was started",
    "task.exited": "ended",
    "task.stopping": "was to stop",
    "task.stopped": "was stopped",
    "task.failed": "failed",
    "task.start-failed": "could not be started",
    "task.again": "was to run again",
    "task.waiting": "waits",
    "task.unhealthy": "became unhealthy",
    "task.hook-failed": "had a hook that failed",
    "task.hooked": "ran a hook",
}


def explain(events: Sequence[Event], service: str, needs: Collection[str]) -> dict[str, Any] | None:
    """`events`: the stack's, oldest first. `needs`: services that this one depends on, directly or not. {at, sentence,
    because, rule, before}: of `because` and `before` each is {at, sentence, lines}. None: nothing is known of it."""
    events = _life(events)
    by_id = {event.id: event for event in events}
    own = [
        e for e in events if e.service == service and e.kind not in _SILENT and e.kind.startswith(("task.", "update."))
    ]
    if not own:
        return None
    gone = _superseded(own)
    last = next((e for e in reversed(own) if e.task not in gone), own[-1])
    chain = list(_chain(last, by_id, events))
    rule = next((str(e.evidence["rule"]) for e in (last, *chain) if "rule" in e.evidence), "")
    since = min(e.at for e in (last, *chain))
    before = [
        e
        for e in events
        if e.service in needs
        and e.kind in _TROUBLE
        and since - NEAR <= e.at <= last.at
        and e.id not in {c.id for c in chain}
    ]
    return {
        "at": last.at,
        "sentence": sentence(last),
        "lines": _lines(last),
        "because": [_told(event) for event in chain],
        "rule": rule,
        "before": [_told(event) for event in before[-3:]],
    }


def waits(events: Sequence[Event], row: Mapping[str, Any], needs: Collection[str]) -> dict[str, Any] | None:
    """As explain(), of a service that waits to start, with its row of the status document: what for, and what became of
    that. None: it does not wait."""
    if row["state"] != "waiting" or not row["message"].startswith("wait"):
        return None
    found = explain(events, row["name"], ())
    past = [{"at": found["at"], "sentence": found["sentence"], "lines": found["lines"]}] if found else []
    trouble = [event for event in _life(events) if event.service in needs and event.kind in _TROUBLE]
    return {
        "at": row["since"],
        "sentence": f"{row['name']} {'is ' if row['message'].startswith('waiting') else ''}{row['message']}",
        "lines": [],
        "because": past,
        "rule": "",
        "before": [_told(event) for event in trouble[-3:]],
    }


def _life(events: Sequence[Event]) -> Sequence[Event]:
    """Without those of an earlier stack of the name."""
    ends = [place for place, event in enumerate(events, 1) if event.kind == "stack.removed"]
    return events[ends[-1] :] if ends and ends[-1] < len(events) else events


def _superseded(own: Sequence[Event]) -> set[str | None]:
    """Tasks after which another one was started in their place: their end, which comes last in an update that starts
    first, says nothing of how the service is now."""
    newest: dict[int | None, str | None] = {}
    started = [event for event in own if event.kind == "task.started"]
    for event in started:
        newest[event.slot] = event.task
    return {event.task for event in started if event.task != newest[event.slot]}


def _chain(last: Event, by_id: Mapping[str, Event], events: Sequence[Event]) -> Iterator[Event]:
    seen, at = {last.id}, last
    for _ in range(LONGEST):
        following = by_id.get(at.cause or "")
        if (
            following is None
            or following.id in seen
            or (following.kind == "task.started" and at.task == following.task)
        ):
            return
        if following.source == "orchestrator" and at.source == "agent":
            # What was planned for this very task says more than the change as a whole.
            for event in events:
                if event.task == at.task and event.cause == following.id and event.id not in seen:
                    seen.add(event.id)
                    yield event
        seen.add(following.id)
        yield following
        at = following


def sentence(event: Event) -> str:
    """Who, what, and how."""
    said = _SAID.get(event.kind)
    if said is None:
        return event.message or event.kind
    who = f"{event.service}.{event.slot}" if event.slot else event.service or "the stack"
    if event.kind == "task.started":
        again = f" again (attempt {event.attempt})" if (event.attempt or 1) > 1 else ""
        return f"{who} {said}{again}"
    return f"{who} {said}: {event.message}" if event.message else f"{who} {said}"


def _told(event: Event) -> dict[str, Any]:
    return {"id": event.id, "at": event.at, "sentence": sentence(event), "lines": _lines(event)}


def _lines(event: Event) -> list[str]:
    """The evidence a person wants to see: what it wrote last, what the probe got."""
    tail = event.evidence.get("log_tail") or event.evidence.get("output") or []
    lines = tail.splitlines() if isinstance(tail, str) else [str(line) for line in tail]
    return lines[-LINES:]
