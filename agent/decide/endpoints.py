"""What a task serves: published ports when it is ready, and its service's virtual address from when it runs.

Ready: running, and healthy if it is checked. The address and the ports are those journalled in its allocation. Which
of a service's tasks answer at its virtual address is decided where all are known: nft_rules.chosen.
"""

from __future__ import annotations

from agent.decide.record import TaskRecord, health_of
from agent.ports import Serving


def ready(record: TaskRecord) -> bool:
    return record.state == "running" and record.stop is None and health_of(record) in ("none", "healthy")


def serves(record: TaskRecord) -> Serving:
    """Of a task that runs. One that is paused could not answer."""
    if record.paused:
        return leaves(record, alive=True)
    address, virtual = record.allocation.address, record.virtual
    if ready(record):
        return Serving(address, "ready", record.allocation.ports, virtual)
    return Serving(address, "running", virtual=virtual)


def leaves(record: TaskRecord, *, alive: bool) -> Serving:
    """Out of everything, before its process is told to end and once it has ended."""
    return Serving(record.allocation.address, "draining" if alive else "gone")
