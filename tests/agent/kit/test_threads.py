"""Blocking work beside the loop: errors are told, a cancelled call leaves nothing running."""

from __future__ import annotations

import asyncio
import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.kit import threads
from agent.kit.errors import Permanent, Temporary


async def test_result() -> None:
    assert await threads.run("add", lambda a, b: a + b, 1, 2) == 3


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "host-refused")]
)
async def test_an_error_of_the_system_is_temporary_and_names_the_path(number: int, code: str) -> None:
    def call() -> None:
        raise OSError(number, "it broke", "/some/path")

    with pytest.raises(Temporary, match=r"cannot do it: it broke \(/some/path\)") as caught:
        await threads.run("do it", call)
    assert caught.value.code == code


async def test_our_own_errors_pass() -> None:
    def call() -> None:
        raise Permanent("cannot", code="x")

    with pytest.raises(Permanent):
        await threads.run("do it", call)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_call_ends_after_its_thread(fails: bool) -> None:
    begun, go = asyncio.Event(), threading.Event()
    loop, ended = asyncio.get_running_loop(), False

    def call() -> None:
        nonlocal ended
        loop.call_soon_threadsafe(begun.set)
        go.wait(10)
        ended = True
        if fails:
            raise OSError(errno.EIO, "it broke")

    task = asyncio.ensure_future(threads.run("wait", call))
    await begun.wait()
    for _ in range(2):  # the second cancellation finds it waiting for the thread
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_what_takes_long_takes_no_thread_that_starts_containers() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    began = threading.Event()

    def long(stop: threading.Event) -> None:
        began.set()
        stop.wait()

    task = asyncio.ensure_future(threads.stoppable("back it up", long))
    while not began.is_set():  # noqa: ASYNC110 (a thread's event)
        await asyncio.sleep(0.01)
    try:
        assert await asyncio.wait_for(threads.run("start a container", lambda: 7), 10) == 7
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
