"""Blocking work on the host (mounts, deletions, copies) beside the event loop.

A thread cannot be stopped. So that an effect never outlives the call that began it, a cancelled call waits for its
thread, then is cancelled: whoever acts on the same task next finds the host at rest.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from agent.kit.errors import Temporary

T = TypeVar("T")

# For what takes as long as there is data. The loop's own threads are few, and containers are started with them.
_LONG = ThreadPoolExecutor(8, thread_name_prefix="long")


async def finish(future: asyncio.Future[T]) -> T:
    """The future's result; a cancellation is delivered when the future is done, not before."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, or asyncio would complain that nobody did
        raise cancelled
    return future.result()


async def run(what: str, call: Callable[..., T], *args: object, threads: Executor | None = None) -> T:
    """call(*args) in a thread. An OSError becomes Temporary "cannot `what`: …", code disk-full or host-refused."""
    try:
        return await finish(asyncio.get_running_loop().run_in_executor(threads, call, *args))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Temporary(
            f"cannot {what}: {error.strerror or error}" + (f" ({error.filename})" if error.filename else ""),
            code="disk-full" if full else "host-refused",
            hint="free some space, or inodes (df -i)" if full else "",
            errno=error.errno,
        ) from error


async def stoppable(what: str, call: Callable[..., T], *args: object) -> T:
    """run(what, call, *args, stop): an Event that is set when nobody waits for the thread any more."""
    stop = threading.Event()
    task = asyncio.ensure_future(run(what, call, *args, stop, threads=_LONG))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        raise
