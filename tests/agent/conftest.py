"""Fixtures of the agent's host tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
from tests.agent.room import Room, host_facts, room


@pytest.fixture
def host_room() -> Iterator[Room]:
    """A directory of its own on the host; the host must look the same afterwards."""
    before = host_facts()
    with room() as place:
        yield place
    assert host_facts() == before


@pytest.fixture
async def sandboxes(host_room: Room) -> AsyncIterator[PinnedSandboxes]:
    real = PinnedSandboxes(host_room.layout, Helper())
    yield real
    real.helper.close()
