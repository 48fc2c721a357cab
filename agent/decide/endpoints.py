"""Which tasks serve published ports: ready ones only.

Ready: running, and healthy if it is checked. The address and the ports are those journalled in its allocation.
"""

from __future__ import annotations

from agent.decide.record import TaskRecord
from agent.ports import Endpoint


def ready(record: TaskRecord) -> bool:
    return record.state == "running" and record.stop is None and record.health.status in ("none", "healthy")


def serves(record: TaskRecord) -> tuple[Endpoint, ...]:
    if not ready(record):
        return ()
    return tuple(Endpoint(port, record.allocation.address) for port in record.allocation.ports)
