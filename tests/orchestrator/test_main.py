"""The program itself: one at a time, gone at SIGTERM."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.kit.layout import Layout
from agent.kit.version import VERSION


@pytest.fixture
async def layout() -> AsyncIterator[Layout]:
    root = Path(tempfile.mkdtemp(prefix="g-"))
    layout = Layout.at(root)
    layout.orchestrator_dir.mkdir(parents=True)
    layout.api_dir.mkdir(parents=True)
    yield layout
    shutil.rmtree(root)


async def start(layout: Layout) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator.main", "--root", str(layout.state.parent)),
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE,
    )


async def serving(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while b"serving on" not in (line := await process.stderr.readline()):
            assert line, "it ended before it served"


async def test_one_at_a_time_and_it_ends_when_asked(layout: Layout) -> None:
    first = await start(layout)
    try:
        await serving(first)
        second = await start(layout)
        _, said = await second.communicate()
        assert second.returncode == 1
        assert f"cannot start the orchestrator: process {first.pid} already runs" in said.decode()
        assert "Traceback" not in said.decode()
        first.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await first.wait() == 0
    finally:
        if first.returncode is None:
            first.kill()
            await first.wait()
    assert first.stderr is not None
    assert b"Traceback" not in await first.stderr.read()


async def test_killed_it_starts_again_over_its_stale_socket(layout: Layout) -> None:
    first = await start(layout)
    await serving(first)
    first.kill()
    await first.wait()
    assert layout.api_socket.exists()
    again = await start(layout)
    await serving(again)
    reader, writer = await asyncio.open_unix_connection(str(layout.api_socket))
    writer.write(b"GET /v1/version HTTP/1.0\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.close()
    again.terminate()
    assert await again.wait() == 0


async def test_without_its_directory_it_says_so(tmp_path: Path) -> None:
    process = await start(Layout.at(tmp_path / "none"))
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith("gorae-orchestrator: cannot start the orchestrator: ")
    assert os.linesep + "try  " in said.decode()


def test_only_main_chooses_the_event_loop() -> None:
    root = Path(__file__).parents[2]
    found = [
        str(path.relative_to(root))
        for package in ("agent", "orchestrator")
        for path in sorted((root / package).rglob("*.py"))
        if "import uvloop" in path.read_text()
    ]
    assert found == ["agent/main.py", "orchestrator/main.py"]


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
