"""Images that are removed while others ask for them: whoever is told that an image is here finds it here, and whole."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.images.blobs import Files
from agent.images.store import ImageStore
from agent.kit.clock import FakeClock
from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.ports import GcRule, Wanted
from tests.agent.images.conftest import Shop
from tests.support.images import Registry, file, image, layer, registry

pytestmark = pytest.mark.host

ALL = GcRule(old=0, young=0)  # gorae image prune --all
BASE = layer(file("base", "b" * 100_000))


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    with registry() as running:
        yield running


async def whole(store: ImageStore) -> set[str]:
    """The ids of what is here, every blob and layer verified."""
    assert (await store.shelf.check(False, dict, lambda _: None)).problems == []
    return {info.id for info in await store.list()}


async def test_removed_as_soon_as_it_has_come(shop: Shop, hub: Registry) -> None:
    name = hub.push("races/come", "1", image(BASE))
    pruned: list[asyncio.Task[Any]] = []

    def hear(said: dict[str, Any]) -> None:
        if said["step"] == "done" and "layer" not in said and not pruned:
            pruned.append(asyncio.ensure_future(shop.store.shelf.collect((), ALL)))

    found = await shop.store.ensure(Wanted(name), hear)
    assert (await pruned[0])[0] == [name]
    assert await whole(shop.store) == {found.id}
    assert await shop.store.shelf.collect((), ALL) == ([], 0), "an up is about to use it"


@asynccontextmanager
async def pruning(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """All goes, and stands still before it is on disk; at the end it goes on."""
    reached, go = threading.Event(), threading.Event()
    settle = Files.settle

    def stop(files: Files) -> None:
        monkeypatch.setattr(Files, "settle", settle)
        reached.set()
        assert go.wait(30)
        settle(files)

    monkeypatch.setattr(Files, "settle", stop)
    prune = asyncio.ensure_future(shop.store.shelf.collect((), ALL))
    await asyncio.to_thread(reached.wait, 30)
    yield
    go.set()
    assert (await prune)[0]


async def test_wanted_while_it_is_removed(shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(BASE)
    name = hub.push("races/wanted", "1", made)
    await shop.store.pull(name, shop.said.append)
    async with pruning(shop, monkeypatch):
        wanting = asyncio.ensure_future(shop.store.ensure(Wanted(name), shop.said.append))
        await asyncio.wait([wanting], timeout=0.05)
    assert (await wanting).id == made.id
    assert await whole(shop.store) == {made.id}


async def test_pulled_under_another_name_while_it_is_removed(
    shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image(BASE)
    await shop.store.pull(hub.push("races/one", "1", made), shop.said.append)
    other = hub.push("races/other", "1", made)
    async with pruning(shop, monkeypatch):
        looked = asyncio.Event()
        look = shop.store._fetcher.look

        async def looking(*asked: Any) -> Any:
            offer = await look(*asked)
            looked.set()
            return offer

        monkeypatch.setattr(shop.store._fetcher, "look", looking)
        pulling = asyncio.ensure_future(shop.store.pull(other, shop.said.append))
        await looked.wait()
        await asyncio.sleep(0)
    assert (await pulling).names == (other,)
    assert await whole(shop.store) == {made.id}


async def test_tagged_while_it_is_removed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.load(BASE, name="made:1")
    async with pruning(shop, monkeypatch):
        tagging = asyncio.ensure_future(shop.store.shelf.tag("made:1", "made:2"))
        await asyncio.wait([tagging], timeout=0.05)
    with pytest.raises(UserError) as caught:
        await tagging
    assert caught.value.code == "image-missing"
    assert await whole(shop.store) == set()


async def test_pulls_and_removals_at_random(shop: Shop, hub: Registry, request: pytest.FixtureRequest) -> None:
    dice = random.Random(request.config.getoption("--seed"))
    names = [hub.push(f"races/{n}", "1", image(BASE, layer(file(str(n), "x" * 50_000)))) for n in range(3)]
    clock = FakeClock()
    store = ImageStore(Layout.at(shop.root), clock=clock)
    for _ in range(request.config.getoption("--rounds") or 3):
        ensuring = [asyncio.ensure_future(store.ensure(Wanted(name), lambda _: None)) for name in names]
        while pending := [one for one in ensuring if not one.done()]:
            await asyncio.wait(pending, timeout=dice.random() * 0.05, return_when=asyncio.FIRST_COMPLETED)
            await store.shelf.collect((), ALL)
        wanted = {(await one).id for one in ensuring}
        assert await whole(store) == wanted and len(wanted) == 3
        await clock.advance(60)
        await store.shelf.collect((), ALL)
        assert await whole(store) == set()
