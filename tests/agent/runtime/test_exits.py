"""Awaiting conmon's exit files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.runtime.exits import ExitFiles


async def test_who_finds_the_file_first_leaves_the_news_to_the_others(tmp_path: Path) -> None:
    files = ExitFiles(tmp_path)
    try:
        first = asyncio.ensure_future(files.wait("t1.1", 60))
        await asyncio.sleep(0)
        (tmp_path / "new").write_text("3")
        (tmp_path / "new").rename(tmp_path / "t1.1")
        second = await files.wait("t1.1", 60)  # before the loop has looked at inotify
        assert second is not None and second[0] == 3
        assert await asyncio.wait_for(first, 5) == second
        assert files._waiting == {}
    finally:
        files.close()
