"""The store: archives in, names and ids, what is kept and what goes, crashes, and a loop that stays free."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import pytest

from agent.images import config as image_config
from agent.images.layers import Layers
from agent.kit.errors import GoraeError, Permanent, UserError
from agent.ports import ImageConfig
from tests.agent.images.conftest import Shop
from tests.support.images import compress, directory, docker_archive, file, image, layer, oci_archive, oci_layout, sha

pytestmark = pytest.mark.host

ONE, TWO, THREE = (layer(directory("etc"), file(f"etc/{name}", name)) for name in ("one", "two", "three"))


# Archives ----------------------------------------------------------------------------------------------------------------


async def test_docker_archive_keeps_id_and_healthcheck(shop: Shop) -> None:
    config = {"Cmd": ["a"], "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9}, "Shell": ["/bin/bash", "-c"]}
    made = image(ONE, TWO, docker=True, compression="plain", config=config)
    (info,) = await shop.store.load(shop.archive(made, "app:1", "registry.example.com/app:2"), None, shop.said.append)
    assert info.id == made.id
    assert info.names == ("app:1", "registry.example.com/app:2")
    assert (info.layers, info.size, info.created) == (2, 6, "2024-01-02T03:04:05Z")
    found = await shop.store.config("app:1")
    assert found.layers == (sha(ONE), sha(TWO))
    assert found.healthcheck is not None and found.healthcheck.interval == 1.0
    stored = json.loads((shop.images / "blobs/sha256" / made.id[7:]).read_bytes())
    assert stored["config"]["Shell"] == ["/bin/bash", "-c"]


async def test_several_images_share_a_layer(shop: Shop) -> None:
    first = image(ONE, TWO, docker=True, compression="plain")
    second = image(ONE, THREE, docker=True, compression="plain")
    archive = docker_archive(shop.root / "a.tar", [(first, ["a:1"]), (second, ["b:1"])])
    found = await shop.store.load(archive, None, shop.said.append)
    assert [info.id for info in found] == [first.id, second.id]
    assert len(list((shop.images / "layers").iterdir())) == 3


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
async def test_compressed_archive(shop: Shop, program: str) -> None:
    made = image(ONE, docker=True, compression="plain")
    packed = shop.root / "a.tar.packed"
    packing = await asyncio.create_subprocess_exec(
        program, "-c", str(shop.archive(made, "a:1")), stdout=asyncio.subprocess.PIPE
    )
    packed.write_bytes((await packing.communicate())[0])
    (info,) = await shop.store.load(packed, None, shop.said.append)
    assert info.id == made.id


async def test_oci_archive_and_layout_keep_their_manifests(shop: Shop) -> None:
    made, other = image(ONE), image(TWO, compression="zstd")
    archive = oci_archive(shop.root / "a.tar", [(made, "team/app:1"), (other, "team/app:2")])
    found = await shop.store.load(archive, None, shop.said.append)
    assert [(info.id, info.names) for info in found] == [(made.id, ("team/app:1",)), (other.id, ("team/app:2",))]
    assert (shop.images / "blobs/sha256" / made.digest[7:]).read_bytes() == made.manifest
    third = image(THREE)
    (info,) = await shop.store.load(oci_layout(shop.root / "a:b", [(third, "latest")]), "c:1", shop.said.append)
    assert (info.id, info.names) == (third.id, ("c:1",))


async def test_an_image_without_a_name_is_known_by_its_id(shop: Shop) -> None:
    made = image(ONE)
    (info,) = await shop.store.load(oci_archive(shop.root / "a.tar", [(made, None)]), None, shop.said.append)
    assert info.names == ()
    assert (await shop.store.config(made.id)).id == made.id
    assert (await shop.store.config(made.id[:19])).id == made.id
    assert (await shop.store.config(made.id[7:15])).id == made.id


@pytest.mark.parametrize(
    "kind",
    ["junk", "empty", "half-gzip", "half-zstd", "missing", "truncated", "fifo", "tar-of-nothing", "hostile-table"],
)
async def test_bad_archives(shop: Shop, kind: str) -> None:
    path = shop.root / "bad"
    good = shop.archive(image(ONE, docker=True, compression="plain"), "a:1").read_bytes()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        table = docker_archive(shop.root / "x.tar", []).read_bytes() if kind == "hostile-table" else b""
        content = {"junk": b"junk" * 999, "truncated": good[:700], "tar-of-nothing": layer(file("a")), "empty": b""}
        content |= {"half-gzip": compress(good, "gzip")[:-20], "half-zstd": compress(good, "zstd")[:-20]}
        path.write_bytes(content.get(kind, table))
    with pytest.raises(UserError, match="cannot load") as caught:
        await shop.store.load(path, None, shop.said.append)
    assert caught.value.code == "bad-archive"
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert shop.files() == set()


async def test_one_name_does_not_fit_two_images(shop: Shop) -> None:
    archive = oci_archive(shop.root / "a.tar", [(image(ONE), "a/b:1"), (image(TWO), "a/b:2")])
    with pytest.raises(UserError, match=r"holds 2 images"):
        await shop.store.load(archive, "c:1", shop.said.append)


# Root file systems -------------------------------------------------------------------------------------------------------


async def test_import_is_deterministic_and_complete(shop: Shop) -> None:
    tar = shop.root / "rootfs.tar"
    tar.write_bytes(ONE)
    config = {
        "Cmd": ["/bin/x"],
        "Env": ["A=1"],
        "User": "5",
        "Healthcheck": {"Test": ["CMD", "y"], "Timeout": 2 * 10**9},
    }
    first = await shop.store.import_rootfs(tar, "gorae/x:1", config, shop.said.append)
    other = Shop(shop.root / "other")
    second = await other.store.import_rootfs(tar, "y:2", dict(reversed(config.items())), other.said.append)
    assert first.id == second.id
    found = await shop.store.config("gorae/x:1")
    assert (found.command, found.environment, found.user, found.layers) == (("/bin/x",), ("A=1",), "5", (sha(ONE),))
    assert found.healthcheck is not None and found.healthcheck.timeout == 2.0
    assert (shop.layer(sha(ONE)) / "etc/one").read_text() == "one"
    third = await shop.store.import_rootfs(tar, "gorae/x:1", {"Cmd": ["/bin/z"]}, shop.said.append)
    assert third.id != first.id
    assert {step["step"] for step in shop.said} >= {"copying", "done"}


@pytest.mark.parametrize(
    ("name", "config", "content", "code"),
    [
        ("Bad Name", {}, ONE, "bad-image-name"),
        ("a:1", {"Command": ["x"]}, ONE, "bad-image-config"),
        ("a:1", {}, None, "bad-archive"),
        ("a:1", {}, b"not a tar" * 100, "bad-layer"),
    ],
    ids=["name", "config", "no-file", "junk"],
)
async def test_bad_imports(shop: Shop, name: str, config: dict[str, object], content: bytes | None, code: str) -> None:
    tar = shop.root / "rootfs.tar"
    if content is not None:
        tar.write_bytes(content)
    with pytest.raises(GoraeError, match=r"^cannot ") as caught:
        await shop.store.import_rootfs(tar, name, config, shop.said.append)
    assert caught.value.code == code
    assert shop.files() == set()


# Names and removal -------------------------------------------------------------------------------------------------------


async def test_missing(shop: Shop) -> None:
    for wanted in ("redis:7", "sha256:" + "0" * 64, "0123456789ab", "Not A Name"):
        with pytest.raises(UserError, match="cannot find image") as caught:
            await shop.store.config(wanted)
        assert caught.value.code == "image-missing"
        assert "gorae image ls" in caught.value.hint


async def test_a_name_moves_and_the_old_image_stays_by_id(shop: Shop) -> None:
    old = await shop.load(ONE)
    new = await shop.load(TWO)
    assert (await shop.store.config("made:1")).id == new.id
    assert (await shop.store.config(old.id)).layers == (sha(ONE),)
    assert {info.id: info.names for info in await shop.store.list()} == {new.id: ("made:1",), old.id: ()}


async def test_removal_counts_references(shop: Shop) -> None:
    first = await shop.load(ONE, TWO, name="a:1")
    second = await shop.load(ONE, THREE, name="b:1")
    gone, freed = await shop.store.remove("a:1", {second.id: "shop/web"})
    assert gone == ("a:1",)
    assert freed > len(TWO)
    assert not shop.layer(sha(TWO)).exists()
    assert shop.layer(sha(ONE)).exists() and shop.layer(sha(THREE)).exists()
    assert [info.id for info in await shop.store.list()] == [second.id]
    with pytest.raises(UserError):
        await shop.store.config(first.id)
    await shop.store.remove(second.id, {})
    assert shop.files() == set()


async def test_the_last_name_takes_the_image_along(shop: Shop) -> None:
    made = await shop.load(ONE, name="a:1")
    await shop.load(ONE, name="b:1")
    assert await shop.store.remove("a:1", {made.id: "shop/web"}) == (("a:1",), 0)
    with pytest.raises(UserError, match="cannot remove image b:1: shop/web uses it") as caught:
        await shop.store.remove("b:1", {made.id: "shop/web"})
    assert caught.value.code == "image-in-use"
    with pytest.raises(UserError, match="shop/web"):
        await shop.store.remove(made.id, {made.id: "shop/web"})
    gone, freed = await shop.store.remove("b:1", {})
    assert gone == ("b:1",) and freed > 0


async def test_by_id_every_name_goes(shop: Shop) -> None:
    made = await shop.load(ONE, name="a:1")
    await shop.load(ONE, name="b:1")
    gone, _ = await shop.store.remove(made.id[7:19], {})
    assert gone == ("a:1", "b:1")


# Crashes -----------------------------------------------------------------------------------------------------------------


async def test_everything_is_there_after_a_restart(shop: Shop) -> None:
    made = await shop.load(ONE, TWO)
    before = await shop.store.list()
    again = shop.open()
    assert await again.list() == before
    assert (await again.config("made:1")).id == made.id


async def test_a_start_clears_what_a_crash_left(shop: Shop) -> None:
    await shop.load(ONE)
    kept = shop.files()
    (shop.images / "layers" / ("a" * 64)).mkdir()
    (shop.images / "layers" / ("a" * 64) / "x").write_text("unpacked, but the index was not written")
    (shop.images / "blobs/sha256" / ("b" * 64)).write_text("a blob of nobody")
    (shop.images / "tmp/layer-1/root/deep").mkdir(parents=True)
    (shop.images / "tmp/pull-2").mkdir()
    (shop.images / "index.new").write_text('{"half')
    await shop.open().list()
    assert shop.files() == kept


@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "lost"])
async def test_an_index_that_cannot_be_read_is_not_taken_for_an_empty_store(shop: Shop, lost: bool) -> None:
    await shop.load(ONE)
    kept = shop.files()
    (shop.images / "index.json").unlink() if lost else (shop.images / "index.json").write_text("{")
    with pytest.raises(Permanent, match=r"cannot read .*index\.json"):
        await shop.open().list()
    assert shop.files() == kept


async def test_the_store_is_closed_to_the_hosts_users(shop: Shop) -> None:
    await shop.load(ONE)
    assert shop.images.stat().st_mode & 0o777 == 0o700


# At the same time --------------------------------------------------------------------------------------------------------


async def test_the_same_image_many_times_is_unpacked_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Path] = []
    real = Layers._run_child

    async def counted(self: Layers, one: object, target: Path, read: object) -> object:
        runs.append(target)
        return await real(self, one, target, read)  # type: ignore[arg-type]

    monkeypatch.setattr(Layers, "_run_child", counted)
    made = image(ONE, TWO, docker=True, compression="plain")
    archive = shop.archive(made, "a:1")
    await asyncio.gather(*(shop.store.load(archive, f"n{n}:1", shop.said.append) for n in range(6)))
    assert len(runs) == 2
    assert len((await shop.store.list())[0].names) == 6


async def test_a_removal_spares_what_a_load_counts_on(shop: Shop) -> None:
    """The loader finds layer ONE there already; the removal of its only image runs while it works."""
    big = layer(file("big", "x" * 20_000_000))
    await shop.load(ONE, name="old:1")
    made = image(ONE, big, docker=True, compression="plain")
    archive = shop.archive(made, "new:1")
    working = asyncio.Event()

    def watch(step: dict[str, object]) -> None:
        if step["step"] == "unpacking":
            working.set()

    async with asyncio.TaskGroup() as group:
        loading = group.create_task(shop.store.load(archive, None, watch))
        await working.wait()
        await shop.store.remove("old:1", {})
    assert loading.result()[0].id == made.id
    assert (shop.layer(sha(ONE)) / "etc/one").read_text() == "one"


async def test_a_cancelled_load_leaves_nothing(shop: Shop) -> None:
    raw = layer(*(file(f"f{n}", "x" * 100_000) for n in range(300)))
    archive = shop.archive(image(raw, docker=True, compression="plain"), "a:1")
    reading = asyncio.Event()
    task = asyncio.ensure_future(shop.store.load(archive, None, lambda _: reading.set()))
    await reading.wait()
    while not list(shop.images.glob("tmp/layer-*/root/f*")):
        await asyncio.sleep(0.001)  # what it does is only visible on disk
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shop.files() == set()
    assert await shop.store.list() == []


async def test_the_loop_stays_free(shop: Shop) -> None:
    raw = layer(*(file(f"f{n}", "x" * 50_000) for n in range(600)))
    archive = shop.archive(image(raw, docker=True, compression="plain"), "a:1")
    # Seconds of CPU by the loop's thread between two ticks: other processes do not count. The clock may go by 10 ms.
    spent: list[float] = []

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            spent.append(time.thread_time() - before)
            before = time.thread_time()

    watcher = asyncio.ensure_future(watch())
    await shop.store.load(archive, None, shop.said.append)
    watcher.cancel()
    assert max(spent) < 0.025


async def test_configs_are_read_beside_the_loop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be hostile ones of megabytes."""
    parse, readers = image_config.parse, set()

    def watched(id_: str, raw: bytes) -> ImageConfig:
        readers.add(threading.current_thread().name)
        return parse(id_, raw)

    monkeypatch.setattr(image_config, "parse", watched)
    await shop.load(layer(file("a")), name="made:1")
    await shop.store.config("made:1")
    assert readers and not any(name == "MainThread" for name in readers)
