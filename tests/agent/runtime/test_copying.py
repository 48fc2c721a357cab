"""The process that copies into a real container: nothing of a copy that is broken off stays there."""

from __future__ import annotations

import asyncio
import tarfile
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.decide.record import TaskRecord
from agent.streams import copying
from tests.agent.runtime.host import Host

pytestmark = pytest.mark.host


async def test_a_client_that_vanishes_leaves_no_half_file(host: Host) -> None:
    bundle = host.bundle("sleep", "1000")
    process = await host.runtime.start(bundle)
    record = cast(TaskRecord, SimpleNamespace(id=bundle.task, stack="shop", service="web", slot=1))
    place = host.rootfs / "etc"
    before = sorted(path.name for path in place.iterdir())
    spec: dict[str, Any] = {"way": "in", "path": "/etc/notes", "source": "file", "name": "notes", "archive": False}
    header = tarfile.TarInfo("notes")
    header.size = 64 << 20
    async with asyncio.timeout(20):
        async with copying._inside(record, process, spec) as (stream, child):
            await stream.write(header.tobuf() + bytes(1 << 20))
            while not any(path.stat().st_size for path in place.glob(".gorae-*")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nothing tells of a file in a container
        assert child.child.fd < 0, "it has ended"
    assert sorted(path.name for path in place.iterdir()) == before
    assert (place / "notes").read_text() == "not a program\n"
    await host.runtime.remove(bundle.task, 1)
