from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.agent.runtime.host import Host, new_root


@pytest_asyncio.fixture
async def host() -> AsyncIterator[Host]:
    """A sandboxed host; at the end nothing of it may be left."""
    made = Host(new_root())
    try:
        yield made
    finally:
        await made.close()
    assert made.leftovers() == []
