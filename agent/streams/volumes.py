"""What the agent's socket says and does about volumes (agent/wire/streams.py)."""

from __future__ import annotations

from typing import Any

from agent.ports import Volumes


class VolumeRequests:
    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    async def list(self, request: dict[str, Any], send: Any) -> Any:
        return list(await self._volumes.list())
