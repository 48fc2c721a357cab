"""Each blob is fetched once, and again only when a registry fails; what comes half never counts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.images.lanes import Lane
from agent.images.skopeo import SkopeoFailed
from agent.images.store import ImageStore
from agent.kit.clock import FakeClock
from agent.kit.errors import Permanent, Temporary
from agent.kit.layout import Layout
from tests.agent.images.conftest import Shop
from tests.support.fronts import Fault, Front, front
from tests.support.images import Item, MadeImage, Registry, file, image, layer, registry, sha

pytestmark = pytest.mark.host

BASE = layer(Item("base", content=os.urandom(300_000)))
ONE, TWO = layer(file("one", "1")), layer(file("two", "2"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.fixture
def shy(hub: Registry) -> Iterator[Front]:
    with front(hub.host) as made:
        yield made


def layers(*made: MadeImage) -> set[str]:
    return {sha(raw) for one in made for raw in one.layers}


async def test_images_that_share_a_layer_fetch_it_once_together(shop: Shop, hub: Registry, shy: Front) -> None:
    made = [image(BASE, ONE), image(BASE, TWO), image(BASE)]
    names = [hub.push(f"shared/{number}", "1", one).replace(hub.host, shy.host) for number, one in enumerate(made)]
    await asyncio.gather(*(shop.store.pull(name, shop.said.append) for name in names))
    assert {digest: shy.fetched[digest] for digest in layers(*made)} == dict.fromkeys(layers(*made), 1)


async def test_a_layer_that_is_here_is_not_fetched_for_another_image(shop: Shop, hub: Registry, shy: Front) -> None:
    first, second = image(BASE, ONE), image(BASE, TWO)
    for number, made in enumerate((first, second)):
        await shop.store.pull(hub.push(f"later/{number}", "1", made).replace(hub.host, shy.host), shop.said.append)
    assert {shy.fetched[digest] for digest in layers(first, second)} == {1}


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "hang up"])
async def test_what_fails_for_now_is_tried_again(shop: Shop, hub: Registry, shy: Front, fault: Fault) -> None:
    made = image(layer(Item("x", content=os.urandom(100_000))))
    name = hub.push("flaky/app", "1", made).replace(hub.host, shy.host)
    shy.faults = [fault] * 2
    assert (await shop.store.pull(name, shop.said.append)).id == made.id
    assert (shop.images / "blobs/sha256" / sha(made.layers[0])[7:]).read_bytes() == made.layers[0]
    assert not list(shop.images.glob("tmp/*"))


async def test_a_registry_that_stays_broken_is_given_up_with_its_words(shop: Shop, hub: Registry, shy: Front) -> None:
    name = hub.push("broken/app", "1", image(BASE, ONE)).replace(hub.host, shy.host)
    shy.faults = ["503"] * 500
    clock = FakeClock()
    store = ImageStore(Layout.at(shop.root), clock=clock)
    pulling = asyncio.ensure_future(store.pull(name, shop.said.append))
    while not pulling.done():
        await clock.advance(1)
        await asyncio.wait([pulling], timeout=0.02)
    with pytest.raises(Temporary, match=r"its registry is away.*503") as caught:
        pulling.result()
    assert caught.value.code == "registry-away"
    again = [said for said in shop.said if said["step"] == "again"]
    assert [said["done"] for said in again] == [2, 3, 4, 5]
    assert "503" in again[0]["note"] and "try 2 in" in again[0]["note"]
    assert shop.files() == set()


async def test_what_is_not_its_digest_is_never_kept(shop: Shop, hub: Registry, shy: Front) -> None:
    name = hub.push("spoiled/app", "1", image(BASE, ONE)).replace(hub.host, shy.host)
    shy.faults = ["other bytes"]
    with pytest.raises(Permanent, match=f"cannot pull {name}: corrupted blob"):
        await shop.store.pull(name, shop.said.append)
    assert shop.files() == set() and await shop.store.list() == []


async def test_progress_of_each_layer(shop: Shop, hub: Registry, shy: Front) -> None:
    made = image(BASE, ONE)
    name = hub.push("told/app", "1", made).replace(hub.host, shy.host)
    shy.gate.clear()
    half = asyncio.Event()

    def hear(said: dict[str, Any]) -> None:
        shop.said.append(said)
        if said["step"] == "pulling" and said.get("layer") == sha(made.layers[0])[7:19]:
            half.set()

    pulling = asyncio.ensure_future(shop.store.pull(name, hear))
    async with asyncio.timeout(10):
        await half.wait()
    shy.gate.set()
    await pulling
    for raw in made.layers:
        told = [said for said in shop.said if said.get("layer") == sha(raw)[7:19]]
        assert told[-1]["step"] == "done" and told[-1]["done"] == told[-1]["total"] == len(raw)
        steps = list(dict.fromkeys(said["step"] for said in told))
        assert steps == [step for step in ("pulling", "unpacking", "done") if step in steps] and "unpacking" in steps
    halves = [said["done"] for said in shop.said if said["step"] == "pulling" and "layer" in said]
    assert len(made.layers[0]) // 2 in halves


async def test_a_cancelled_pull_ends_its_children_and_leaves_nothing(shop: Shop, hub: Registry, shy: Front) -> None:
    name = hub.push("left/app", "1", image(BASE, ONE)).replace(hub.host, shy.host)
    shy.gate.clear()
    pulling = asyncio.ensure_future(shop.store.pull(name, shop.said.append))
    await asyncio.to_thread(shy.halfway.wait, 10)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert shop.files() == set()
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in Path(own).read_text().split()]
    assert "skopeo" not in names


async def test_one_of_two_pulls_leaves_and_the_other_goes_on(shop: Shop, hub: Registry, shy: Front) -> None:
    """They share a layer; whose flight it was must not matter."""
    first, second = image(BASE, ONE), image(BASE, TWO)
    names = [hub.push(f"pair/{n}", "1", made).replace(hub.host, shy.host) for n, made in enumerate((first, second))]
    shy.gate.clear()
    leaving = asyncio.ensure_future(shop.store.pull(names[0], shop.said.append))
    await asyncio.to_thread(shy.halfway.wait, 10)
    staying = asyncio.ensure_future(shop.store.pull(names[1], shop.said.append))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    shy.gate.set()
    assert (await staying).id == second.id


async def test_silence_ends_a_fetch(shop: Shop, hub: Registry, shy: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.images.lanes.STALLED", 0.3)
    stalled: list[str] = []
    fetch = Lane.fetch

    async def noted(self: Lane, *arguments: object) -> None:
        try:
            await fetch(self, *arguments)  # type: ignore[arg-type]
        except SkopeoFailed as error:
            stalled.append(str(error))
            shy.gate.set()
            raise

    monkeypatch.setattr(Lane, "fetch", noted)
    made = image(BASE)
    name = hub.push("silent/app", "1", made).replace(hub.host, shy.host)
    shy.gate.clear()
    assert (await shop.store.pull(name, shop.said.append)).id == made.id
    assert "nothing came for" in stalled[0]
