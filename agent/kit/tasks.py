"""What asyncio's TaskGroup forgets: a task that is asked to end in the moment in which a group in it fails goes on with
the group's error (CPython issue 116720, mended in 3.13). A daemon that catches it and begins anew never ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run in a task of its own. Whoever asks the caller to end is heard, whatever `work` raises
    then: what a group in it does to its task (its count of cancellations is not right either) stays there."""
    me = asyncio.current_task()
    try:
        return await asyncio.ensure_future(work)
    except BaseException:
        if me is not None and me.cancelling():
            raise asyncio.CancelledError from None
        raise
