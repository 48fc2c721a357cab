"""What is done with images that are here: inspect, tag, save and load again, collect."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.images.store import ImageStore
from agent.kit import threads
from agent.kit.clock import FakeClock
from agent.kit.errors import GoraeError, UserError
from agent.kit.layout import Layout
from agent.ports import GcRule
from tests.agent.images.conftest import Shop
from tests.support.images import ARCHITECTURE, Item, file, image, layer, oci_archive, oci_members, sha, write_tar

pytestmark = pytest.mark.host

ONE, TWO, THREE = (layer(file(name, name)) for name in ("one", "two", "three"))
CONFIG = {
    "Cmd": ["serve"],
    "Healthcheck": {"Test": ["CMD", "probe"], "Interval": 10**9},
    "Shell": ["/bin/bash", "-c"],
    "OnBuild": ["RUN x"],
}
Format = Literal["docker-archive", "oci-archive"]


async def saved(store: ImageStore, place: Path, form: Format, *names: str) -> Path:
    with place.open("wb") as out:
        async for piece in store.shelf.save(names, form):
            out.write(piece)
    return place


@pytest.mark.parametrize("docker", [True, False], ids=["docker's manifests", "OCI's manifests"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "plain"])
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_saved_and_loaded_elsewhere_it_is_the_same(
    shop: Shop, tmp_path: Path, form: Format, compression: str, docker: bool
) -> None:
    """Two images that share a layer, one of them with two names."""
    first = image(ONE, TWO, config=CONFIG, compression=compression, docker=docker)
    second = image(ONE, THREE, compression=compression, docker=docker)
    made = oci_archive(tmp_path / "in.tar", [(first, "team/a:1"), (second, "team/b:1")])
    await shop.store.load(made, None, shop.said.append)
    await shop.store.shelf.tag("team/a:1", "other/name:2")
    archive = await saved(shop.store, tmp_path / "out.tar", form, "team/a:1", "other/name:2", "team/b:1")
    assert not list((shop.images / "tmp").iterdir())

    other = ImageStore(Layout.at(tmp_path / "elsewhere"))
    await other.load(archive, None, shop.said.append)
    found = {info.id: info for info in await other.list()}
    assert {id_: info.names for id_, info in found.items()} == {
        first.id: ("other/name:2", "team/a:1"),
        second.id: ("team/b:1",),
    }
    assert (tmp_path / "elsewhere/state/images/blobs/sha256" / first.id[7:]).read_bytes() == first.config
    if form == "oci-archive":
        assert (await other.shelf.inspect("team/a:1"))["manifest"] == first.digest
    config = (await other.shelf.inspect(first.id))["config"]
    assert config == CONFIG


async def test_a_docker_archive_is_what_docker_writes(shop: Shop, tmp_path: Path) -> None:
    made = await shop.load(ONE, TWO, name="team/a:1")
    archive = await saved(shop.store, tmp_path / "out.tar", "docker-archive", "team/a:1")
    with tarfile.open(archive) as tar:
        table = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert table == [
            {
                "Config": f"{made.id[7:]}.json",
                "RepoTags": ["team/a:1"],
                "Layers": [f"{sha(ONE)[7:]}/layer.tar", f"{sha(TWO)[7:]}/layer.tar"],
            }
        ]
        assert tar.extractfile(table[0]["Layers"][0]).read() == ONE  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_another_program_reads_it(shop: Shop, tmp_path: Path, form: Format) -> None:
    made = await shop.load(ONE, name="team/a:1")
    archive = await saved(shop.store, tmp_path / "out.tar", form, "team/a:1")
    command = ["skopeo", "inspect", "--config", "--raw", f"{form}:{archive}"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert sha(done.stdout) == made.id


async def test_saving_by_id_gives_no_foreign_names_and_unknown_ones_are_refused_first(
    shop: Shop, tmp_path: Path
) -> None:
    made = await shop.load(ONE, name="team/a:1")
    await shop.store.shelf.tag("team/a:1", "team/b:1")
    archive = await saved(shop.store, tmp_path / "out.tar", "docker-archive", "team/b:1")
    assert json.loads(_member(archive, "manifest.json"))[0]["RepoTags"] == ["team/b:1"]
    archive = await saved(shop.store, tmp_path / "out.tar", "docker-archive", made.id)
    assert json.loads(_member(archive, "manifest.json"))[0]["RepoTags"] == ["team/a:1", "team/b:1"]
    with pytest.raises(UserError, match="cannot find image gone:1"):
        await saved(shop.store, tmp_path / "none.tar", "docker-archive", "team/a:1", "gone:1")


async def test_a_broken_layer_is_not_saved(shop: Shop, tmp_path: Path) -> None:
    await shop.load(ONE, name="team/a:1")
    (shop.images / "blobs/sha256" / sha(ONE)[7:]).write_bytes(gzip.compress(b"else"))
    with pytest.raises(GoraeError, match="gorae image fsck"):
        await saved(shop.store, tmp_path / "out.tar", "docker-archive", "team/a:1")


async def test_a_listener_that_leaves_ends_the_writing(shop: Shop) -> None:
    await shop.load(layer(file("big", "x" * 3_000_000)), name="team/a:1")
    pieces = shop.store.shelf.save(["team/a:1"], "docker-archive")
    await anext(pieces)
    async with asyncio.timeout(5):
        await pieces.aclose()  # type: ignore[attr-defined]
    assert not list((shop.images / "tmp").iterdir())


async def test_inspect(shop: Shop) -> None:
    made = image(ONE, TWO, docker=True, compression="plain", config=CONFIG)
    document = json.loads(made.config)
    document["history"] = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD one"},
        {"created_by": "ENV x", "empty_layer": True},
        {"created_by": "ADD two"},
    ]
    raw = json.dumps(document).encode()
    with tarfile.open(shop.root / "with-history.tar", "w") as tar:
        table = [{"Config": "c.json", "RepoTags": ["team/a:1"], "Layers": ["1.tar", "2.tar"]}]
        members = {"c.json": raw, "1.tar": ONE, "2.tar": TWO, "manifest.json": json.dumps(table).encode()}
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    await shop.store.load(shop.root / "with-history.tar", None, shop.said.append)
    found = await shop.store.shelf.inspect("team/a:1")
    assert (found["id"], found["names"]) == (sha(raw), ("team/a:1",))
    assert found["config"] == CONFIG
    assert [step.get("created_by") for step in found["history"]] == ["ADD one", "ENV x", "ADD two"]
    assert [step["size"] for step in found["history"]] == [3, 0, 3]
    assert [one["diff_id"] for one in found["layers"]] == [sha(ONE), sha(TWO)]


async def test_tags(shop: Shop) -> None:
    made = await shop.load(ONE, name="team/a:1")
    assert (await shop.store.shelf.tag(made.id[7:19], "b")).names == ("b:latest", "team/a:1")
    for new, code in (("b@" + made.id, "bad-image-name"), ("No Name", "bad-image-name")):
        with pytest.raises(UserError) as caught:
            await shop.store.shelf.tag("team/a:1", new)
        assert caught.value.code == code


async def test_collect_takes_the_unused_and_spares_what_was_just_wanted(shop: Shop) -> None:
    clock = FakeClock()
    store = ImageStore(Layout.at(shop.root), clock=clock)
    shop.store = store
    kept, gone = await shop.load(ONE, TWO, name="kept:1"), await shop.load(ONE, THREE, name="gone:1")
    rule = GcRule(old=0, young=0)
    assert await store.shelf.collect({kept.id}, rule, dry=True) == (
        ["gone:1"],
        len("three") + _blobs(shop, gone.id, THREE),
    )
    names, freed = await store.shelf.collect({kept.id}, rule)
    assert names == ["gone:1"] and freed > len("three")
    assert not shop.layer(sha(THREE)).exists() and shop.layer(sha(ONE)).exists()
    assert await store.shelf.collect({kept.id}, rule) == ([], 0)
    usage = await store.shelf.usage({})
    assert (usage["images"], usage["unused"], usage["unnamed"]) == (1, 1, 0)
    assert usage["reclaimable"] == usage["blobs"] + usage["layers"]
    assert 0 < usage["free"] <= usage["total"] == shutil.disk_usage(shop.images).total


def _blobs(shop: Shop, id_: str, *layers: bytes) -> int:
    """Bytes of config, manifest and these layers."""
    blobs = shop.images / "blobs/sha256"
    index = json.loads((shop.images / "index.json").read_text())
    digests = [id_, index["images"][id_]["manifest"], *map(sha, layers)]
    return sum((blobs / digest[7:]).stat().st_size for digest in digests)


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        found = tar.extractfile(name)
        assert found is not None
        return found.read()


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "archive"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(
            lambda members, made: members.pop(f"blobs/sha256/{made.digest[7:]}"), "is not in the", id="no manifest"
        ),
        pytest.param(
            lambda members, made: members.pop(f"blobs/sha256/{sha(made.layers[0])[7:]}"), "is not in the", id="no layer"
        ),
        pytest.param(
            lambda members, made: members.update({f"blobs/sha256/{made.digest[7:]}": made.manifest + b" "}),
            "came as",
            id="another manifest",
        ),
        pytest.param(
            lambda members, made: members.update({f"blobs/sha256/{made.id[7:]}": made.config[:-1] + b" "}),
            "came as",
            id="another config",
        ),
        pytest.param(
            lambda members, made: members.update({"index.json": b'{"manifests": [{"digest": "../../etc/shadow"}]}'}),
            "without a sha256 digest",
            id="a path for a digest",
        ),
    ],
)
async def test_a_spoiled_layout_is_refused(shop: Shop, tmp_path: Path, packed: bool, spoil: Any, says: str) -> None:
    made = image(ONE)
    members = oci_members([(made, "team/a:1")])
    spoil(members, made)
    place = write_tar(tmp_path / "in.tar", members) if packed else write_files(tmp_path / "in", members)
    with pytest.raises(GoraeError, match=says):
        await shop.store.load(place, None, shop.said.append)
    assert shop.files() == set()


async def test_a_layout_with_several_platforms_gives_this_machines(shop: Shop, tmp_path: Path) -> None:
    mine, other = image(ONE), image(TWO)
    entries = [
        {"mediaType": one.media, "digest": one.digest, "size": len(one.manifest), "platform": place}
        for one, place in (
            (other, {"os": "linux", "architecture": "s390x"}),
            (mine, {"os": "linux", "architecture": ARCHITECTURE}),
        )
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    members = oci_members([(mine, "team/a:1")])
    members[f"blobs/sha256/{sha(index)[7:]}"] = index
    note = {"org.opencontainers.image.ref.name": "team/a:1"}
    top = {"manifests": [{"digest": sha(index), "size": len(index), "annotations": note}]}
    members["index.json"] = json.dumps(top).encode()
    (info,) = await shop.store.load(write_tar(tmp_path / "in.tar", members), None, shop.said.append)
    assert info.id == mine.id


async def test_a_layout_with_a_symlink_for_a_blob_reads_nothing_else(shop: Shop, tmp_path: Path) -> None:
    made = image(ONE)
    place = write_files(tmp_path / "in", oci_members([(made, "team/a:1")]))
    blob = place / "blobs/sha256" / made.digest[7:]
    blob.unlink()
    blob.symlink_to("/etc/shadow")
    with pytest.raises(GoraeError, match="is not in the layout"):
        await shop.store.load(place, None, shop.said.append)


def write_files(place: Path, members: dict[str, bytes]) -> Path:
    for name, raw in members.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(raw)
    return place


async def test_who_reads_slowly_takes_no_thread_that_starts_containers(shop: Shop) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await shop.load(layer(Item("big", content=os.urandom(8 << 20))), name="made:1")
    saving = [shop.store.shelf.save(["made:1"], "oci-archive") for _ in range(10)]
    try:
        assert all(await asyncio.wait_for(asyncio.gather(*map(anext, saving)), 20))
        assert await asyncio.wait_for(threads.run("start a container", lambda: 7), 20) == 7
    finally:
        for one in saving:
            await one.aclose()  # type: ignore[attr-defined]
