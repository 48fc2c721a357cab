"""Operations of the agent's socket on images and registries, as agent/wire/streams.py documents them."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.images.auth import keys_of
from agent.images.policy import wanted
from agent.kit.errors import GoraeError, Permanent
from agent.ports import GcRule, Images, ImageShelf, Logins, Progress, Resolved, Wanted
from agent.streams.requests import Operation, Send, mapping, number, progress, text, texts


class ImageRequests:
    """`in_use`: image id → who uses it."""

    def __init__(
        self, images: Images, shelf: ImageShelf, logins: Logins, in_use: Callable[[], Mapping[str, str]]
    ) -> None:
        self._images, self._shelf, self._logins, self._in_use = images, shelf, logins, in_use
        self._awaited: Counter[str] = Counter()  # ids that requests of `ensure` have found so far

    def operations(self) -> dict[str, Operation]:
        return {
            "images": self._list,
            "ensure": self._ensure,
            "pull": self._pull,
            "latest": self._latest,
            "load": self._load,
            "import": self._import,
            "remove": self._remove,
            "inspect": self._inspect,
            "tag": self._tag,
            "save": self._save,
            "image-usage": self._usage,
            "image-collect": self._collect,
            "fsck": self._check,
            "login": self._login,
            "logout": self._logout,
            "logins": self._known,
        }

    async def _list(self, request: dict[str, Any], send: Send) -> Any:
        return list(await self._images.list())

    async def _ensure(self, request: dict[str, Any], send: Send) -> Any:
        """All at once; the answer, or the first error, comes when every pull has ended."""
        wishes = mapping(request, "images")
        if not all(isinstance(wish, dict) for wish in wishes.values()):
            raise Permanent("cannot understand the request: a wish is no object", code="bad-request")
        wants = [wanted(name, wish) for name, wish in wishes.items()]
        keys = keys_of(request.get("keys"))
        mine: Counter[str] = Counter()  # an image that came early stays until the last one has come

        async def ensure(want: Wanted, hear: Progress) -> Resolved:
            result = await self._images.ensure(want, hear, keys)
            mine[result.id] += 1
            self._awaited[result.id] += 1
            return result

        try:
            async with progress(send) as hear:
                results = await asyncio.gather(*(ensure(want, hear) for want in wants), return_exceptions=True)
        finally:
            self._awaited.subtract(mine)
            self._awaited = +self._awaited
        found = {}
        for want, result in zip(wants, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            volumes = (await self._images.config(result.id)).volumes
            found[want.name] = {"id": result.id, "digest": result.digest, "volumes": volumes}
        return found

    async def _pull(self, request: dict[str, Any], send: Send) -> Any:
        platform = text(request, "platform") if request.get("platform") else ""
        async with progress(send) as hear:
            return await self._images.pull(text(request, "name"), hear, platform, keys_of(request.get("keys")))

    async def _latest(self, request: dict[str, Any], send: Send) -> Any:
        keys = keys_of(request.get("keys"))
        few = asyncio.Semaphore(8)

        async def ask(name: str) -> dict[str, Any]:
            async with few:
                try:
                    return {"digest": await self._images.latest(name, keys)}
                except GoraeError as error:
                    return {"error": error.document()}

        names = texts(request, "images")
        return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))

    async def _load(self, request: dict[str, Any], send: Send) -> Any:
        name = request.get("name")
        async with progress(send) as hear:
            path = Path(text(request, "path"))
            return list(await self._images.load(path, None if name is None else str(name), hear))

    async def _import(self, request: dict[str, Any], send: Send) -> Any:
        async with progress(send) as hear:
            return await self._images.import_rootfs(
                Path(text(request, "path")), text(request, "name"), mapping(request, "config"), hear
            )

    async def _remove(self, request: dict[str, Any], send: Send) -> Any:
        removed, freed = await self._images.remove(text(request, "name"), self._users())
        return {"removed": removed, "freed": freed}

    def _users(self) -> dict[str, str]:
        return dict.fromkeys(self._awaited, "an up that is under way") | dict(self._in_use())

    async def _inspect(self, request: dict[str, Any], send: Send) -> Any:
        found = await self._shelf.inspect(text(request, "name"))
        return found | {"used_by": self._in_use().get(found["id"], "")}

    async def _tag(self, request: dict[str, Any], send: Send) -> Any:
        return await self._shelf.tag(text(request, "name"), text(request, "new"))

    async def _save(self, request: dict[str, Any], send: Send) -> Any:
        form = request.get("format", "docker-archive")
        if form not in ("docker-archive", "oci-archive"):
            raise Permanent(f"cannot save images as {form!r}", code="bad-request")
        total = 0
        async for piece in self._shelf.save(texts(request, "names"), form):
            total += len(piece)
            await send("data", base64.b64encode(piece).decode())
        return {"bytes": total}

    async def _usage(self, request: dict[str, Any], send: Send) -> Any:
        return await self._shelf.usage({*mapping(request, "keep"), *self._in_use()})

    async def _collect(self, request: dict[str, Any], send: Send) -> Any:
        """What tasks use is known here; `keep` is what stored revisions name, which only the orchestrator knows."""
        young = number(request, "young")
        rule = GcRule(
            unnamed=bool(request.get("unnamed", False)),
            young=GcRule().young if young is None else young,
            old=number(request, "old"),
            bytes=int(request.get("bytes", 0)),
        )
        keep = {*mapping(request, "keep"), *self._in_use(), *self._awaited}
        removed, freed = await self._shelf.collect(keep, rule, dry=bool(request.get("dry", False)))
        return {"removed": removed, "freed": freed}

    async def _check(self, request: dict[str, Any], send: Send) -> Any:
        async with progress(send) as hear:
            return await self._shelf.check(bool(request.get("repair", False)), self._users, hear)

    async def _login(self, request: dict[str, Any], send: Send) -> Any:
        await self._logins.login(text(request, "registry"), text(request, "user"), text(request, "password"))
        return {}

    async def _logout(self, request: dict[str, Any], send: Send) -> Any:
        self._logins.logout(text(request, "registry"))
        return {}

    async def _known(self, request: dict[str, Any], send: Send) -> Any:
        return dict(self._logins.known())
