"""Images: what the loop relies on, of the fake and of the real store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.fakes.images import FakeImages
from agent.images.names import parse
from agent.images.store import ImageStore
from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.ports import Images, Wanted
from tests.support.images import docker_archive, file, image, layer, registry

CONFIG: dict[str, Any] = {"Cmd": ["serve"], "Entrypoint": ["/e"], "Env": ["A=1"], "User": "5:6", "WorkingDir": "/w"}


@dataclass
class Subject:
    images: Images
    root: Path
    published: Callable[[str], str]  # repository:tag → the name under which pull() finds an image with CONFIG
    archive: Callable[[str], Path]  # name → a file for load()
    said: list[dict[str, Any]] = field(default_factory=list)

    def tar(self) -> Path:
        path = self.root / "rootfs.tar"
        path.write_bytes(layer(file("a", "b")))
        return path


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.host)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    root = Path(tempfile.mkdtemp(prefix="g-images-", dir="/tmp"))
    made = image(layer(file("a", "b")), docker=True, compression="plain", config=CONFIG)
    if request.param == "fake":
        fake = FakeImages()

        def publish(name: str) -> str:
            fake.registry[parse(f"127.0.0.1:5000/{name}").full] = CONFIG
            return f"127.0.0.1:5000/{name}"

        def archive(name: str) -> Path:
            fake.archives[root / "archive.tar"] = [(name, CONFIG)]
            return root / "archive.tar"

        yield Subject(fake, root, publish, archive)
    else:
        with registry() as hub:
            yield Subject(
                ImageStore(Layout.at(root)),
                root,
                lambda name: hub.push(name.partition(":")[0], name.partition(":")[2], made),
                lambda name: docker_archive(root / "archive.tar", [(made, [name])]),
            )
    shutil.rmtree(root)


async def test_empty_at_first(subject: Subject) -> None:
    assert list(await subject.images.list()) == []


async def test_missing(subject: Subject) -> None:
    for call in (subject.images.config("nope:1"), subject.images.remove("nope:1", {})):
        with pytest.raises(UserError, match="cannot find image nope:1") as caught:
            await call
        assert caught.value.code == "image-missing"


async def test_imported(subject: Subject) -> None:
    info = await subject.images.import_rootfs(subject.tar(), "team/app:1", CONFIG, subject.said.append)
    assert info.names == ("team/app:1",)
    assert info.layers == 1 and info.size > 0
    for name in ("team/app:1", "docker.io/team/app:1", info.id):
        found = await subject.images.config(name)
        assert (found.id, found.command, found.entrypoint) == (info.id, ("serve",), ("/e",))
        assert (found.environment, found.user, found.working_dir) == (("A=1",), "5:6", "/w")
    assert subject.said[-1]["step"] == "done" and subject.said[-1]["image"] == "team/app:1"
    again = await subject.images.import_rootfs(subject.tar(), "team/app:1", CONFIG, subject.said.append)
    assert again == info


async def test_pulled(subject: Subject) -> None:
    name = subject.published("team/app:1")
    info = await subject.images.pull(name, subject.said.append)
    assert info.names == (name,)
    assert (await subject.images.config(name)).command == ("serve",)
    assert subject.said[-1]["step"] == "done"
    assert await subject.images.pull(name, subject.said.append) == info


async def test_pulled_in_vain(subject: Subject) -> None:
    name = subject.published("team/app:1").replace("app:1", "app:none")
    with pytest.raises(UserError, match="cannot pull") as caught:
        await subject.images.pull(name, subject.said.append)
    assert caught.value.code == "image-missing"


async def test_ensured(subject: Subject) -> None:
    name = subject.published("team/app:1")
    with pytest.raises(UserError, match="cannot find image") as caught:
        await subject.images.ensure(Wanted(name, "never"), subject.said.append)
    assert caught.value.code == "image-missing"
    pulled = await subject.images.ensure(Wanted(name), subject.said.append)
    assert pulled.digest == await subject.images.latest(name) != ""
    said = len(subject.said)
    assert await subject.images.ensure(Wanted(name, "never"), subject.said.append) == pulled
    assert await subject.images.ensure(Wanted(name), subject.said.append) == pulled
    assert len(subject.said) == said  # what is here was not asked for again
    assert await subject.images.ensure(Wanted(name, "always"), subject.said.append) == pulled
    assert len(subject.said) > said


async def test_a_lock_holds_when_its_name_has_moved(subject: Subject) -> None:
    name = subject.published("team/app:1")
    locked = await subject.images.ensure(Wanted(name), subject.said.append)
    other = subject.published("team/other:1")
    lock = Wanted(other, "missing", id=locked.id, digest=locked.digest)
    assert await subject.images.ensure(lock, subject.said.append) == locked


async def test_the_latest_of_what_is_not_there(subject: Subject) -> None:
    name = subject.published("team/app:1").replace("app:1", "app:none")
    with pytest.raises(UserError, match="cannot pull") as caught:
        await subject.images.latest(name)
    assert caught.value.code == "image-missing"


async def test_loaded(subject: Subject) -> None:
    (info,) = await subject.images.load(subject.archive("app:1"), None, subject.said.append)
    assert info.names == ("app:1",)
    (renamed,) = await subject.images.load(subject.archive("app:1"), "other:2", subject.said.append)
    assert (renamed.id, renamed.names) == (info.id, ("app:1", "other:2"))
    with pytest.raises(UserError) as caught:
        await subject.images.load(subject.root / "missing.tar", None, subject.said.append)
    assert caught.value.code == "bad-archive"


async def test_bad_names(subject: Subject) -> None:
    for call in (
        subject.images.pull("Not/Lower", subject.said.append),
        subject.images.import_rootfs(subject.tar(), "a b", {}, subject.said.append),
    ):
        with pytest.raises(UserError) as caught:
            await call
        assert caught.value.code == "bad-image-name"


async def test_removed(subject: Subject) -> None:
    info = await subject.images.import_rootfs(subject.tar(), "a:1", CONFIG, subject.said.append)
    await subject.images.import_rootfs(subject.tar(), "b:1", CONFIG, subject.said.append)
    assert await subject.images.remove("a:1", {info.id: "shop/web"}) == (("a:1",), 0)
    with pytest.raises(UserError, match="cannot remove image b:1: shop/web uses it") as caught:
        await subject.images.remove("b:1", {info.id: "shop/web"})
    assert caught.value.code == "image-in-use"
    gone, freed = await subject.images.remove("b:1", {})
    assert gone == ("b:1",) and freed > 0
    assert list(await subject.images.list()) == []
    with pytest.raises(UserError):
        await subject.images.config(info.id)


async def test_removed_by_id(subject: Subject) -> None:
    info = await subject.images.import_rootfs(subject.tar(), "a:1", CONFIG, subject.said.append)
    await subject.images.import_rootfs(subject.tar(), "b:1", CONFIG, subject.said.append)
    gone, _ = await subject.images.remove(info.id, {})
    assert gone == ("a:1", "b:1")
