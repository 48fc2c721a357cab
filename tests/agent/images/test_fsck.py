"""The store verified: each kind of damage is found, named, and put right when asked, unless something uses it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.images.store import ImageStore
from agent.kit.errors import UserError
from agent.ports import StoreCheck
from tests.agent.images.conftest import Shop
from tests.support.images import MadeImage, directory, file, hardlink, layer, sha, symlink

pytestmark = pytest.mark.host

TREE = layer(
    directory("d", 0o750, uid=5),
    file("d/f", "content", pax={"SCHILY.xattr.user.note": "x"}),
    file("d/g", "other", mode=0o4755),
    hardlink("d/h", "d/f"),
    symlink("d/l", "f"),
    file("implied/deep/x", "1"),
)
TOP = layer(file("d/.wh.g"), file("top", "1"))


async def check(shop: Shop, *, repair: bool = False, used: MadeImage | None = None) -> StoreCheck:
    in_use = {used.id: "shop/web"} if used else {}
    return await shop.store.shelf.check(repair, lambda: in_use, shop.said.append)


async def test_a_whole_store(shop: Shop) -> None:
    await shop.load(TREE, TOP)
    found = await check(shop)
    assert found.problems == []
    assert (found.images, found.blobs, found.layers) == (1, 4, 2)
    assert found.bytes > len(TREE) + len(TOP)
    assert not list((shop.images / "tmp").iterdir())
    assert [said["step"] for said in shop.said][-1] == "verifying layers"


def change(path: str, how: Callable[[Path], None]) -> Callable[[Shop], None]:
    def damage(shop: Shop) -> None:
        how(shop.layer(sha(TREE)) / path)

    return damage


def relink(path: Path) -> None:
    path.unlink()
    path.write_text("content")
    path.chmod(0o644)
    os.utime(path, (1_600_000_000, 1_600_000_000))


def redirect(path: Path) -> None:
    at = path.lstat().st_mtime_ns
    path.unlink()
    path.symlink_to("g")
    os.utime(path, ns=(at, at), follow_symlinks=False)


def rewrite(path: Path) -> None:
    """Other bytes, the same length and time: what a disk does."""
    at = path.stat().st_mtime_ns
    path.write_text("CONTENT")
    os.utime(path, ns=(at, at))


DAMAGES = [
    pytest.param(change("d/f", rewrite), "has other content", id="content"),
    pytest.param(change("d/g", lambda path: path.chmod(0o755)), "has another kind or mode", id="mode"),
    pytest.param(change("d", lambda path: os.chown(path, 6, 0)), "has another owner", id="owner"),
    pytest.param(change("d/g", lambda path: path.unlink()), "is missing", id="a file gone"),
    pytest.param(change("new", lambda path: path.write_text("")), "is not of the layer", id="a file more"),
    pytest.param(change("d/h", relink), "is not the hard link it should be", id="hard link"),
    pytest.param(change("d/l", redirect), "points elsewhere", id="symlink"),
    pytest.param(change("d/f", lambda path: os.utime(path, (1, 1))), "has another time", id="time"),
    pytest.param(change("d/f", lambda path: os.removexattr(path, "user.note")), "extended attributes", id="xattr"),
    pytest.param(change("", lambda path: path.rename(path.parent.parent / "lost")), "it is missing", id="all of it"),
]


@pytest.mark.parametrize(("damage", "why"), DAMAGES)
async def test_a_layer_that_is_not_what_its_blob_says(shop: Shop, damage: Callable[[Shop], None], why: str) -> None:
    made = await shop.load(TREE, TOP)
    damage(shop)
    (problem,) = (await check(shop)).problems
    assert (problem.what, problem.digest, problem.images, problem.done) == ("layer", sha(TREE), ["made:1"], "")
    assert why in problem.why
    (in_use,) = (await check(shop, repair=True, used=made)).problems
    assert (in_use.done, in_use.used_by) == ("", "shop/web")
    (repaired,) = (await check(shop, repair=True)).problems
    assert repaired.done == "unpacked again"
    assert (await check(shop)).problems == []
    assert not list((shop.images / "tmp").iterdir())


async def test_what_is_taken_while_the_check_runs_is_not_touched(shop: Shop) -> None:
    made = await shop.load(TREE)
    (shop.layer(sha(TREE)) / "d/f").unlink()
    users: dict[str, str] = {}

    def hear(said: dict[str, Any]) -> None:
        if said["step"] == "verifying layers":
            users[made.id] = "shop/web"

    inode = shop.layer(sha(TREE)).stat().st_ino
    (problem,) = (await shop.store.shelf.check(True, lambda: dict(users), hear)).problems
    assert (problem.done, problem.used_by) == ("", "shop/web")
    assert shop.layer(sha(TREE)).stat().st_ino == inode


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
@pytest.mark.parametrize("how", ["other bytes", "cut", "gone"])
async def test_a_broken_blob_goes_with_the_images_that_need_it(shop: Shop, which: str, how: str) -> None:
    made = await shop.load(TREE, name="made:1")
    other = await shop.load(TOP, name="other:1")
    manifest = (await shop.store.shelf.inspect("made:1"))["manifest"]
    digest = {"layer": sha(TREE), "config": made.id, "manifest": manifest}[which]
    blob = shop.images / "blobs/sha256" / digest[7:]
    raw = blob.read_bytes()
    if how == "gone":
        blob.unlink()
    else:
        blob.write_bytes(raw[:-1] if how == "cut" else b"X" + raw[1:])
    found = await check(shop)
    assert {problem.digest for problem in found.problems} >= {digest}
    assert all(problem.images == ["made:1"] for problem in found.problems)
    assert {problem.done for problem in (await check(shop, repair=True, used=made)).problems} == {""}
    repaired = await check(shop, repair=True)
    assert all("the next pull or up fetches them again" in problem.done for problem in repaired.problems)
    assert (await check(shop)).problems == []
    assert [info.id for info in await shop.store.list()] == [other.id]
    with pytest.raises(UserError, match="cannot find image made:1"):
        await shop.store.config("made:1")
    again = await shop.load(TREE, name="made:1")
    assert again.id == made.id and (await check(shop)).problems == []


async def test_strays_are_found_and_removed(shop: Shop) -> None:
    await shop.load(TREE)
    (shop.images / "blobs/sha256" / ("a" * 64)).write_bytes(b"x")
    (shop.images / "layers" / ("b" * 64)).mkdir()
    found = (await check(shop)).problems
    assert [(problem.what, problem.digest[:1]) for problem in found] == [("stray", "a"), ("stray", "b")]
    assert {problem.done for problem in (await check(shop, repair=True)).problems} == {"removed"}
    assert (await check(shop)).problems == []


async def test_a_full_disk_proves_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repair must not throw an image away because there was no room to look at it."""
    from agent.images.errors import no_space
    from agent.images.layers import Layers

    await shop.load(TREE)

    async def full(*_: object) -> None:
        raise no_space("a layer", 10, 1)

    monkeypatch.setattr(Layers, "again", full)
    with pytest.raises(UserError, match="cannot store a layer"):
        await check(shop, repair=True)
    assert len(await shop.store.list()) == 1


async def test_an_image_may_be_removed_while_it_is_checked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.images.layers import Layers

    await shop.load(TREE)
    again = Layers.again

    async def removing(self: Layers, *arguments: object) -> None:
        if await shop.store.list():
            await shop.store.remove("made:1", {})
        await again(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Layers, "again", removing)
    assert (await check(shop)).problems == []
    assert shop.files() == set()
    assert isinstance(shop.store, ImageStore)


async def test_a_layer_that_mends_a_stack_is_verified_too(shop: Shop) -> None:
    """The upper layer does not list the directory its file is in: a layer on top gives it back its mode."""
    lower, upper = layer(directory("d", 0o700, uid=5)), layer(file("d/x", "1"))
    made = await shop.load(lower, upper)
    (mended,) = {path.name for path in (shop.images / "layers").iterdir()} - {sha(lower)[7:], sha(upper)[7:]}
    assert (await check(shop)).problems == []
    (shop.images / "layers" / mended / "d").chmod(0o755)
    (problem,) = (await check(shop)).problems
    assert (problem.what, problem.digest, problem.images) == ("layer", f"sha256:{mended}", ["made:1"])
    assert "another kind or mode" in problem.why
    assert (await check(shop, repair=True, used=made)).problems[0].used_by == "shop/web"
    assert (await check(shop, repair=True)).problems[0].done
    assert (await check(shop)).problems == [] and shop.files() == set()
