"""Unpacked layers: each made once, by a child process of its own (unpack_child), and named when it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.images import mending
from agent.images.blobs import Files, aside, compression
from agent.images.errors import bad_layer, no_space, too_big
from agent.images.flights import Flights
from agent.images.layer_writer import LayerTooBig, Limits
from agent.images.manifest import Layer
from agent.kit import trees, zstd
from agent.kit.errors import Permanent

_SOURCES = Path(__file__).resolve().parents[2]

# From its first millisecond: Python takes 40 to get to where the child asks for it itself.
_WITH_US = ("setpriv", "--pdeathsig=KILL")

_PIPE = 1 << 20  # bytes: with the usual 64 KiB the two ends mostly wait for each other

Read = Callable[[int], None]
Hold = Callable[..., Awaitable[None]]  # paths that nobody may delete until the operation is over


@dataclass(frozen=True, slots=True)
class Unpacked:
    diff_id: str
    size: int  # bytes of file content; 0 when it was there already


class Layers:
    def __init__(self, files: Files, limits: Limits) -> None:
        self._files = files
        self._limits = limits
        self._flights: Flights[Unpacked] = Flights()
        self._at_once = asyncio.Semaphore(os.cpu_count() or 1)

    async def ensure(self, layer: Layer, diff_id: str, read: Read) -> Unpacked:
        """The layer under layers/, unpacked from its blob unless it is there. The caller holds it (store.py).

        `read` hears how much of the blob was read. Permanent bad-layer, UserError layer-too-big and no-space.
        """
        if self._files.layer(diff_id).is_dir():
            return Unpacked(diff_id, 0)
        return await self._flights.join_or_do(diff_id, lambda: self._unpack(layer, diff_id, None, read))

    async def discover(self, layer: Layer, hold: Hold, read: Read) -> Unpacked:
        """The same for a layer whose diff id nobody knows yet; `hold` is called with its path before it is there."""
        return await self._unpack(layer, None, hold, read)

    async def again(self, layer: Layer, diff_id: str, target: Path) -> None:
        """The layer once more, as the directory `target`, to be compared. Errors as ensure."""
        async with self._at_once:
            target.mkdir(mode=0o755)
            target.chmod(0o755)
            found = str((await self._run_child(layer, target, lambda _: None))["diff_id"])
            if found != diff_id:
                raise bad_layer(layer.blob.digest, f"it unpacks to {found[:19]}, its config says {diff_id[:19]}")

    async def mend(self, diff_ids: Sequence[str], hold: Hold) -> list[str]:
        """The stack that overlayfs is to see, lowest first, with a layer of its own where it needs mending; [] when
        that is `diff_ids`, which are unpacked. UserError layer-too-big."""
        work = await aside(self._files.work, "mend")
        try:
            top_first = list(reversed(diff_ids))
            try:
                count, made, digest = await aside(mending.mend, [self._files.layer(one) for one in top_first], work)
            except LayerTooBig as error:
                raise too_big(top_first[0], str(error)) from error
            if made is not None:
                await hold(self._files.layer(digest))
                if not self._files.layer(digest).exists():
                    made.rename(self._files.layer(digest))
            stack = [*reversed(top_first[:count]), *([digest] if made is not None else [])]
            return stack if stack != list(diff_ids) else []
        finally:
            await aside(trees.delete, work)

    async def _unpack(self, layer: Layer, diff_id: str | None, hold: Hold | None, read: Read) -> Unpacked:
        async with self._at_once:
            work = self._files.work("layer")
            try:
                target = work / "root"
                target.mkdir(mode=0o755)
                target.chmod(0o755)
                said = await self._run_child(layer, target, read)
                found = str(said["diff_id"])
                if diff_id and diff_id != found:
                    raise bad_layer(layer.blob.digest, f"it unpacks to {found[:19]}, its config says {diff_id[:19]}")
                if hold:
                    await hold(self._files.layer(found))
                if not self._files.layer(found).exists():
                    target.rename(self._files.layer(found))
                return Unpacked(found, int(said["size"]))
            finally:
                await aside(trees.delete, work)

    async def _run_child(self, layer: Layer, target: Path, read: Read) -> dict[str, Any]:
        limits = json.dumps(asdict(self._limits))
        path = self._files.blob(layer.blob.digest)
        packed = compression(path)
        form = "gzip" if packed == "gzip" else "plain"
        command = (*_WITH_US, sys.executable, "-S", "-P", "-m", "agent.images.unpack_child", str(target), form, limits)
        environment = {"PYTHONPATH": str(_SOURCES), "PATH": os.environ.get("PATH", os.defpath)}
        async with contextlib.AsyncExitStack() as stack:
            blob = stack.enter_context(path.open("rb"))
            source: Any = blob
            if packed == "zstd":
                source = await stack.enter_async_context(_unzstd(blob))
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            stack.push_async_callback(_end, child)
            said: dict[str, Any] = {}
            assert child.stdout is not None and child.stderr is not None
            async for line in child.stdout:
                said = json.loads(line)
                if "read" in said:
                    read(said["read"])
            if "diff_id" not in said:
                self._fail(layer, said, (await child.stderr.read(4096)).decode(errors="replace"))
            return said

    def _fail(self, layer: Layer, said: dict[str, Any], complaint: str) -> None:
        digest, why = layer.blob.digest, str(said.get("why", ""))
        match said.get("error"):
            case "bad-layer":
                raise bad_layer(digest, why)
            case "layer-too-big":
                raise too_big(digest, why)
            case "no-space":
                raise no_space(f"layer {digest[:19]}", int(said.get("needed", layer.blob.size)), self._files.free())
            case _:
                why = why or (complaint.strip().splitlines() or ["the child ended without a word"])[-1]
                raise Permanent(f"cannot unpack layer {digest[:19]}: {why}", code="unpack-failed", hint="gorae doctor")


@contextlib.asynccontextmanager
async def _unzstd(blob: Any) -> Any:
    """A pipe from which the decompressed blob can be read. A broken frame ends the stream early: then the tar or its
    digest is wrong, and says so."""
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):  # over what a user may have; it is root's to exceed
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *zstd.COMMAND, "-d", stdin=blob, stdout=writer, stderr=asyncio.subprocess.DEVNULL
            )
        finally:
            os.close(writer)
        try:
            yield reader
        finally:
            os.close(reader)
            reader = -1
            await _end(process)
    finally:
        if reader >= 0:
            os.close(reader)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
