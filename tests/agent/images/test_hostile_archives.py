"""Archives and logins that want more of the agent than they may have."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from agent.images import archives, layouts, mending
from agent.images.auth import Logins
from agent.images.lanes import Lane
from agent.images.layer_writer import IMPLIED, IMPLIES, LayerTooBig
from agent.images.skopeo import Skopeo, SkopeoFailed
from agent.kit.errors import UserError


def header(kind: bytes, size: int) -> bytes:
    made = tarfile.TarInfo("x")
    made.type, made.size = kind, size
    return made.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("look", [lambda file: archives.read(file, file), layouts.OciLayout], ids=["table", "layout"])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME], ids=["pax", "long name"])
@pytest.mark.parametrize("how", ["one large", "many small"])
def test_headers_do_not_fill_memory(tmp_path: Path, how: str, kind: bytes, look: Callable[[Path], Any]) -> None:
    file = tmp_path / "image.tar"
    with file.open("wb") as out:
        if how == "one large":
            out.write(header(kind, 200 << 20))
            out.truncate(201 << 20)
        else:
            meta = b"1000000 a=" + b"b" * (1_000_000 - 11) + b"\n" if kind == tarfile.XHDTYPE else b"n" * 1_000_000
            for _ in range(100):
                out.write(header(kind, len(meta)) + meta + bytes(-len(meta) % 512) + header(tarfile.REGTYPE, 0))
    tracemalloc.start()
    try:
        with pytest.raises((UserError, tarfile.TarError)):
            look(file)
            raise tarfile.TarError  # a layout without blobs says so later
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["device", "pipe", "large"])
def test_a_layouts_table_is_a_small_file(tmp_path: Path, what: str) -> None:
    index = tmp_path / "index.json"
    if what == "device":
        index.symlink_to("/dev/full")  # zeros without end
    elif what == "pipe":
        os.mkfifo(index)
    else:
        index.touch()
        os.truncate(index, 1 << 40)
    with pytest.raises(UserError, match=r"index\.json|symbolic links"):
        archives.read(tmp_path, tmp_path)


async def test_two_logins_at_a_time_leave_the_agents_umask_alone(tmp_path: Path) -> None:
    go = asyncio.Event()
    seen = []

    async def login(host: str, user: str, password: str, auth: Path) -> None:
        await go.wait()
        seen.append(_umask())
        auth.touch(0o600)

    logins = Logins(tmp_path / "auth.json", SimpleNamespace(login=login))  # type: ignore[arg-type]
    before = _umask()
    both = [asyncio.ensure_future(logins.login("ghcr.io", "me", "secret")) for _ in range(2)]
    await asyncio.sleep(0)
    during = _umask()
    go.set()
    await asyncio.gather(*both)
    assert (during, seen, _umask()) == (before, [before] * 2, before)


def test_what_skopeo_writes_is_private_in_the_agents_own_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.images.skopeo._COMMAND", ("sh", "-c", "umask", "sh"))
    out = tmp_path / "out"

    async def start() -> int:
        with out.open("wb") as file:
            return await (await Skopeo(tmp_path)._start(out=file.fileno(), err=asyncio.subprocess.DEVNULL)).wait()

    before = _umask()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(start()) == 0
    assert (out.read_text(), _umask()) == ("0077\n", before)


def _umask() -> int:
    return int(
        next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "Umask" in line), 8
    )


def test_an_answer_too_long_for_skopeos_socket_is_a_failure_of_skopeo() -> None:
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, other:
        other.send(json.dumps({"success": False, "error": "x" * 100_000}).encode())
        with pytest.raises(SkopeoFailed):
            Lane(None, own, None)._answer()  # type: ignore[arg-type]


@pytest.mark.host
def test_a_layer_cannot_name_more_than_memory_holds(tmp_path: Path) -> None:
    """Through a symlink each entry of a layer can be short, and each directory's path long."""
    root = tmp_path / "layer"
    deep = root.joinpath(*["d" * 200] * 15)
    deep.mkdir(parents=True)
    os.setxattr(root, IMPLIES, b"y")
    for number in range(12_000):
        (deep / str(number)).mkdir()
    for at in (root / ("d" * 200), deep / "1"):
        os.setxattr(at, IMPLIED, b"y")
    (tmp_path / "work").mkdir()
    with pytest.raises(LayerTooBig, match="names of directories"):
        mending.mend([root, root], tmp_path / "work")
