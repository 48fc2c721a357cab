"""What every Network promises, the fake included."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.fakes.network import FakeNetwork
from agent.kit.ids import instance_id
from agent.kit.layout import Layout
from agent.kit.pools import Slice
from agent.network.network import RoutedNetwork
from agent.ports import Attachment, NameFiles, Network, Serving
from agent.wire.messages import PublishedPort
from tests.support.netns import Namespace, moved


@dataclass
class Case:
    network: Network
    space: Callable[[], Path]
    read: Callable[[Path], str]

    def attachment(self, task: str, index: int = 0, *networks: str) -> Attachment:
        return Attachment(
            task, "visits", self.space(), index, Slice(3).address(index), frozenset(networks or {"visits_default"})
        )


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.host)])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    if request.param == "fake":
        fake = FakeNetwork()
        yield Case(fake, lambda: Path("/nowhere"), lambda path: fake.files[path])
        return
    root = Path(f"/tmp/g-{secrets.token_hex(4)}")
    root.mkdir(mode=0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        stack.enter_context(moved())

        def space() -> Path:
            made = Namespace()
            stack.callback(made.close)
            return made.path

        real = RoutedNetwork(Layout.at(root), instance_id(), Slice(3), registry=root / "forwarding.json")
        yield Case(real, space, Path.read_text)
        assert [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.fixture(autouse=True)
async def closed(case: Case) -> AsyncIterator[None]:
    yield
    for task in await case.network.list():
        await case.network.detach(task)
    await case.network.close()


async def test_nothing_is_there_at_first(case: Case) -> None:
    assert await case.network.list() == frozenset()


async def test_attached_tasks_are_listed_until_they_are_detached(case: Case) -> None:
    await case.network.attach(case.attachment("a", 0))
    await case.network.attach(case.attachment("b", 1, "front", "back"))
    assert await case.network.list() == {"a", "b"}
    await case.network.detach("a")
    assert await case.network.list() == {"b"}


async def test_a_task_without_networks_is_nothing_to_list(case: Case) -> None:
    attachment = case.attachment("a")
    await case.network.attach(attachment)
    for _ in range(2):
        await case.network.attach(replace(attachment, networks=frozenset()))
    assert await case.network.list() == frozenset()
    await case.network.detach("a")


async def test_everything_may_be_said_twice(case: Case) -> None:
    attachment = case.attachment("a")
    serving = Serving(attachment.address, "ready", (PublishedPort(target=80, published=8080),), Slice(3).virtual(0))
    for _ in range(2):
        await case.network.attach(attachment)
        await case.network.publish("a", serving)
    for _ in range(2):
        await case.network.publish("a", Serving(attachment.address, "gone"))
    for _ in range(2):
        await case.network.detach("a")
    assert await case.network.list() == frozenset()


async def test_what_never_was_can_be_taken_away(case: Case) -> None:
    await case.network.detach("nobody")
    await case.network.publish("nobody", Serving(Slice(3).address(9), "gone"))
    assert await case.network.list() == frozenset()


async def test_detaching_takes_a_task_out_of_its_ports(case: Case) -> None:
    attachment = case.attachment("a")
    await case.network.attach(attachment)
    serving = Serving(attachment.address, "ready", (PublishedPort(target=80, published=8080),))
    await case.network.publish("a", serving)
    await case.network.detach("a")
    assert await case.network.list() == frozenset()


async def test_many_at_once(case: Case) -> None:
    await asyncio.gather(*(case.network.attach(case.attachment(f"t{n}", n)) for n in range(8)))
    assert await case.network.list() == {f"t{n}" for n in range(8)}
    await asyncio.gather(*(case.network.detach(f"t{n}") for n in range(8)))
    assert await case.network.list() == frozenset()


async def test_names(case: Case) -> None:
    files = await case.network.names("a", "web-1", "10.181.24.16", {"redis": ("10.181.24.17",)})
    assert isinstance(files, NameFiles)
    assert case.read(files.hostname) == "web-1\n"
    hosts = case.read(files.hosts).splitlines()
    assert "127.0.0.1\tlocalhost" in hosts
    assert "10.181.24.16\tweb-1" in hosts
    assert "10.181.24.17\tredis" in hosts
    assert await case.network.names("a", "web-1", "10.181.24.16", {}) == files
    assert "redis" not in case.read(files.hosts)
    await case.network.detach("a")
    with pytest.raises((FileNotFoundError, KeyError)):
        case.read(files.hosts)


async def test_it_can_be_used_again_after_close(case: Case) -> None:
    await case.network.attach(case.attachment("a"))
    await case.network.detach("a")
    await case.network.close()
    await case.network.attach(case.attachment("b", 1))
    assert await case.network.list() == {"b"}


@pytest.mark.host
async def test_a_running_container_sees_rewritten_names(tmp_path: Path) -> None:
    """The same inode, mode 0644 under any umask: a bind mount of the file shows the change."""
    resolv = tmp_path / "resolv"
    resolv.write_text("nameserver 127.0.0.53\nsearch lan\n")
    network = RoutedNetwork(Layout.at(tmp_path), instance_id(), Slice(3), resolv=resolv)
    umask = os.umask(0o077)
    try:
        files = await network.names("a", "web", "10.181.24.16", {"redis": ("10.181.24.17", "10.181.24.18")})
    finally:
        os.umask(umask)
    paths = (files.hosts, files.resolv, files.hostname)
    inodes = [path.stat().st_ino for path in paths]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o644] * 3
    assert files.resolv.read_text() == "nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n"
    before = files.hosts.stat().st_mtime_ns
    await network.names("a", "web", "10.181.24.16", {"redis": ("10.181.24.18", "10.181.24.17")})
    assert files.hosts.stat().st_mtime_ns == before, "unchanged is not written"
    await network.names("a", "w", "10.181.24.16", {})
    assert [path.stat().st_ino for path in paths] == inodes
    assert files.hosts.read_text().endswith("10.181.24.16\tw\n")
    await network.close()
