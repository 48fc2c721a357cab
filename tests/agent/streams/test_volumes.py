"""Requests about volumes: what is in use is not deleted, and who uses it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.fakes.volumes import FakeVolumes
from agent.kit.errors import GoraeError, UserError
from agent.ports import VolumeInfo
from agent.streams.volumes import VolumeRequests

FOUND = {
    info.name: info
    for info in (
        VolumeInfo("shop_data", stack="shop"),
        VolumeInfo("t1-0123456789ab", stack="shop", owner="web.1"),
        VolumeInfo("t9-0123456789ab", stack="shop", owner="web.1"),
        VolumeInfo("mine"),
        VolumeInfo("held_data", stack="held"),
    )
}
USERS = {"shop_data": "shop/db", "lineage:t1": "shop/web"}
NAMED = {"stack:held": "held"}


class Users:
    def __init__(self) -> None:
        self.running: dict[str, str] = {}

    def volume_users(self, *, running: bool = False) -> dict[str, str]:
        return self.running if running else USERS


class Place:
    def __init__(self) -> None:
        self.volumes, self.users = FakeVolumes(), Users()
        self.volumes.volumes = dict(FOUND)
        self.volumes.sizes = dict.fromkeys(FOUND, 10)
        self.requests = VolumeRequests(self.volumes, self.users)
        self.progress: list[Any] = []

    async def call(self, op: str, **request: Any) -> Any:
        async def send(kind: str, value: Any) -> None:
            self.progress.append((kind, value))

        return await self.requests.operations[op](request, send)

    async def fails(self, op: str, code: str, **request: Any) -> GoraeError:
        with pytest.raises(GoraeError) as caught:
            await self.call(op, **request)
        assert caught.value.code == code
        return caught.value


@pytest.fixture
def place() -> Place:
    return Place()


async def test_each_is_listed_with_who_uses_it(place: Place) -> None:
    users = {volume["name"]: volume["used_by"] for volume in await place.call("volumes", named=NAMED)}
    assert users == {
        "held_data": "held",
        "mine": "",
        "shop_data": "shop/db",
        "t1-0123456789ab": "shop/web",
        "t9-0123456789ab": "",
    }
    one = await place.call("volume", name="mine")
    assert (one["size"], one["labels"], one["stack"]) == (10, {}, "")
    await place.fails("volume", "volume-unknown", name="none")


@pytest.mark.parametrize(
    ("all_", "removed", "left"), [(False, ["t9-0123456789ab"], 1), (True, ["mine", "t9-0123456789ab"], 0)]
)
async def test_prune(place: Place, all_: bool, removed: list[str], left: int) -> None:
    answer = await place.call("volume-prune", all=all_, named=NAMED)
    assert answer == {"removed": removed, "freed": 10 * len(removed), "left": left}
    assert place.volumes.volumes.keys() == FOUND.keys() - removed


async def test_all_or_none_are_removed(place: Place) -> None:
    error = await place.fails("volume-remove", "volume-in-use", names=["mine", "shop_data"])
    assert error.message == "cannot remove volume shop_data: shop/db uses it" and "gorae down shop" in error.hint
    await place.fails("volume-remove", "volume-unknown", names=["mine", "none"])
    await place.fails("volume-remove", "volume-in-use", names=["held_data"], named=NAMED)
    assert place.volumes.volumes == FOUND
    assert await place.call("volume-remove", names=["mine", "mine"]) == {"removed": ["mine"], "freed": 10}
    assert "mine" not in place.volumes.volumes


@pytest.mark.parametrize("op", ["volume-remove", "volume-prune"])
async def test_what_a_task_takes_while_it_is_measured_stays(
    place: Place, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def size(name: str) -> int:
        monkeypatch.setitem(USERS, "mine", "new/web")
        return 10

    monkeypatch.setattr(place.volumes, "size", size)
    if op == "volume-remove":
        await place.fails(op, "volume-in-use", names=["mine"])
    else:
        assert "mine" not in (await place.call(op, all=True))["removed"]
    assert "mine" in place.volumes.volumes


async def test_create(place: Place) -> None:
    made = await place.call("volume-create", name="new", labels={"a": "b"}, options={"type": "tmpfs"})
    assert (made["labels"], made["options"]) == ({"a": "b"}, {"type": "tmpfs"}) and made["created"] > 0
    await place.fails("volume-create", "bad-volume-options", name="odd", options={"type": "nfs"})
    await place.fails("volume-create", "bad-request", name="odd", options={"type": 5})


async def test_a_backup_says_who_ran_on_it(place: Place, tmp_path: Path) -> None:
    answer = await place.call("volume-backup", name="shop_data", path=str(tmp_path / "a"), uid=0, gid=0)
    assert answer["writer"] == "" and answer["size"] == (tmp_path / "a").stat().st_size
    place.users.running = USERS
    answer = await place.call("volume-backup", name="shop_data", path=str(tmp_path / "b"), uid=0, gid=0)
    assert answer["writer"] == "shop/db"


async def test_nothing_is_restored_under_what_runs(place: Place, tmp_path: Path) -> None:
    file = str(tmp_path / "a")
    await place.call("volume-backup", name="shop_data", path=file, uid=0, gid=0)
    place.users.running = USERS
    error = await place.fails("volume-restore", "volume-in-use", path=file, force=True)
    assert (error.message, error.hint) == ("cannot restore volume shop_data: shop/db runs on it", "gorae stop shop/db")
    assert isinstance(await place.fails("volume-restore", "volume-exists", path=file), UserError)
    assert not (await place.call("volume-restore", path=file, name="copy"))["replaced"]
    place.users.running = {}
    assert (await place.call("volume-restore", path=file, force=True))["replaced"]
