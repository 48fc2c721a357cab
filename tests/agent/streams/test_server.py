"""The agent's socket, through the client that the orchestrator and the CLI use."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.decide.firewall import Trouble
from agent.fakes.images import FakeImages
from agent.fakes.logins import FakeLogins
from agent.fakes.logs import FakeLogs
from agent.fakes.rootfs import FakeRootfs
from agent.fakes.shelf import FakeShelf
from agent.fakes.volumes import FakeVolumes
from agent.kit.errors import Permanent, Temporary, UserError
from agent.ports import GcRule, StoreProblem, Surroundings, VolumeInfo
from agent.streams.server import StreamServer
from agent.wire.batches import Decoder
from agent.wire.messages import StackStatus
from agent.wire.records import HEADER, Line
from agent.wire.streams import call, request


class Agent:
    instance, epoch, version = "0badcafe", 3, "9.9"

    def __init__(self) -> None:
        self.adopted: list[str] = []
        self.used: dict[str, str] = {}
        self.volumes: dict[str, str] = {}
        self.running: dict[str, str] = {}

    def statuses(self) -> list[StackStatus]:
        return [StackStatus(store_id="S1", stack="shop", observed_generation=1, epoch=3, seq=1)]

    def in_use(self) -> dict[str, str]:
        return self.used

    def volume_users(self, *, running: bool = False) -> dict[str, str]:
        return self.running if running else self.volumes

    async def adopt(self, store_id: str) -> None:
        self.adopted.append(store_id)

    async def kill(self, stack: str, services: Sequence[str], signal: int, cause: str | None) -> int:
        self.killed = (stack, tuple(services), signal, cause)
        return 2


class Place:
    def __init__(self, path: Path) -> None:
        self.path, self.agent, self.images, self.logs = path, Agent(), FakeImages(), FakeLogs()
        self.rootfs = FakeRootfs()
        self.volumes, self.logins, self.shelf = FakeVolumes(), FakeLogins(), FakeShelf(self.images)

    async def call(self, op: str, **arguments: Any) -> Any:
        return await call(self.path, op, **arguments)


async def surroundings() -> Surroundings:
    return Surroundings((Trouble("a chain drops all", "remove it"),), ("ufw",), ("net.ipv4.ip_forward: 0 → 1",))


def serving(place: Place, **more: Any) -> StreamServer:
    ports: Any = (place.agent, place.images, place.shelf, place.logins, place.logs, place.volumes, place.rootfs)
    ids: dict[str, Any] = {"uid": os.getuid(), "gid": os.getgid()}
    return StreamServer(place.path, *ports, log_budget=100, surroundings=surroundings, **ids, **more)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path / "agent.sock")
    async with serving(made, inside={"short": short, "deep": deep}).serving():
        yield made
    assert not made.path.exists()


async def short(request: dict[str, Any], send: Any) -> Any:
    return request.get("size", [])[0]


async def deep(request: dict[str, Any], send: Any) -> Any:
    return await deep(request, send)


async def test_ping(place: Place) -> None:
    assert await place.call("ping") == {"version": "9.9", "instance": "0badcafe", "epoch": 3}


async def test_the_socket_is_not_for_everybody(place: Place) -> None:
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o660


async def test_only_root_and_the_orchestrator_are_answered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamServer, "_peer", staticmethod(lambda writer: 4711))
    with pytest.raises(UserError, match="only root and the orchestrator"):
        await place.call("ping")


async def test_status_works_without_an_orchestrator(place: Place) -> None:
    (status,) = await place.call("status")
    assert StackStatus.model_validate(status).stack == "shop"


async def test_images_are_listed(place: Place) -> None:
    web = place.images.add("web:1", Cmd=["serve"])
    ((listed),) = await place.call("images")
    assert (listed["id"], listed["names"]) == (web.id, ["web:1"])


async def test_ensure_pulls_what_is_missing(place: Place) -> None:
    web = place.images.add("web:1", Cmd=["serve"])
    place.images.registry["docker.io/library/redis:7"] = {"Cmd": ["redis-server"]}
    seen = [pair async for pair in request(place.path, "ensure", images={"web:1": {}, "redis:7": {}})]
    assert [kind for kind, _ in seen] == ["progress", "progress", "result"]
    found = seen[-1][1]
    assert found["web:1"] == {"id": web.id, "digest": "", "volumes": []}
    assert found["redis:7"]["digest"] == place.images.digests["docker.io/library/redis:7"]


async def test_ensure_keeps_to_a_lock(place: Place) -> None:
    old = place.images.add("web:1", Cmd=["old"])
    place.images.add("web:1", Cmd=["new"])
    lock = {"id": old.id, "digest": "sha256:" + "a" * 64}
    assert await place.call("ensure", images={"web:1": lock}) == {"web:1": {**lock, "volumes": []}}


async def test_ensure_pulls_in_parallel(place: Place) -> None:
    both = asyncio.Barrier(2)
    pull = place.images.pull

    async def together(*arguments: Any) -> Any:
        await both.wait()
        return await pull(*arguments)

    place.images.pull = together  # type: ignore[method-assign]
    for name in ("a", "b"):
        place.images.registry[f"docker.io/library/{name}:1"] = {}
    async with asyncio.timeout(5):
        assert len(await place.call("ensure", images={name: {"policy": "always"} for name in ("a:1", "b:1")})) == 2


async def test_ensure_never_pulls_when_told_so(place: Place) -> None:
    with pytest.raises(UserError, match="cannot find image gone:1"):
        await place.call("ensure", images={"gone:1": {"policy": "never"}})
    with pytest.raises(Permanent, match="no such policy"):
        await place.call("ensure", images={"gone:1": {"policy": "sometimes"}})


async def test_what_registries_have_now(place: Place) -> None:
    place.images.registry["docker.io/library/redis:7"] = {}
    await place.call("pull", name="redis:7")
    found = await place.call("latest", images=["redis:7", "gone:1"])
    assert found["redis:7"] == {"digest": place.images.digests["docker.io/library/redis:7"]}
    assert found["gone:1"]["error"]["code"] == "image-missing"


async def test_saved_images_come_as_data(place: Place) -> None:
    web = place.images.add("web:1", Cmd=["serve"])
    seen = [pair async for pair in request(place.path, "save", names=["web:1"], format="oci-archive")]
    assert [(kind, base64.b64decode(value)) for kind, value in seen[:-1]] == [
        ("data", f"oci-archive {web.id}\n".encode())
    ]
    assert seen[-1] == ("result", {"bytes": len(base64.b64decode(seen[0][1]))})
    with pytest.raises(UserError, match="cannot find image gone:1"):
        await place.call("save", names=["gone:1"])
    with pytest.raises(Permanent, match="cannot save images as 'zip'"):
        await place.call("save", names=["web:1"], format="zip")


async def test_inspect_and_tag(place: Place) -> None:
    web = place.images.add("web:1", Cmd=["serve"])
    place.agent.used = {web.id: "shop/web"}
    assert (await place.call("inspect", name="web:1"))["used_by"] == "shop/web"
    assert (await place.call("tag", name="web:1", new="web:2"))["names"] == ["web:1", "web:2"]


async def test_collect_keeps_what_tasks_use_and_revisions_name(place: Place) -> None:
    used, named = place.images.add("used:1", Cmd=["a"]), place.images.add("named:1", Cmd=["b"])
    gone = place.images.add("gone:1", Cmd=["c"])
    place.agent.used = {used.id: "shop/web"}
    answer = await place.call("image-collect", keep={named.id: "shop, revision 1"}, old=0, young=5, bytes=7)
    assert answer == {"removed": [gone.id], "freed": 1}
    assert place.shelf.rules == [(frozenset({used.id, named.id}), GcRule(young=5, old=0, bytes=7), False)]
    usage = await place.call("image-usage", keep={})
    assert (usage["images"], usage["unused"]) == (2, 1)


async def test_an_image_an_up_waits_with_is_not_collected(place: Place) -> None:
    """It came early, and the stack's next image is still on its way."""
    early = place.images.add("early:1", Cmd=["a"])
    coming, come = asyncio.Event(), asyncio.Event()
    pull = place.images.pull

    async def slow(*arguments: Any) -> Any:
        coming.set()
        await come.wait()
        return await pull(*arguments)

    place.images.pull = slow  # type: ignore[method-assign]
    place.images.registry["docker.io/library/late:1"] = {}
    upping = asyncio.ensure_future(place.call("ensure", images={"early:1": {}, "late:1": {}}))
    await coming.wait()
    assert await place.call("image-collect", keep={}, old=0, young=0) == {"removed": [], "freed": 0}
    with pytest.raises(UserError, match="cannot remove image early:1: an up that is under way uses it"):
        await place.call("remove", name="early:1")
    come.set()
    assert (await upping)["early:1"]["id"] == early.id
    assert early.id in (await place.call("image-collect", keep={}, old=0, young=0))["removed"]


async def test_fsck(place: Place) -> None:
    place.shelf.problems = [StoreProblem("blob", "sha256:1", "it is missing", ["web:1"])]
    found = await place.call("fsck")
    assert found["problems"][0] == {
        **{"what": "blob", "digest": "sha256:1", "why": "it is missing"},
        **{"images": ["web:1"], "used_by": "", "done": ""},
    }
    assert (await place.call("fsck", repair=True))["problems"][0]["done"] == "removed"


async def test_logins(place: Place) -> None:
    place.logins.accounts["r.example.com:5000"] = ("kim", "s3cret")
    with pytest.raises(UserError, match=r"cannot log in to r\.example\.com:5000"):
        await place.call("login", registry="r.example.com:5000", user="kim", password="wrong")
    await place.call("login", registry="https://r.example.com:5000/", user="kim", password="s3cret")
    assert await place.call("logins") == {"r.example.com:5000": "kim"}
    await place.call("logout", registry="r.example.com:5000")
    with pytest.raises(UserError, match="cannot log out"):
        await place.call("logout", registry="r.example.com:5000")


async def test_a_bug_in_a_login_logs_no_password(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def explode(*_: object) -> None:
        raise ZeroDivisionError

    place.logins.login = explode  # type: ignore[method-assign]
    with pytest.raises(Permanent, match="met a bug"):
        await place.call("login", registry="r.example.com", user="kim", password="s3cret")
    assert "login" in caplog.text and "s3cret" not in caplog.text


@pytest.mark.parametrize("keys", [5, {"r.example.com": "not base64!"}, {"r.example.com": 5}, {"": "YTpi"}])
async def test_keys_of_a_bad_form_are_refused_and_not_repeated(place: Place, keys: Any) -> None:
    with pytest.raises(Permanent, match="cannot use the credentials") as caught:
        await place.call("pull", name="redis:7", keys=keys)
    assert "not base64!" not in str(caught.value)


async def test_errors_cross_the_socket_as_they_are(place: Place) -> None:
    place.images.failures = [Temporary("cannot reach the registry", code="registry-away", hint="later")]
    with pytest.raises(Temporary) as caught:
        await place.call("pull", name="redis:7")
    assert (caught.value.code, caught.value.hint) == ("registry-away", "later")


async def test_import_and_remove(place: Place, tmp_path: Path) -> None:
    tar = tmp_path / "root.tar"
    tar.write_bytes(b"x")
    made = await place.call("import", path=str(tar), name="mine:1", config={"Cmd": ["sh"]})
    place.agent.used = {made["id"]: "shop/web"}
    with pytest.raises(UserError, match="shop/web"):
        await place.call("remove", name="mine:1")
    place.agent.used = {}
    assert await place.call("remove", name="mine:1") == {"removed": ["mine:1"], "freed": 1}


async def test_logs(place: Place) -> None:
    place.logs.write("shop", "web", 1, "t1", "one", at=1.0)
    place.logs.write("shop", "web", 2, "t2", "two", at=2.0)
    place.logs.write("blog", "web", 1, "t3", "three", at=3.0)
    assert await texts(place, stack="shop") == ["one", "two"]
    assert await texts(place, stack="shop", task="t2") == ["two"]
    assert await texts(place) == ["one", "two", "three"]
    assert await texts(place, after="t1:1:1000:0,t2:1:0:0") == ["two", "three"]


async def texts(place: Place, **asked: Any) -> list[str]:
    decoder = Decoder()
    found = [value async for kind, value in request(place.path, "logs", follow=False, **asked) if kind == "batch"]
    return [item.text.decode() for parts in found for _, item in decoder.feed(parts) if isinstance(item, Line)]


async def test_a_follower_that_vanishes_ends_its_request(place: Place) -> None:
    ended = asyncio.Event()
    read = place.logs.read

    async def reading(*arguments: Any, **more: Any) -> AsyncGenerator[Any, None]:
        try:
            async for line in read(*arguments, **more):
                yield line
        finally:
            ended.set()

    place.logs.read = reading  # type: ignore[method-assign]
    place.logs.write("shop", "web", 1, "t1", "one")
    follower = request(place.path, "logs", stack="shop", follow=True)
    for text in (b"", b"one\n", b"two\n"):
        kind, [part] = await anext(follower)
        assert (kind, part.data[HEADER:]) == ("batch", text)
        if text == b"one\n":
            place.logs.write("shop", "web", 1, "t1", "two")
    await follower.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await ended.wait()


async def test_what_a_client_goes_on_sending_is_not_kept(place: Place) -> None:
    reader, writer = await asyncio.open_unix_connection(str(place.path))
    writer.write(json.dumps({"op": "logs", "stack": "shop", "follow": True}).encode() + b"\n")
    await reader.readline()
    tracemalloc.start()
    try:
        for _ in range(64):
            writer.write(bytes(1 << 20))
            await writer.drain()
        assert tracemalloc.get_traced_memory()[0] < 8 << 20
    finally:
        tracemalloc.stop()
        writer.close()


async def test_followers_are_bounded_and_others_always_answered(place: Place) -> None:
    followers = []
    for _ in range(64):
        follower = request(place.path, "logs", stack="shop", follow=True)
        await anext(follower)
        followers.append(follower)
    with pytest.raises(Temporary, match="cannot begin another logs: 64 others look already") as caught:
        await anext(request(place.path, "logs", stack="shop", follow=True))
    assert caught.value.code == "too-many" and caught.value.hint
    assert await texts(place, stack="shop") == []
    assert await place.call("ping")
    await followers.pop().aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while True:
            follower = request(place.path, "logs", stack="shop", follow=True)
            try:
                await anext(follower)
                break
            except Temporary:  # the server has yet to see that one has gone
                await asyncio.sleep(0)
    for one in (*followers, follower):
        await one.aclose()  # type: ignore[attr-defined]


async def test_kill(place: Place) -> None:
    assert await place.call("kill", stack="shop", services=["web"], signal="hup", cause="E1") == {"signalled": 2}
    assert place.agent.killed == ("shop", ("web",), 1, "E1")
    await place.call("kill", stack="shop")
    assert place.agent.killed == ("shop", (), 9, None)
    with pytest.raises(UserError, match="cannot send the signal SIGNONE"):
        await place.call("kill", stack="shop", signal="SIGNONE")
    with pytest.raises(UserError, match=r"cannot send the signal 9{40}: there is none"):
        await place.call("kill", stack="shop", signal="9" * 64_000)


async def test_adopt(place: Place) -> None:
    assert await place.call("adopt", store_id="S2") == {}
    assert place.agent.adopted == ["S2"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no operation"),
        pytest.param(b'{"op": "explode"}', id="unknown operation"),
        pytest.param(b'{"op": "pull"}', id="argument missing"),
        pytest.param(b'{"op": "pull", "name": 5}', id="argument of another type"),
        pytest.param(b'{"op": "logs", "stack": "shop", "tail": "many"}', id="no number"),
        pytest.param(b'{"op": "logs", "stack": "shop", "tail": 1e400}', id="an endless number"),
        pytest.param(b'{"op": "logs", "stack": "shop", "since": NaN}', id="not a number"),
        pytest.param(b'{"op": "logs", "stack": "shop", "until": -1e400}', id="before all time"),
        pytest.param(b"[" * 2_000_000, id="nested without end"),
        pytest.param(b'{"op": "short"}', id="too few of them"),
        pytest.param(b'{"op": "deep"}', id="deeper than we go"),
    ],
)
async def test_a_bad_request_is_told_so(place: Place, line: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(place.path))
    writer.write(line + b"\n")
    answer = json.loads(await reader.readline())
    assert answer["error"]["code"] == "bad-request" and answer["error"]["kind"] == "permanent"
    writer.close()
    await writer.wait_closed()
    assert await place.call("ping")


async def test_a_bug_in_one_request_does_not_end_the_server(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def explode() -> None:
        raise ZeroDivisionError

    place.images.list = explode  # type: ignore[method-assign,assignment]
    with pytest.raises(Permanent, match="met a bug"):
        await place.call("images")
    assert "ZeroDivisionError" in caplog.text
    assert await place.call("ping")


async def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    place = Place(tmp_path / "agent.sock")
    place.path.write_text("")
    async with serving(place).serving():
        assert await place.call("ping")


async def test_usage_of_the_disk(place: Place) -> None:
    web, old = place.images.add("web:1", Cmd=["serve"]), place.images.add("old:1", Cmd=["x"])
    place.agent.used = {web.id: "shop/web"}
    place.agent.volumes = {"data": "shop/web"}
    for name in ("data", "kept", "nobodys"):
        place.volumes.volumes[name] = VolumeInfo(name)
        place.volumes.sizes[name] = 10
    place.rootfs.writable, place.rootfs.sizes = {"t1"}, {"t1": 50}
    place.logs.write("shop", "web", 1, "t1", "hello")
    usage = await place.call("usage", keep={}, named={"kept": "held"})
    assert usage["kinds"]["images"] == {"total": 2, "active": 1, "size": 0, "reclaimable": 0}
    assert usage["kinds"]["volumes"] == {"total": 3, "active": 2, "size": 30, "reclaimable": 10}
    assert {image["id"]: image["used_by"] for image in usage["images"]} == {web.id: "shop/web", old.id: ""}
    (task,) = usage["tasks"]
    assert (task["stack"], task["state"], task["writable"], task["logs"]) == ("shop", "gone", 50, 5)
    assert usage["log_budget"] == 100


async def test_the_disk_is_walked_once_at_a_time_and_for_nobody_who_left(place: Place) -> None:
    walking, most, begun, go = 0, 0, asyncio.Event(), asyncio.Event()

    async def size(task: str) -> int:
        nonlocal walking, most
        walking += 1
        most = max(most, walking)
        begun.set()
        try:
            await go.wait()
        finally:
            walking -= 1
        return 1

    place.rootfs.writable = {"t1"}
    place.rootfs.size = size  # type: ignore[method-assign]
    leaver, stayer = (asyncio.ensure_future(place.call("usage", keep={})) for _ in range(2))
    await begun.wait()
    begun.clear()
    leaver.cancel()
    await begun.wait()  # the other's turn
    assert walking == 1
    go.set()
    assert (await stayer)["tasks"][0]["writable"] == 1
    assert most == 1


async def test_what_surrounds_us(place: Place) -> None:
    assert await place.call("surroundings") == {
        "troubles": [{"text": "a chain drops all", "cure": "remove it"}],
        "firewalls": ["ufw"],
        "sysctls": ["net.ipv4.ip_forward: 0 → 1"],
    }
