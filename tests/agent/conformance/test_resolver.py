"""The resolver's link and its fake: what the loop relies on, with a resolver that runs and without one."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import pytest

from agent.fakes.resolver import FakeResolver
from agent.kit.errors import Temporary
from agent.kit.layout import Layout
from agent.resolver import room
from agent.resolver.link import ResolverLink
from tests.support.host import until
from tests.support.netns import Namespace

PATIENCE = 5.0
CLONE = Path(__file__).resolve().parents[3]


def zone(**names: str) -> str:
    """One view, of task t1."""
    view = {"names": {name: [address] for name, address in names.items()}, "pointers": {}}
    return json.dumps({"views": [view], "tasks": {"t1": {"view": 0, "own": {}, "outside": False, "servers": []}}})


class Subject:
    """`port` is told and asked; `look_up` is what a program of task t1 gets."""

    def __init__(self, port: FakeResolver | ResolverLink, space: Namespace | None, root: Path) -> None:
        self.port, self.space, self.root = port, space, root

    @property
    def net_ns(self) -> Path:
        return self.root / "run/tasks/t1/ns/net"

    async def look_up(self, name: str) -> str:
        """The address, "" when there is none, "silence" when nobody answers."""
        if isinstance(self.port, FakeResolver):
            if "t1" not in self.port.served:
                return "silence"
            document = json.loads(self.port.zone)
            seen = document["tasks"]["t1"]
            return "".join(document["views"][seen["view"]]["names"].get(name, ()))
        assert self.space is not None
        with self.space.socket(2) as client:
            client.bind(("127.0.0.1", 0))
            query = dns.message.make_query(name, "A")
            loop = asyncio.get_running_loop()
            await loop.sock_sendto(client, query.to_wire(), ("127.0.0.11", 53))
            try:
                raw = await asyncio.wait_for(loop.sock_recv(client, 4096), 1.0)
            except TimeoutError:
                return "silence"
        return "".join(str(item) for rrset in dns.message.from_wire(raw).answer for item in rrset)


@pytest.fixture
def root() -> Iterator[Path]:
    path = Path(f"/tmp/g-{secrets.token_hex(4)}")
    (path / "run/tasks/t1/ns").mkdir(parents=True)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def process(root: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A resolver, as the supervisor starts it; killed at the end."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-S", "-m", "agent.resolver.main", str(root / "run/resolver.sock")),
        env={"PYTHONPATH": str(CLONE)},
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@asynccontextmanager
async def linked(root: Path, space: Namespace) -> AsyncIterator[Subject]:
    net_ns = root / "run/tasks/t1/ns/net"
    net_ns.unlink(missing_ok=True)
    net_ns.symlink_to(space.path)
    link = ResolverLink(Layout.at(root))
    running = asyncio.ensure_future(link.run())
    try:
        yield Subject(link, space, root)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.host)])
async def subject(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Subject]:
    if request.param == "fake":
        yield Subject(FakeResolver(), None, root)
        return
    space = Namespace()
    space.run("ip", "link", "set", "lo", "up")
    async with process(root), linked(root, space) as made:
        yield made
    space.close()


async def test_a_task_is_answered_once_it_is_served(subject: Subject) -> None:
    subject.port.tell(lambda: zone(redis="10.181.0.17"))
    await subject.port.serve("t1")
    assert await subject.look_up("redis") == "10.181.0.17"
    assert await subject.look_up("other") == ""


async def test_to_serve_and_to_drop_twice_is_the_same(subject: Subject) -> None:
    subject.port.tell(lambda: zone(redis="10.181.0.17"))
    for _ in range(2):
        await subject.port.serve("t1")
        assert await subject.look_up("redis") == "10.181.0.17"
    for _ in range(2):
        await subject.port.drop("t1")
        assert await subject.look_up("redis") == "silence"
    await subject.port.serve("t1")
    assert await subject.look_up("redis") == "10.181.0.17"


async def test_the_latest_names_count(subject: Subject) -> None:
    await subject.port.serve("t1")
    for last in ("17", "18", "19"):
        subject.port.tell(lambda last=last: zone(redis=f"10.181.0.{last}"))
    await subject.port.serve("t1")
    assert await subject.look_up("redis") == "10.181.0.19"


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace()
    made.run("ip", "link", "set", "lo", "up")
    yield made
    made.close()


@pytest.mark.host
async def test_what_is_asked_while_it_is_away_waits(root: Path, space: Namespace) -> None:
    async with linked(root, space) as made:
        made.port.tell(lambda: zone(redis="10.181.0.17"))
        await made.port.serve("t1")
        asked = asyncio.ensure_future(made.look_up("redis"))
        await asyncio.sleep(0)  # sent: the socket takes it at once
        async with process(root):
            assert await asked == "10.181.0.17"


@pytest.mark.host
async def test_another_agent_takes_the_sockets_over(root: Path, space: Namespace) -> None:
    async with process(root) as resolver:
        async with linked(root, space) as first:
            first.port.tell(lambda: zone(redis="10.181.0.17"))
            await first.port.serve("t1")
            assert await first.look_up("redis") == "10.181.0.17"
        async with linked(root, space) as second:
            assert await second.look_up("redis") == "10.181.0.17", "nobody had told it anything"
            await second.port.serve("t1")
            resolver.kill()
            await resolver.wait()
            asked = asyncio.ensure_future(second.look_up("redis"))
            await asyncio.sleep(0)
            async with process(root):
                assert await asked == "10.181.0.17"


@pytest.mark.host
async def test_after_both_have_died_sockets_are_made_anew(root: Path, space: Namespace) -> None:
    async with process(root), linked(root, space) as first:
        first.port.tell(lambda: zone(redis="10.181.0.17"))
        await first.port.serve("t1")
    async with process(root), linked(root, space) as second:
        await second.port.serve("t1")
        assert await second.look_up("redis") == "10.181.0.17", "the names are in their file"


@pytest.mark.host
async def test_a_sandbox_that_was_made_anew_gets_sockets_of_its_own(root: Path, space: Namespace) -> None:
    anew = Namespace()
    anew.run("ip", "link", "set", "lo", "up")
    async with process(root), linked(root, space) as made:
        made.port.tell(lambda: zone(redis="10.181.0.17"))
        await made.port.serve("t1")
        made.net_ns.unlink()
        made.net_ns.symlink_to(anew.path)
        await made.port.serve("t1")
        assert await made.look_up("redis") == "silence"
        made.space = anew
        assert await made.look_up("redis") == "10.181.0.17"
    anew.close()


@pytest.mark.host
async def test_a_container_that_sits_on_the_port_is_told_of(root: Path, space: Namespace) -> None:
    with space.socket(2) as squatter:
        squatter.bind(("0.0.0.0", room.PORT))
        async with process(root), linked(root, space) as made:
            with pytest.raises(Temporary, match="cannot take the look-ups of task t1") as refused:
                await made.port.serve("t1")
    assert str(room.PORT) in refused.value.hint


@pytest.mark.host
def test_the_redirection_is_what_nft_reads(space: Namespace) -> None:
    udp, tcp = room.opened(space.path)
    for each in (udp, tcp):
        each.close()
    for _ in range(2):
        rules = space.run("nft", "list", "table", "ip", "gorae")
        assert "type filter hook output priority raw; policy accept;" in rules
        for protocol in ("udp", "tcp"):
            assert f"ip daddr 127.0.0.11 {protocol} dport 53 {protocol} dport set {room.PORT}" in rules
            assert f"ip saddr 127.0.0.11 {protocol} sport {room.PORT} {protocol} sport set 53" in rules
        assert rules.count(" set ") == 4
        udp, tcp = room.opened(space.path)  # again, in its place
        for each in (udp, tcp):
            each.close()


@pytest.mark.host
async def test_only_root_reaches_its_socket(root: Path) -> None:
    async with process(root):
        path = root / "run/resolver.sock"
        until(path.exists, "its socket", patience=PATIENCE)
        assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_uid == 0
        code = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect({str(path)!r})"
        other = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c", code), user=65534, group=65534, stderr=subprocess.PIPE
        )
        assert b"PermissionError" in (await other.communicate())[1]
