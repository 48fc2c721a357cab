"""Names on the bus, and how long what is said there may be. One retained message per stack and flow; STACK is
[a-z0-9][a-z0-9_-]*, so it is one topic level."""

from __future__ import annotations

PREFIX = "gorae"
MESSAGE_LIMIT = 32 * 1024 * 1024  # bytes of one message: the broker hangs up on a longer one

# orchestrator → agent
STORE = f"{PREFIX}/store"
CURSOR = f"{PREFIX}/cursor"
ASSIGNMENTS = f"{PREFIX}/assignment/+"

# agent → orchestrator
ONLINE = f"{PREFIX}/online"
HOST = f"{PREFIX}/host"
EVENTS = f"{PREFIX}/events"
STATUSES = f"{PREFIX}/status/+"
REPORTS = f"{PREFIX}/report/+"

FROM_ORCHESTRATOR = (STORE, CURSOR, ASSIGNMENTS)
FROM_AGENT = (ONLINE, HOST, EVENTS, STATUSES, REPORTS)


def assignment(stack: str) -> str:
    return f"{PREFIX}/assignment/{stack}"


def status(stack: str) -> str:
    return f"{PREFIX}/status/{stack}"


def report(stack: str) -> str:
    return f"{PREFIX}/report/{stack}"


def stack_of(topic: str) -> str:
    return topic.rsplit("/", 1)[1]
