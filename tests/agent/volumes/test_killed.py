"""An agent killed at any moment while it prepares tasks: the next one finishes the work, and removal leaves nothing."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.kit import mounts
from agent.kit.layout import Layout
from agent.ports import ImageConfig
from agent.rootfs.overlay import OverlayRootfs
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
from agent.volumes.volumes import HostVolumes
from agent.wire.messages import Mount
from tests.agent.room import Room

pytestmark = pytest.mark.host

TASKS = 6
VICTIM = """
import asyncio, json, sys
from tests.agent.volumes.test_killed import prepare
from agent.kit.layout import Layout
from agent.ports import ImageConfig
document = json.loads(sys.argv[1])
image = ImageConfig(id="x", layers=tuple(document["layers"]))
print(flush=True)
asyncio.run(prepare(Layout.at(document["root"]), image, document["base"], document["by_path"]))
print("done", flush=True)
"""


async def prepare(layout: Layout, image: ImageConfig, base: int, by_path: bool) -> None:
    """What a worker does before it starts a container, for all tasks at once."""
    sandboxes, rootfs, volumes = (
        PinnedSandboxes(layout, Helper()),
        OverlayRootfs(layout, by_path=by_path),
        HostVolumes(layout),
    )
    mounts = [Mount(kind="volume", source="data", target="/data"), Mount(kind="bind", source="/usr/share", target="/s")]

    async def one(index: int) -> None:
        sandbox = await sandboxes.ensure(f"t{index}", base + index * 65536)
        root = await rootfs.ensure(f"t{index}", image, sandbox)
        await volumes.ensure("shop", mounts, sandbox, root)

    async with asyncio.TaskGroup() as group:
        for index in range(TASKS):
            group.create_task(one(index))
    sandboxes.helper.close()


@pytest.mark.parametrize("by_path", [False, True], ids=["by-descriptor", "by-path"])
async def test_killed_at_any_moment(host_room: Room, by_path: bool, request: pytest.FixtureRequest) -> None:
    dice = random.Random(request.config.getoption("--seed"))
    image = host_room.image({f"data/{n}": "x" * 1000 for n in range(50)}, {"etc/passwd": ""})
    layout = host_room.layout
    document = {"root": str(host_room.root), "base": host_room.base, "by_path": by_path, **asdict(image)}
    for _ in range(request.config.getoption("--rounds") or 2):
        victim = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", VICTIM, json.dumps(document)),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert victim.stdout is not None
        await victim.stdout.readline()
        try:
            await asyncio.wait_for(victim.stdout.readline(), dice.uniform(0.0, 0.15))  # the time is the experiment
        except TimeoutError:
            victim.kill()
        await victim.wait()

        await prepare(layout, image, host_room.base, by_path)
        assert len(mounts.points(host_room.root)) == TASKS * 5
        assert len(list((layout.volumes / "data" / "_data").iterdir())) == 50

        sandboxes, rootfs, volumes = PinnedSandboxes(layout, Helper()), OverlayRootfs(layout), HostVolumes(layout)
        for task in await volumes.mounted():
            await volumes.release(task)
        await volumes.remove(["data"])
        for task in await rootfs.list():
            await rootfs.remove(task)
        for task in await sandboxes.list():
            await sandboxes.remove(task)
        assert mounts.points(host_room.root) == []
        left = [layout.run_tasks, layout.tasks, layout.volumes]
        assert [list(directory.iterdir()) for directory in left] == [[], [], []]
