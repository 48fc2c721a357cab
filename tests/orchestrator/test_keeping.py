"""When images go by themselves, and which never do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.images.store import ImageStore
from agent.kit import settings
from agent.kit.clock import FakeClock
from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.ports import GcRule
from agent.wire.memory import MemoryBroker
from orchestrator import keeping
from orchestrator.keeping import Limits, needed, wish
from orchestrator.store.memory import MemoryStore
from tests.support.fake_agent import FakeAgent
from tests.support.images import docker_archive, file, image, layer
from tests.support.orchestrating import ALICE, Orchestrating, orchestrating, stack

GB = 10**9


def usage(used: int, unused: int = 3) -> dict[str, Any]:
    return {"total": 100 * GB, "free": (100 - used) * GB, "unused": unused}


@pytest.mark.parametrize(
    ("found", "limits", "asked"),
    [
        pytest.param(usage(50), Limits(), None, id="room enough"),
        pytest.param(usage(85), Limits(), None, id="at the mark"),
        pytest.param(usage(90), Limits(), {"young": 3600.0, "bytes": 10 * GB}, id="above it: down to the low one"),
        pytest.param(usage(90, unused=0), Limits(), None, id="nothing could go"),
        pytest.param(usage(50), Limits(days=30), {"young": 3600.0, "bytes": 0, "old": 30 * 86400.0}, id="by age"),
        pytest.param(usage(90), Limits(days=1), {"young": 3600.0, "bytes": 10 * GB, "old": 86400.0}, id="both"),
    ],
)
def test_wish(found: dict[str, Any], limits: Limits, asked: dict[str, Any] | None) -> None:
    assert wish(found, limits) == asked


def test_limits_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "gorae.toml"
    file.write_text("[gc]\nhigh = 70\nlow = 60\ndays = 30\n")
    assert Limits(**settings.read(file)["gc"]) == Limits(70, 60, 30)
    for high, low in ((60, 70), (101, 80), (80, 0)):
        with pytest.raises(UserError, match="cannot keep the disk between") as caught:
            Limits(high, low)
        assert caught.value.code == "bad-settings" and "gorae.toml" in caught.value.hint


@pytest.mark.host
async def test_a_full_disk_gives_back_what_nothing_needs(tmp_path: Path) -> None:
    """With a store of real files: a disk that is always too full, an hour after the images were wanted."""
    clock = FakeClock()
    store = ImageStore(Layout.at(tmp_path), clock=clock)
    ids = {}
    for name, later in {"old:1": 0.0, "kept:1": 10.0, "young:1": keeping.YOUNG}.items():
        await clock.advance(later)
        made = image(layer(file(name, name)), docker=True, compression="plain")
        await store.load(docker_archive(tmp_path / "a.tar", [(made, [name])]), None, lambda _: None)
        ids[name] = made.id
    keep = {ids["kept:1"]: "shop, revision 1"}
    asked = wish(await store.shelf.usage(keep), Limits(high=1, low=1))
    assert asked is not None and asked["bytes"] > 0
    rule = GcRule(young=asked["young"], bytes=asked["bytes"])
    assert (await store.shelf.collect(keep, rule))[0] == ["old:1"]
    assert {info.id for info in await store.list()} == {ids["kept:1"], ids["young:1"]}
    assert (await store.shelf.check(False, dict, lambda _: None)).problems == []


@pytest.fixture
async def o(tmp_path: Path) -> AsyncIterator[tuple[Orchestrating, FakeAgent, Path]]:
    broker, socket = MemoryBroker(), tmp_path / "agent.sock"
    async with FakeAgent(broker).life(socket) as agent, orchestrating(broker, socket, MemoryStore()) as made:
        await made.until(lambda: made.ledger.bound)
        yield made, agent, socket


async def test_what_stacks_can_go_back_to_is_needed(o: tuple[Orchestrating, FakeAgent, Path]) -> None:
    made, _, _ = o
    await made.up(stack(web={"image": "web:1"}))
    await made.up(stack(web={"image": "web:2"}))
    await made.up(stack("other", db={"image": "db:1", "replicas": 0}))
    assert await needed(made.ledger) == {
        "sha256:web:1": "shop, revision 1",
        "sha256:web:2": "shop/web",
        "sha256:db:1": "other",
    }
    await made.controller.down("other", False, ALICE)
    await made.until(lambda: "other" not in made.ledger.stacks)
    assert "sha256:db:1" not in await needed(made.ledger)


async def test_a_disk_that_fills_makes_the_unused_go(
    o: tuple[Orchestrating, FakeAgent, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, agent, socket = o
    await made.up(stack(web={"image": "web:1"}))
    looks, stacks = 0, made.ledger.stacks
    record = stacks["shop"]

    async def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            agent.usage = usage(90)
            stacks["shop"] = replace(record, model={**record.model, "of_the_future": True})
        if looks == 3:
            stacks["shop"] = record
        if looks == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(made.ledger.clock, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        await keeping.keep_room(made.ledger, socket, Limits())
    collected = [request for request in agent.requests if request["op"] == "image-collect"]
    assert len(collected) == 1
    assert collected[0]["keep"] == {"sha256:web:1": "shop/web"} and collected[0]["bytes"] == 10 * GB
