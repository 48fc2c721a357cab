"""Which mounts a task has, with the volumes that nobody named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.decide import mounts
from agent.ports import VolumeInfo
from agent.wire.messages import Mount, Task, VolumesFrom
from tests.agent.decide.make import IMAGE, task

DATABASE = replace(IMAGE, volumes=("/var/lib/db/", "/", "/etc/db"))


def found(one: Task) -> dict[str, str | None]:
    return {mount.target: mount.source for mount in mounts.of(one, DATABASE, {})}


def web(*given: Mount, id_: str = "t1", **more: str) -> Task:
    return task(id_, container={"mounts": given}, **more)


def test_the_image_s_volumes_are_anonymous_ones() -> None:
    one = web()
    assert found(one) == {place: mounts.anonymous(one, place) for place in ("/etc/db", "/var/lib/db")}
    assert all(name and name.startswith("t1-") for name in found(one).values())
    assert {mount.owner for mount in mounts.of(one, DATABASE, {})} == {"web.1"}


@pytest.mark.parametrize(
    "given",
    [
        Mount(kind="volume", source="shop_data", target="/var/lib/db"),
        Mount(kind="bind", source="/srv", target="/var/lib/db//"),
        Mount(kind="tmpfs", target="/var/lib/./db"),
    ],
    ids=["volume", "bind", "tmpfs"],
)
def test_what_the_file_mounts_is_not_the_image_s(given: Mount) -> None:
    assert [mount.target for mount in mounts.of(web(given), DATABASE, {})] == [given.target, "/etc/db"]


def test_a_slot_keeps_its_volumes_and_shares_them_with_nobody() -> None:
    first, heir = web(), web(id_="t9", lineage="t1")
    assert found(first) == found(heir)
    assert not set(found(first).values()) & set(found(web(id_="t2")).values())


def test_volumes_of_another_service_are_its_first_slot_s() -> None:
    db = task("d1", "db", container={"mounts": (Mount(kind="volume", target="/anon"),)})
    spec = {
        "mounts": (
            Mount(kind="volume", target="/anon", owner="db"),
            Mount(kind="volume", source="x", target="/etc/db"),
        ),
        "volumes_from": (VolumesFrom(service="db", read_only=True),),
    }
    heir = task("t1", "web", container=spec)
    assert mounts.needed(heir) == {"db"} and mounts.needed(db) == set()
    found = {mount.target: mount for mount in mounts.of(heir, IMAGE, {"db": (db, DATABASE)})}
    assert found["/anon"].source == mounts.anonymous(db, "/anon") and found["/anon"].owner == "db.1"
    assert found["/var/lib/db"].source == mounts.anonymous(db, "/var/lib/db") and found["/var/lib/db"].read_only
    assert found["/etc/db"].source == "x", "what the file says is above what the image has"


def test_who_uses_a_volume() -> None:
    one = web(Mount(kind="volume", source="x", target="/x"), Mount(kind="tmpfs", target="/t"), id_="t5", lineage="t1")
    known = {**mounts.users([("shop", one)]), "stack:held": "held"}
    anonymous = mounts.anonymous(one, "/data")
    assert [
        mounts.user(volume, known)
        for volume in (
            VolumeInfo("x"),
            VolumeInfo(anonymous, owner="web.1", stack="shop"),
            VolumeInfo(anonymous),
            VolumeInfo("t2-0123456789ab", owner="web.2", stack="shop"),
            VolumeInfo("any", stack="held"),
        )
    ] == ["shop/web", "shop/web", "", "", "held"]


def test_all_who_use_a_volume_are_named_once() -> None:
    shared = Mount(kind="volume", source="x", target="/x")
    tasks = [web(shared, id_="t1"), web(shared, id_="t2"), web(id_="t3")]
    known = mounts.users([("shop", tasks[0]), ("shop", tasks[1]), ("blog", tasks[0]), ("blog", tasks[2])])
    assert known == {
        "x": "shop/web, blog/web",
        "lineage:t1": "shop/web, blog/web",
        "lineage:t2": "shop/web",
        "lineage:t3": "blog/web",
    }
