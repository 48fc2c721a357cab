"""Pulling from a registry on loopback: what comes is what the registry has, byte for byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.images.skopeo import Skopeo, SkopeoFailed
from agent.images.store import ImageStore
from agent.kit.clock import FakeClock
from agent.kit.errors import GoraeError, Temporary, UserError
from agent.kit.layout import Layout
from tests.agent.images.conftest import Shop
from tests.support.images import ARCHITECTURE, Registry, file, image, layer, registry, sha

pytestmark = pytest.mark.host

ONE, TWO = layer(file("one", "1")), layer(file("two", "2"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.mark.parametrize("docker", [True, False], ids=["docker", "oci"])
@pytest.mark.parametrize("compression", ["gzip", "plain"])
async def test_manifest_config_and_digests_are_kept(shop: Shop, hub: Registry, docker: bool, compression: str) -> None:
    config = {"Cmd": ["x"], "Healthcheck": {"Test": ["CMD", "y"], "Interval": 10**9}, "Shell": ["/bin/bash"]}
    made = image(ONE, TWO, docker=docker, compression=compression, config=config)
    name = hub.push(f"kept/{compression}", "1", made)
    info = await shop.store.pull(name, shop.said.append)
    assert info.id == made.id
    assert info.names == (name,)
    assert info.digests == (f"{hub.host}/kept/{compression}@{made.digest}",)
    assert (shop.images / "blobs/sha256" / made.digest[7:]).read_bytes() == made.manifest
    assert (shop.images / "blobs/sha256" / made.id[7:]).read_bytes() == made.config
    found = await shop.store.config(name)
    assert found.healthcheck is not None and found.healthcheck.test == ("CMD", "y")
    assert (shop.layer(sha(TWO)) / "two").read_text() == "2"
    assert (shop.said[0]["step"], shop.said[-1]["step"]) == ("asking", "done")


async def test_by_digest(shop: Shop, hub: Registry) -> None:
    made = image(ONE)
    name = hub.push("digest/app", "1", made)
    pinned = f"{hub.host}/digest/app@{made.digest}"
    await shop.store.pull(name, shop.said.append)
    assert (await shop.store.config(pinned)).id == made.id
    await shop.store.pull(pinned, shop.said.append)
    assert set((await shop.store.list())[0].names) == {name, pinned}


async def test_index_gives_this_machine_its_image_under_the_indexs_digest(shop: Shop, hub: Registry) -> None:
    mine, other = image(ONE), image(TWO)
    raw = hub.push_index("multi/app", "1", {"s390x": other, ARCHITECTURE: mine})
    info = await shop.store.pull(f"{hub.host}/multi/app:1", shop.said.append)
    assert info.id == mine.id
    assert info.digests == (f"{hub.host}/multi/app@{sha(raw)}",)


async def test_another_platform_when_it_is_asked_for(shop: Shop, hub: Registry) -> None:
    mine, other = image(ONE), image(TWO)
    hub.push_index("multi/app", "3", {ARCHITECTURE: mine, "s390x": other})
    name = f"{hub.host}/multi/app:3"
    assert (await shop.store.pull(name, shop.said.append, "linux/s390x")).id == other.id
    assert (await shop.store.pull(name, shop.said.append)).id == mine.id
    with pytest.raises(UserError) as caught:
        await shop.store.pull(name, shop.said.append, "linux/riscv64")
    assert caught.value.code == "wrong-platform" and "linux/s390x" in str(caught.value)


async def test_index_without_this_machine(shop: Shop, hub: Registry) -> None:
    hub.push_index("multi/app", "2", {"s390x": image(TWO)})
    with pytest.raises(UserError) as caught:
        await shop.store.pull(f"{hub.host}/multi/app:2", shop.said.append)
    assert caught.value.code == "wrong-platform"


async def test_a_moved_tag_is_followed(shop: Shop, hub: Registry) -> None:
    first, second = image(ONE), image(TWO)
    name = hub.push("moved/app", "1", first)
    await shop.store.pull(name, shop.said.append)
    hub.push("moved/app", "1", second)
    assert (await shop.store.pull(name, shop.said.append)).id == second.id
    assert (await shop.store.config(first.id)).id == first.id


async def test_what_is_here_is_not_fetched_again(shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    name = hub.push("again/app", "1", image(ONE))
    await shop.store.pull(name, shop.said.append)

    async def never(*_: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(Skopeo, "proxy", never)
    assert (await shop.store.pull(name, shop.said.append)).names == (name,)


async def test_many_at_once_are_one(shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(ONE, TWO)
    name = hub.push("once/app", "1", made)
    asked: list[str] = []
    real = Skopeo.manifest

    async def counted(self: Skopeo, reference: Any, auth: Path) -> bytes:
        asked.append(str(reference))
        return await real(self, reference, auth)

    monkeypatch.setattr(Skopeo, "manifest", counted)
    heard: list[list[object]] = [[] for _ in range(5)]
    found = await asyncio.gather(*(shop.store.pull(name, one.append) for one in heard))
    assert {info.id for info in found} == {made.id}
    assert len(asked) == 1
    assert all(one[-1] == heard[0][-1] for one in heard)


@pytest.mark.parametrize("where", ["known/app:nope", "never/there:1"], ids=["tag", "repository"])
async def test_missing_in_the_registry(shop: Shop, hub: Registry, where: str) -> None:
    hub.push("known/app", "1", image(ONE))
    with pytest.raises(UserError, match="cannot pull") as caught:
        await shop.store.pull(f"{hub.host}/{where}", shop.said.append)
    assert caught.value.code == "image-missing"
    assert "gorae image ls" in caught.value.hint
    assert shop.files() == set()


async def test_a_registry_that_is_away_is_tried_again_then_said(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    clock = FakeClock()
    store = ImageStore(Layout.at(shop.root), clock=clock)
    pulling = asyncio.ensure_future(store.pull(f"127.0.0.1:{port}/app:1", shop.said.append))
    started = clock.now()
    while not pulling.done():
        await clock.advance(1)
        await asyncio.wait([pulling], timeout=0.02)
    with pytest.raises(Temporary, match="its registry is away") as caught:
        pulling.result()
    assert caught.value.code == "registry-away"
    assert clock.now() - started >= 3


async def test_a_registry_that_comes_back_is_enough(shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(ONE)
    name = hub.push("back/app", "1", made)
    real, calls = Skopeo.manifest, iter(range(9))

    async def flaky(self: Skopeo, reference: Any, auth: Path) -> bytes:
        if next(calls) == 0:
            raise SkopeoFailed("pinging container registry: dial tcp: connection refused")
        return await real(self, reference, auth)

    monkeypatch.setattr(Skopeo, "manifest", flaky)
    assert (await shop.store.pull(name, shop.said.append)).id == made.id


async def test_no_room_is_said_before_the_download(shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    name = hub.push("room/app", "1", image(ONE))
    monkeypatch.setattr("agent.images.blobs.Files.free", lambda _: 10)
    with pytest.raises(GoraeError) as caught:
        await shop.store.pull(name, shop.said.append)
    assert caught.value.code == "no-space"
    assert caught.value.evidence["free"] == 10
    assert int(str(caught.value.evidence["needed"])) > 100
    assert shop.files() == set()
