"""What the agent's socket says and does about volumes (agent/wire/streams.py). Nothing in use is deleted: who uses what
is known here from what is assigned, and from the request's `named` for stacks that only the orchestrator knows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from agent.decide.mounts import user
from agent.kit.errors import UserError
from agent.ports import VolumeInfo, Volumes, VolumeStore
from agent.streams import requests
from agent.streams.requests import Operation, Send
from agent.volumes import errors


class Users(Protocol):
    def volume_users(self, *, running: bool = False) -> Mapping[str, str]:
        """decide/mounts.py users(), of all tasks that are assigned, or of those that run."""


class Both(Volumes, VolumeStore, Protocol):
    pass


Request = dict[str, Any]


class VolumeRequests:
    def __init__(self, volumes: Both, users: Users) -> None:
        self._volumes, self._users = volumes, users
        self.operations: dict[str, Operation] = {
            "volumes": self._list,
            "volume": self._inspect,
            "volume-create": self._create,
            "volume-remove": self._remove,
            "volume-prune": self._prune,
            "volume-backup": self._backup,
            "volume-restore": self._restore,
        }

    async def _list(self, request: Request, send: Send) -> Any:
        users = self._known(request)
        return [_document(info, users) for info in await self._volumes.list()]

    async def _inspect(self, request: Request, send: Send) -> Any:
        info = await self._must(request["name"])
        return _document(info, self._known(request)) | {"size": await self._volumes.size(info.name)}

    async def _create(self, request: Request, send: Send) -> Any:
        labels, options = requests.labels(request, "labels"), requests.labels(request, "options")
        info = VolumeInfo(str(request["name"]), time.time(), labels, options)
        return _document(await self._volumes.create(info), {})

    async def _remove(self, request: Request, send: Send) -> Any:
        """All of them or none: what is refused is refused before anything goes."""
        found = [await self._must(name) for name in dict.fromkeys(request["names"])]
        self._refuse_used(found, request)
        freed = sum([await self._volumes.size(info.name) for info in found])
        self._refuse_used(found, request)  # measuring took its time
        await self._volumes.remove([info.name for info in found])
        return {"removed": [info.name for info in found], "freed": freed}

    def _refuse_used(self, found: Sequence[VolumeInfo], request: Request) -> None:
        users = self._known(request)
        for info in found:
            if who := user(info, users):
                raise in_use("remove", info.name, who)

    async def _prune(self, request: Request, send: Send) -> Any:
        users = self._known(request)
        unused = [info for info in await self._volumes.list() if not user(info, users)]
        doomed = [info for info in unused if info.owner or request.get("all")]
        sizes = {info.name: await self._volumes.size(info.name) for info in doomed}
        users = self._known(request)  # measuring took its time
        names = [info.name for info in doomed if not user(info, users)]
        await self._volumes.remove(names)
        return {"removed": names, "freed": sum(sizes[name] for name in names), "left": len(unused) - len(doomed)}

    async def _backup(self, request: Request, send: Send) -> Any:
        info, path = await self._must(request["name"]), Path(request["path"])
        before = user(info, self._users.volume_users(running=True))
        await send("progress", {"image": info.name, "step": "backing up"})
        done = await self._volumes.backup(info.name, path, (int(request["uid"]), int(request["gid"])))
        during = before or user(info, self._users.volume_users(running=True))
        return {"name": info.name, "path": str(path), "size": path.stat().st_size, "writer": during, **asdict(done)}

    async def _restore(self, request: Request, send: Send) -> Any:
        path, name = Path(request["path"]), request.get("name")
        info = await self._volumes.manifest(path)
        name = info.name if name is None else str(name)
        found = [volume for volume in await self._volumes.list() if volume.name == name]
        if request.get("force") and found and (who := user(found[0], self._users.volume_users(running=True))):
            raise in_use("restore", name, who, "runs on it", f"gorae stop {who.partition(', ')[0]}")
        await send("progress", {"image": name, "step": "restoring"})
        made, size = await self._volumes.restore(path, name, bool(request.get("force")))
        return _document(made, {}) | {"size": size, "replaced": bool(found)}

    async def _must(self, name: Any) -> VolumeInfo:
        found = [info for info in await self._volumes.list() if info.name == name]
        if not found:
            raise errors.unknown(str(name))
        return found[0]

    def _known(self, request: Request) -> dict[str, str]:
        return {**requests.labels(request, "named"), **self._users.volume_users()}


def _document(info: VolumeInfo, users: Mapping[str, str]) -> dict[str, Any]:
    return asdict(info) | {"used_by": user(info, users)}


def in_use(verb: str, name: str, who: str, how: str = "uses it", hint: str = "") -> UserError:
    hint = hint or f"gorae down {who.partition('/')[0]}, or give that service another volume"
    return UserError(f"cannot {verb} volume {name}: {who} {how}", code="volume-in-use", hint=hint, user=who)
