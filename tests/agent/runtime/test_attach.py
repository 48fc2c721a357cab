"""Whoever is attached and does not read is let go, before much is kept for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from agent.kit.errors import Temporary
from agent.kit.layout import Layout
from agent.runtime.attach import Attached


@pytest.fixture
def conmon(tmp_path: Path) -> Iterator[socket.socket]:
    """Listens where one would, for the first attempt of t1."""
    directory = Layout.at(tmp_path).run / "at" / "t1.1"
    directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(directory / "attach"))
        listening.listen()
        yield listening


@pytest.mark.parametrize("size", [1, 8000])
async def test_what_waits_for_a_slow_reader_is_bounded(tmp_path: Path, conmon: socket.socket, size: int) -> None:
    attached = Attached(Layout.at(tmp_path), "t1", 1)
    peer, _ = conmon.accept()
    peer.setblocking(False)
    packets = 0
    with peer, pytest.raises(ConnectionError):  # it was let go
        while packets < 50_000:
            try:
                peer.send(b"\2" + bytes(size))
                packets += 1
            except BlockingIOError:
                pass
            await asyncio.sleep(0)
    assert packets * (size + 100) < 2 << 20
    with pytest.raises(Temporary, match="faster than this is read"):
        while True:
            await attached.read()
    attached.close()


async def test_what_is_patient_waits_for_its_reader(tmp_path: Path, conmon: socket.socket) -> None:
    attached = Attached(Layout.at(tmp_path), "t1", 1, patient=True)
    peer, _ = conmon.accept()
    with peer:
        peer.setblocking(False)
        sent, idle = 0, 0
        while idle < 100:
            try:
                peer.send(b"\2" + sent.to_bytes(4, "big") + bytes(8000))
                sent, idle = sent + 1, 0
            except BlockingIOError:
                idle += 1
            await asyncio.sleep(0)
        assert sent * 8000 < 4 << 20, "it is not kept here"
        got = 0
        while got < sent:
            read = await attached.read()
            assert read is not None
            assert int.from_bytes(read[1][:4], "big") == got
            got += 1
        peer.setblocking(True)
        peer.send(b"\3last")
    assert await attached.read() == (True, b"last")
    assert await attached.read() is None
    attached.close()


def test_one_that_waits_to_write_is_let_go_as_well(tmp_path: Path, conmon: socket.socket) -> None:
    """On the daemon's loop, which ends the whole process when a descriptor goes from under a writer."""

    async def talk() -> None:
        attached = Attached(Layout.at(tmp_path), "t1", 1)
        peer, _ = conmon.accept()
        writing = asyncio.ensure_future(attached.write(bytes(8 << 20)))  # more than the socket takes
        with peer, pytest.raises(ConnectionError):
            while True:
                try:
                    peer.send(b"\2" + bytes(8000), socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
                await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await writing
        attached.close()

    uvloop.run(talk())
