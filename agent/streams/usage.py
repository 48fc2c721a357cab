"""What the agent's socket says about the disk (agent/wire/streams.py). Trees are walked in threads, one walk at a time
whoever asks, and no longer than somebody waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agent.decide import usage
from agent.decide.mounts import user
from agent.kit.errors import UserError
from agent.ports import Images, ImageShelf, LogFiles, Rootfs
from agent.streams.requests import Operation, Send, mapping
from agent.streams.volumes import Both, Users
from agent.wire.messages import StackStatus


class Agent(Users, Protocol):
    def statuses(self) -> Sequence[StackStatus]: ...

    def in_use(self) -> Mapping[str, str]: ...


class UsageRequests:
    """`log_budget`: bytes, as it is told."""

    def __init__(
        self,
        agent: Agent,
        images: Images,
        shelf: ImageShelf,
        rootfs: Rootfs,
        volumes: Both,
        logs: LogFiles,
        log_budget: int,
    ) -> None:
        self._agent, self._images, self._shelf, self._rootfs = agent, images, shelf, rootfs
        self._volumes, self._logs, self._log_budget = volumes, logs, log_budget
        self._walking = asyncio.Lock()
        self.operations: dict[str, Operation] = {"usage": self._usage}

    async def _usage(self, request: dict[str, Any], send: Send) -> Any:
        images = {**mapping(request, "keep"), **self._agent.in_use()}
        users = {**mapping(request, "named"), **self._agent.volume_users()}
        async with self._walking:
            writable = {task: await self._rootfs.size(task) for task in sorted(await self._rootfs.list())}
            volumes = await self._sizes(users)
        files = await self._logs.files()
        store = await self._shelf.usage(images)
        tasks = usage.tasks(self._agent.statuses(), writable, files)
        return {
            "kinds": usage.kinds(store, tasks, files, volumes),
            "images": usage.images(await self._images.list(), images),
            "tasks": tasks,
            "volumes": volumes,
            "log_budget": self._log_budget,
            "free": store["free"],
            "total": store["total"],
        }

    async def _sizes(self, users: Mapping[str, str]) -> list[dict[str, Any]]:
        found = []
        for info in await self._volumes.list():
            try:
                size = await self._volumes.size(info.name)
            except UserError:
                continue  # removed meanwhile
            found.append({"name": info.name, "size": size, "used_by": user(info, users)})
        return found
