"""The bus as its users see it: sessions, each of which begins with every retained message and ends when the broker
goes.

Implementations: mqtt.py (mosquitto through aiomqtt, the only module that imports it) and memory.py; both pass
tests/wire/test_bus_conformance.py. Nothing is queued across sessions: whoever opens one publishes its whole state
again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.kit.errors import Permanent, Temporary


class BusDown(Temporary):
    """The broker is away, or the session has ended."""


class PublishDenied(Permanent):
    """The broker's access list refuses this topic to this role."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes  # empty: a retained message was cleared
    retain: bool = False  # True: stored before this subscription, not fresh


class Session(Protocol):
    """One connection. Raises BusDown from any method once the connection is lost."""

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Returns when the broker has acknowledged (QoS 1). An empty retained payload clears. Raises PublishDenied."""

    def messages(self) -> AsyncIterator[Message]:
        """Every message of the subscriptions, in order per publisher; retained ones first."""


class Bus(Protocol):
    def session(self, subscribe: tuple[str, ...], will: Message | None = None) -> AbstractAsyncContextManager[Session]:
        """Connect and subscribe (filters may end in "/+"). Raises BusDown when the broker cannot be reached."""
