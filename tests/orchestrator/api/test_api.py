"""The API over its real socket, as the CLI speaks to it: HTTP/1.0, Connection: close, read to the end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.wire.memory import MemoryBroker
from orchestrator.api import openapi
from orchestrator.api.server import bind
from orchestrator.main import serve
from tests.support.fake_agent import FakeAgent
from tests.support.logs import said
from tests.support.orchestrating import stack

TWO: dict[str, Any] = {"web": {"image": "web:1", "replicas": 2}, "db": {"image": "db:1"}}


class Client:
    def __init__(self, socket: Path) -> None:
        self.socket = socket

    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str = "1.0",
        raw: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, dict[str, str], asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=1 << 24)
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/{version}\r\nHost: gorae\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n".encode()
            + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
            + b"\r\n"
            + data
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        return int(head[0].split()[1]), headers, reader, writer

    async def lines(self, method: str, path: str, body: Any = None) -> list[Any]:
        _, _, reader, writer = await self.open(method, path, body)
        text = await reader.read()
        writer.close()
        return [json.loads(line) for line in text.splitlines()]

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        status, _, reader, writer = await self.open(method, path, body, **more)
        text = await reader.read()
        writer.close()
        return status, json.loads(text)

    async def up(self, *, pull: str = "missing", name: str = "shop", **services: Any) -> Any:
        model = stack(name, **services).model_dump(mode="json")
        answer = await self.lines("POST", f"/v1/stacks/{name}", {"model": model, "pull": pull})
        assert "result" in answer[-1], answer
        return answer[-1]

    async def converge(self, generation: int, name: str = "shop") -> Any:
        return (await self.lines("GET", f"/v1/stacks/{name}/watch?generation={generation}"))[-1]


class Setting:
    def __init__(self, client: Client, agent: FakeAgent, layout: Layout, stop: asyncio.Event) -> None:
        self.client, self.agent, self.layout, self.stop = client, agent, layout, stop
        self.serving: asyncio.Task[None]


@pytest.fixture
async def s() -> AsyncIterator[Setting]:
    async with serving() as setting:
        yield setting


@asynccontextmanager
async def serving(settings: str = "") -> AsyncIterator[Setting]:
    """`settings`: of gorae.toml."""
    root = Path(tempfile.mkdtemp(prefix="g-"))  # short: unix socket paths end at 107 bytes
    layout, broker, stop = Layout.at(root), MemoryBroker(), asyncio.Event()
    layout.orchestrator_dir.mkdir(parents=True)
    layout.api_dir.mkdir(parents=True)
    layout.settings.parent.mkdir(parents=True, exist_ok=True)
    layout.settings.write_text(settings)
    async with FakeAgent(broker).life(layout.agent_socket) as agent:
        setting = Setting(Client(layout.api_socket), agent, layout, stop)
        setting.serving = asyncio.create_task(serve(layout, broker.bus("orchestrator"), stop=stop))
        await agent.until(lambda: agent.bound)
        yield setting
        stop.set()
        await setting.serving
    shutil.rmtree(root)


async def test_the_main_job(s: Setting) -> None:
    answer = await s.client.up(**TWO)
    assert answer["result"] == {
        "stack": "shop",
        "generation": 1,
        "revision": 1,
        "actions": [
            {"action": "create", "service": name, "slot": slot, "cause": "new service"}
            for name, slot in (("db", 1), ("web", 1), ("web", 2))
        ],
    }
    last = await s.client.converge(1)
    assert last["stacks"][0]["converged"]
    status, document = await s.client.ask("GET", "/v1/status")
    assert status == 200
    assert document["version"] == 1
    assert document["agent"]["online"]
    assert document["stacks"] == last["stacks"]
    assert [
        (row["name"], row["ready"], row["replicas"], row["image"]) for row in document["stacks"][0]["services"]
    ] == [
        ("web", 2, 2, "web:1"),
        ("db", 1, 1, "db:1"),
    ]
    _, row = await s.client.ask("GET", "/v1/stacks")
    assert row["stacks"][0] | {"updated_at": 0} == {
        **{"name": "shop", "revision": 1, "services": 2, "tasks": 3, "ready": 3, "state": "running", "updated_at": 0}
    }
    assert (await s.client.ask("DELETE", "/v1/stacks/shop"))[1] == {"stack": "shop", "generation": 2}
    assert (await s.client.converge(2))["stacks"] == []
    assert (await s.client.ask("GET", "/v1/status"))[1]["stacks"] == []


async def test_ports(s: Setting) -> None:
    s.agent.firewalls = ("ufw",)
    web = {"image": "web:1", "ports": [{"target": 80, "published": 8080}]}
    answer = await s.client.up(web=web)
    await s.client.converge(answer["result"]["generation"])
    status, found = await s.client.ask("GET", "/v1/ports")
    assert status == 200
    assert found == {
        "firewalls": ["ufw"],
        "ports": [
            {
                **{
                    "stack": "shop",
                    "service": "web",
                    "protocol": "tcp",
                    "host_ip": "",
                    "published": 8080,
                    "target": 80,
                },
                **{"reach": "everyone", "ready": 1, "tasks": 1, "state": "open"},
            }
        ],
    }
    assert (await s.client.ask("GET", "/v1/ports?stack=shop"))[1] == found
    status, problem = await s.client.ask("GET", "/v1/ports?stack=none")
    assert (status, problem["error"]["code"]) == (404, "stack-unknown")


async def test_status_of_some_services(s: Setting) -> None:
    await s.client.up(**TWO, cache={"image": "db:1"})
    await s.client.up(name="blog")
    _, found = await s.client.ask("GET", "/v1/status?service=web&service=cache")
    assert [(row["name"], [service["name"] for service in row["services"]]) for row in found["stacks"]] == [
        ("blog", ["web"]),
        ("shop", ["web", "cache"]),
    ]


async def test_progress_comes_before_the_result(s: Setting) -> None:
    model = stack(**TWO).model_dump(mode="json")
    answer = await s.client.lines("POST", "/v1/stacks/shop", {"model": model, "pull": "always"})
    assert [next(iter(line)) for line in answer] == ["progress", "progress", "result"]


async def test_verbs(s: Setting) -> None:
    await s.client.up(**TWO)
    status, answer = await s.client.ask("POST", "/v1/stacks/shop/restart", {"services": ["web"]})
    assert (status, answer.get("generation")) == (200, 2), answer
    assert [a["action"] for a in answer["actions"]] == ["keep", "restart", "restart"]
    status, answer = await s.client.ask("POST", "/v1/stacks/shop/scale", {"replicas": {"web": 1}})
    assert status == 200, answer
    assert [a["action"] for a in answer["actions"]] == ["remove", "keep", "keep"]
    for verb in ("stop", "start", "recreate", "pause", "unpause"):
        status, answer = await s.client.ask("POST", f"/v1/stacks/shop/{verb}", {"services": []})
        assert status == 200, answer


async def test_changes_carry_who_asked(s: Setting) -> None:
    await s.client.up(**TWO)
    events = await s.client.lines("GET", "/v1/events?stack=shop")
    assert events[0]["evidence"]["uid"] == os.getuid()


async def test_the_socket_is_for_the_group_only(s: Setting) -> None:
    mode = s.layout.api_socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    bind(s.layout.api_socket).close()  # a stale socket is no obstacle
    with pytest.raises(UserError, match="cannot listen on"):
        bind(s.layout.api_dir / ("x" * 120))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/status?stack=nope", None, 404, "stack-unknown"),
        ("GET", "/v1/status?stack=shop&service=nope", None, 404, "service-unknown"),
        ("GET", "/v1/status?service=nope", None, 404, "service-unknown"),
        ("GET", "/v1/status?service=web&service=nope", None, 404, "service-unknown"),
        ("GET", "/v1/logs?stack=shop&service=db&service=nope", None, 404, "service-unknown"),
        ("GET", "/v1/logs?stack=nope", None, 404, "stack-unknown"),
        ("GET", "/v1/logs?stack=shop&service=nope", None, 404, "service-unknown"),
        ("GET", "/v1/stacks/nope/watch", None, 404, "stack-unknown"),
        ("GET", "/v1/stacks/nope/logs", None, 404, "stack-unknown"),
        ("GET", "/v1/logs?tail=-1", None, 400, "bad-request"),
        ("GET", "/v1/events?limit=many", None, 400, "bad-request"),
        ("DELETE", "/v1/stacks/nope", None, 404, "stack-unknown"),
        ("POST", "/v1/stacks/shop/explode", {"services": []}, 400, "bad-request"),
        ("POST", "/v1/stacks/shop/stop", {"servces": []}, 400, "bad-request"),
        ("POST", "/v1/stacks/shop/scale", {"replicas": {}}, 400, "bad-request"),
        ("POST", "/v1/stacks/shop/scale", {"replicas": {"web": -1}}, 400, "bad-request"),
        ("POST", "/v1/stacks/shop", {"model": {"name": "shop"}}, 400, "bad-request"),
        ("POST", "/v1/stacks/other", {"model": {"name": "shop", "services": {}}}, 400, "bad-request"),
        ("POST", "/v1/stacks/Bad%20Name", {"model": {"name": "shop", "services": {}}}, 400, "bad-request"),
        (
            "POST",
            "/v1/stacks/shop",
            {"model": {"name": "shop", "services": {}, "images": {"a": {"id": "x"}}}},
            400,
            "bad-request",
        ),
        ("POST", "/v1/images/remove", {"name": "web:1"}, 409, "image-in-use"),
        ("POST", "/v1/images/outdated", {"stack": "nope"}, 404, "stack-unknown"),
        ("GET", "/v2/status", None, 404, "path-unknown"),
        ("PUT", "/v1/status", None, 405, "method-unknown"),
    ],
)
async def test_errors_are_documents(s: Setting, method: str, path: str, body: Any, status: int, code: str) -> None:
    await s.client.up(**TWO)
    found, answer = await s.client.ask(method, path, body)
    assert (found, answer["error"]["code"]) == (status, code)
    assert set(answer["error"]) == {"kind", "code", "message", "hint", "evidence"}
    assert answer["error"]["message"].startswith("cannot ")
    assert answer["error"]["hint"]


async def test_a_bad_model_says_where(s: Setting) -> None:
    body = {"model": {"name": "shop", "services": {"web": {"command": ["x"]}}}}
    _, answer = await s.client.ask("POST", "/v1/stacks/shop", body)
    assert "model.services.web.image: Field required" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", "/v1/some-day", None, id="a path"),
        pytest.param("POST", "/v1/stacks/shop/stop", {"services": [], "gently": True}, id="a key"),
    ],
)
async def test_what_a_later_command_line_asks_leads_to_an_update(
    s: Setting, method: str, path: str, body: dict[str, Any] | None
) -> None:
    _, answer = await s.client.ask(method, path, body)
    assert "after an update, gorae daemon --stop" in answer["error"]["hint"]


async def test_a_model_that_cannot_be_kept_is_refused_before_anything_is_fetched(s: Setting) -> None:
    """json.loads takes NaN; written to the database as null it would keep the orchestrator from starting again."""
    service = {"image": "web:1", "stop_grace_period": float("nan")}
    answer = await s.client.lines("POST", "/v1/stacks/shop", {"model": {"name": "shop", "services": {"web": service}}})
    assert [line["error"]["code"] for line in answer] == ["bad-model"]
    assert s.agent.requests == []
    assert (await s.client.ask("GET", "/v1/status"))[1]["stacks"] == []


async def test_an_error_in_a_stream_is_its_last_line(s: Setting) -> None:
    s.agent.missing["web:1"] = UserError("cannot find image web:1", code="image-missing", hint="gorae image ls")
    answer = await s.client.lines(
        "POST", "/v1/stacks/shop", {"model": stack(**TWO).model_dump(mode="json"), "pull": "never"}
    )
    assert [next(iter(line)) for line in answer] == ["progress", "error"]
    assert answer[-1]["error"] == {
        **{"kind": "user", "code": "image-missing", "message": "cannot find image web:1"},
        **{"hint": "gorae image ls", "evidence": {}},
    }


async def test_a_large_body_is_refused(s: Setting) -> None:
    status, answer = await s.client.ask("POST", "/v1/stacks/shop", raw=b" " * (8 * 1024 * 1024 + 1))
    assert (status, answer["error"]["code"]) == (413, "body-too-large")
    almost = b" " * (8 * 1024 * 1024 - 2) + b"{}"
    assert (await s.client.ask("POST", "/v1/stacks/shop", raw=almost))[1]["error"]["code"] == "bad-request"


async def test_a_large_body_in_chunks_is_refused(s: Setting) -> None:
    reader, writer = await asyncio.open_unix_connection(str(s.layout.api_socket))
    writer.write(b"POST /v1/stacks/shop HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    for _ in range(9):
        writer.write(chunk)
    writer.write(b"0\r\n\r\n")
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_watch_pushes_each_change_and_ends_when_it_has_converged(s: Setting) -> None:
    s.agent.auto = False
    await s.client.up(**TWO)
    _, headers, reader, writer = await s.client.open("GET", "/v1/stacks/shop/watch?generation=1")
    assert headers["content-type"] == "application/x-ndjson"
    first = json.loads(await reader.readline())
    assert first["stacks"][0]["state"] == "starting"
    for task in s.agent.assignments["shop"].tasks:
        s.agent.running[task.id] = s.agent._become(task)
        await s.agent.tell("shop")
    documents = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    assert documents[-1]["stacks"][0]["converged"]
    assert sum(service["ready"] for service in documents[-1]["stacks"][0]["services"]) == 3


async def test_events_follow(s: Setting) -> None:
    await s.client.up(**TWO)
    _, _, reader, writer = await s.client.open("GET", "/v1/events?stack=shop&follow=true&limit=1")
    first = json.loads(await reader.readline())
    assert first["kind"] == "plan.create"
    await s.agent.emit("task.exited", stack="other")
    told = await s.agent.emit("task.exited", stack="shop", service="web")
    assert json.loads(await reader.readline())["id"] == told.id
    writer.close()
    assert len(await s.client.lines("GET", "/v1/events?stack=shop&service=web&limit=2")) == 2
    both = await s.client.lines("GET", "/v1/events?stack=shop&service=web&service=db")
    assert [event["service"] for event in both] == ["db", "web", "web", "web"]
    assert await s.client.lines("GET", f"/v1/events?since={time.time() + 1000}") == []


async def test_logs_are_relayed(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.batches = [said("héllo", at=1.5), said("early", at=0.5, offset=99)]
    whose = {"stack": "shop", "service": "web", "slot": 1, "task": "t"}
    assert await s.client.lines("GET", "/v1/logs?stack=shop&service=web&tail=5&since=1") == [
        {"kind": "line", **whose, "at": 1.5, "stream": "stdout", "text": "héllo"}
    ]
    wanted = {"op": "logs", "stack": "shop", "services": ["web"], "follow": False, "tail": 5, "since": 1.0}
    assert s.agent.requests[-1] == wanted
    assert len(await s.client.lines("GET", "/v1/logs")) == 2
    assert s.agent.requests[-1] == {"op": "logs", "follow": False}
    assert len(await s.client.lines("GET", "/v1/stacks/shop/logs")) == 2


async def test_logs_pass_through_for_who_takes_them_as_they_are(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.batches = [said(b"\xff\x00 raw"), said("more", offset=60)]
    accept = {"Accept": "application/x-gorae-batches"}
    _, headers, reader, writer = await s.client.open("GET", "/v1/logs?stack=shop", headers=accept)
    assert headers["content-type"] == "application/x-gorae-batches"
    assert await reader.read() == b"".join(s.agent.batches) + b'{"result": {}}\n'
    writer.close()


async def test_logs_as_server_sent_events_go_on_after_the_last_one(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.batches = [said("one", "two"), said("three", offset=98)]
    sse = {"Accept": "text/event-stream"}
    _, headers, reader, writer = await s.client.open("GET", "/v1/stacks/shop/logs?follow=true", headers=sse)
    assert headers["content-type"].startswith("text/event-stream")
    first = (await reader.readuntil(b"\n\n")).decode().splitlines()
    assert first[0] == "id: t:5:62:0"
    assert [json.loads(line.removeprefix("data: "))["text"] for line in first[1:-1]] == ["one", "two"]
    assert b"id: t:5:" in await reader.readuntil(b"\n\n")
    writer.close()
    s.agent.batches = [said("three", offset=98)]
    _, _, reader, writer = await s.client.open(
        "GET", "/v1/stacks/shop/logs", headers={**sse, "Last-Event-ID": "t:5:62:0"}
    )
    assert (await reader.read()).endswith(b"\n\nevent: end\ndata: {}\n\n")
    assert s.agent.requests[-1]["after"] == "t:5:62:0"
    writer.close()
    status, answer = await s.client.ask("GET", "/v1/logs", headers={"Last-Event-ID": "nonsense"})
    assert (status, answer["error"]["code"]) == (400, "bad-cursor")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_others_are_answered_while_a_large_batch_is_told(s: Setting, accept: str) -> None:
    await s.client.up(**TWO)
    texts = [f"{number:060}" for number in range(40_000)]
    s.agent.batches = [said(*texts)]
    loop = asyncio.get_running_loop()
    worst, over = 0.0, asyncio.Event()

    async def turns() -> None:
        nonlocal worst
        while not over.is_set():
            before = loop.time()
            await asyncio.sleep(0.001)
            worst = max(worst, loop.time() - before)

    began = loop.time()
    watching = asyncio.create_task(turns())
    _, _, reader, writer = await s.client.open("GET", "/v1/stacks/shop/logs", headers={"Accept": accept})
    lines = 0
    while data := await reader.read(1 << 16):
        lines += data.count(b'"kind": "line"')
    over.set()
    await watching
    writer.close()
    assert lines >= len(texts) - 64, "but those cut in two between two reads"
    assert worst < max(0.1, (loop.time() - began) / 4), "it is not told in one piece"


async def test_following_logs_goes_on_when_the_agent_comes_back(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.batches = [said("one"), b'{"error": {"kind": "temporary", "code": "agent-away", "message": "cannot"}}\n']
    _, _, reader, writer = await s.client.open("GET", "/v1/logs?stack=shop&follow=true")
    assert json.loads(await reader.readline())["text"] == "one"
    s.agent.batches = [said("two", offset=49)]
    assert json.loads(await reader.readline())["text"] == "two"
    assert s.agent.requests[-1]["after"] == "t:5:31:0"
    writer.close()


async def test_a_service_without_logs_is_told(s: Setting) -> None:
    await s.client.up(web={"image": "web:1", "logging": {"kept": False}}, db={"image": "db:1"})
    told = [{"kind": "note", "text": "shop/web keeps no logs: its logging driver is none"}]
    assert await s.client.lines("GET", "/v1/logs?stack=shop") == told
    assert await s.client.lines("GET", "/v1/logs?stack=shop&service=db") == []


async def test_events_as_server_sent_events_go_on_after_the_last_one(s: Setting) -> None:
    await s.client.up(**TWO)
    late = await s.agent.emit("task.exited", stack="shop", service="web")
    await s.agent.until(lambda: s.agent.forgotten)
    sse = {"Accept": "text/event-stream"}
    _, _, reader, writer = await s.client.open("GET", "/v1/events", headers=sse)
    events = [event.splitlines() for event in (await reader.read()).decode().split("\n\n") if event]
    writer.close()
    ids = [lines[0].removeprefix("id: ") for lines in events]
    assert late.id in ids and all(json.loads(lines[1].removeprefix("data: "))["id"] in ids for lines in events)
    _, _, reader, writer = await s.client.open("GET", "/v1/events", headers={**sse, "Last-Event-ID": late.id})
    assert await reader.read() == b""
    writer.close()


async def test_images_are_relayed(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.images = {"web:1": "sha256:1"}
    assert (await s.client.ask("GET", "/v1/images"))[1] == {"images": [{"id": "sha256:1", "names": ["web:1"]}]}
    assert await s.client.lines("POST", "/v1/images/import", {"path": "/x.tar", "name": "x:1"}) == [
        {"progress": {"step": "half"}},
        {"result": {"path": "/x.tar", "name": "x:1", "config": {}}},
    ]
    odd = await s.client.lines("POST", "/v1/images/pull", {"name": "half \ud800"})
    assert odd[-1] == {"result": {"name": "half ?"}}
    for verb, body in (("pull", {"name": "a:1"}), ("load", {"path": "/a.tar"}), ("remove", {"name": "a:1"})):
        assert (await s.client.lines("POST", f"/v1/images/{verb}", body))[-1] == {"result": body}


async def test_what_is_outdated(s: Setting) -> None:
    s.agent.images = {"local:1": "sha256:1"}
    s.agent.latest = {"lost:1": {"error": {"message": "cannot pull lost:1: its registry is away"}}}
    services = {name: {"image": f"{name}:1"} for name in ("old", "same", "local", "lost")}
    await s.client.up(name="shop", **services, twin={"image": "old:1"})
    s.agent.published["old:1"] = "old:1 of today"
    (answer,) = await s.client.lines("POST", "/v1/images/outdated", {"stack": "shop", "keys": {"r": "YTpi"}})
    assert s.agent.requests[-1]["keys"] == {"r": "YTpi"}
    rows = {row["image"]: row for row in answer["result"]["images"]}
    assert {image: row["state"] for image, row in rows.items()} == {
        "old:1": "outdated", "same:1": "current", "local:1": "local", "lost:1": "unknown",
    }  # fmt: skip
    assert rows["old:1"]["services"] == ["old", "twin"]
    assert rows["old:1"]["latest"] != rows["old:1"]["digest"]
    assert rows["lost:1"]["error"] == "cannot pull lost:1: its registry is away"


async def test_prune_keeps_the_images_of_every_stored_revision(s: Setting) -> None:
    await s.client.up(name="shop", web={"image": "web:1"})
    await s.client.up(name="shop", web={"image": "web:2"})
    answer = await s.client.lines("POST", "/v1/images/prune", {"all": True, "older": 60})
    assert answer == [{"result": {"removed": [], "freed": 0}}]
    asked = dict(s.agent.requests[-1])
    keep = asked.pop("keep")
    assert keep.keys() == {"sha256:web:1", "sha256:web:2"}
    assert asked == {"op": "image-collect", "unnamed": False, "young": 0.0, "old": 60.0, "dry": False}
    assert (await s.client.ask("GET", "/v1/images/usage"))[1] == s.agent.usage
    asked = s.agent.requests[-1]
    assert asked["op"] == "image-usage" and asked["keep"].keys() == keep.keys()
    answer = (await s.client.lines("GET", "/v1/df"))[-1]["result"]
    assert answer["keep"].keys() == keep.keys() and "shop/web" in answer["named"].values()
    assert s.agent.requests[-1]["op"] == "usage"


async def test_what_is_done_with_images_is_relayed(s: Setting) -> None:
    assert (await s.client.ask("GET", "/v1/images/inspect?name=a:1"))[1] == {"name": "a:1"}
    assert (await s.client.ask("POST", "/v1/images/tag", {"name": "a:1", "new": "b:1"}))[1] == {
        "name": "a:1",
        "new": "b:1",
    }
    saved = await s.client.lines("POST", "/v1/images/save", {"names": ["a:1"], "format": "oci-archive"})
    assert saved == [{"data": "YXJjaGl2ZQ=="}, {"result": {"bytes": 7}}]
    assert (await s.client.lines("POST", "/v1/images/fsck", {"repair": True}))[-1] == {"result": {"repair": True}}
    for path, body in (("save", {"names": []}), ("save", {"names": ["a"], "format": "zip"}), ("prune", {"older": -1})):
        assert (await s.client.ask("POST", f"/v1/images/{path}", body))[0] == 400


async def test_logins_are_relayed_and_a_bad_request_repeats_no_password(s: Setting) -> None:
    body = {"registry": "r.example.com", "user": "kim", "password": "s3cret"}
    lines = await s.client.lines("POST", "/v1/logins", body)
    assert lines[-1] == {"result": {"registry": "r.example.com", "user": "kim"}}
    assert s.agent.requests[-1] == {"op": "login", **body}
    status, refused = await s.client.ask("POST", "/v1/logins", {**body, "user": 5})
    assert status == 400 and "s3cret" not in str(refused)


async def test_volumes_are_relayed_with_what_stacks_name(s: Setting) -> None:
    services = {"web": {"image": "web:1", "mounts": [{"type": "volume", "source": "data", "target": "/data"}]}}
    model = {"name": "shop", "services": services, "volumes": {"data": {"name": "shop_data"}}}
    await s.client.lines("POST", "/v1/stacks/shop", {"model": model})
    await s.agent.until(lambda: "shop" in s.agent.assignments)
    (task,) = s.agent.assignments["shop"].tasks
    named = {"shop_data": "shop", f"lineage:{task.id}": "shop/web"}
    s.agent.volumes = {"shop_data": {}}
    assert (await s.client.ask("GET", "/v1/volumes"))[1] == {"volumes": [{"name": "shop_data", "options": {}}]}
    assert s.agent.requests[-1] == {"op": "volumes", "named": named}
    for verb, body in (("remove", {"names": ["a", "b"]}), ("prune", {"all": True})):
        assert (await s.client.lines("POST", f"/v1/volumes/{verb}", body))[-1] == {"result": {**body, "named": named}}
    made = {"name": "a", "labels": {}, "options": {"type": "tmpfs"}}
    assert (await s.client.ask("POST", "/v1/volumes/create", {"name": "a", "options": {"type": "tmpfs"}}))[1] == made
    (*_, backed) = await s.client.lines("POST", "/v1/volumes/backup", {"name": "a", "path": "/b"})
    assert backed == {"result": {"name": "a", "path": "/b", "uid": os.getuid(), "gid": os.getgid()}}
    (*_, restored) = await s.client.lines("POST", "/v1/volumes/restore", {"path": "/b"})
    assert restored == {"result": {"path": "/b", "force": False}}


async def test_a_client_that_leaves_ends_the_agents_request(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.batches = [said("one")]
    _, _, reader, writer = await s.client.open("GET", "/v1/logs?stack=shop&follow=true")
    await reader.readline()
    requests = [task for task in asyncio.all_tasks() if "PeerProtocol" in repr(task) or "run_asgi" in repr(task)]
    assert requests
    writer.close()
    async with asyncio.timeout(2):
        await asyncio.wait(requests)


async def test_a_client_that_leaves_while_images_are_fetched_changes_nothing(s: Setting) -> None:
    s.agent.pulling = True
    body = {"model": stack(**TWO).model_dump(mode="json"), "pull": "missing"}
    _, _, reader, writer = await s.client.open("POST", "/v1/stacks/shop", body)
    await reader.readline()
    requests = [task for task in asyncio.all_tasks() if "PeerProtocol" in repr(task) or "run_asgi" in repr(task)]
    assert requests
    writer.close()
    async with asyncio.timeout(2):
        await asyncio.wait(requests)
    s.agent.hang.set()
    s.agent.pulling = False
    await s.client.up(name="blog")
    assert [row["name"] for row in (await s.client.ask("GET", "/v1/stacks"))[1]["stacks"]] == ["blog"]


async def test_stopping_ends_every_stream(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.batches = [said("one")]
    paths = ("/v1/events?follow=true", "/v1/stacks/shop/watch?generation=99", "/v1/logs?stack=shop&follow=true")
    streams = [await s.client.open("GET", path) for path in paths]
    for _, _, reader, _ in streams:
        await reader.readline()
    s.stop.set()
    async with asyncio.timeout(3):
        await s.serving
        for _, _, reader, writer in streams:
            await reader.read()
            writer.close()


async def test_http_1_1_with_keep_alive_works_too(s: Setting) -> None:
    reader, writer = await asyncio.open_unix_connection(str(s.layout.api_socket))
    for _ in range(2):
        writer.write(b"GET /v1/version HTTP/1.1\r\nHost: g\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["wire_version"] == 1
    writer.close()


def test_the_openapi_document_is_current() -> None:
    kept = (Path(__file__).parents[3] / "specs/openapi.json").read_text()
    assert kept == openapi.document(), "python -m orchestrator.api.openapi > specs/openapi.json"


async def test_the_served_openapi_document_has_the_same_paths(s: Setting) -> None:
    _, served = await s.client.ask("GET", "/openapi.json")
    assert served["paths"] == json.loads(openapi.document())["paths"]


async def test_a_watch_of_some_services_ends_with_them(s: Setting) -> None:
    answer = await s.client.up(web={"image": "web:1"}, db={"image": "db:1"})
    await s.client.converge(1)
    await s.agent.set("shop", "db", state="backoff", failures=3)
    generation = answer["result"]["generation"]
    last = (await s.client.lines("GET", f"/v1/stacks/shop/watch?generation={generation}&service=web"))[-1]["stacks"][0]
    assert last["converged"] and [row["name"] for row in last["services"]] == ["web"]
    whole = (await s.client.ask("GET", "/v1/status?stack=shop"))[1]["stacks"][0]
    assert not whole["converged"]


async def test_a_revision_higher_than_a_database_counts(s: Setting) -> None:
    await s.client.up(web={"image": "web:1"})
    status, found = await s.client.ask("GET", f"/v1/stacks/shop/diff?a=1&b={10**30}")
    assert (status, found["error"]["code"]) == (404, "revision-unknown")


async def test_a_plan_says_why_up_would_be_refused(s: Setting) -> None:
    published = {"image": "web:1", "ports": [{"target": 80, "published": 8080}]}
    await s.client.up(web=published)
    model = stack("blog", web=published).model_dump(mode="json", exclude={"images"})
    model["services"]["web"]["mounts"] = [{"type": "volume", "source": "v", "target": "/v"}]
    model["volumes"] = {"v": {"name": "gone", "external": True}}
    status, found = await s.client.ask("POST", "/v1/stacks/blog/plan", {"model": model})
    assert status == 200 and [one["message"] for one in found["refusals"]] == [
        "cannot start blog/web: port 8080 is held by stack shop (service web)",
        "cannot start blog: the volume gone is external, and does not exist",
    ]
    assert all(one["code"] and one["hint"] for one in found["refusals"])
    assert (await s.client.ask("GET", "/v1/stacks"))[1]["stacks"][0]["name"] == "shop"


async def test_a_plan_knows_where_ports_are_published() -> None:
    async with serving('[publish]\ndefault_address = "127.0.0.1"\n') as s:
        published = {"image": "web:1", "ports": [{"target": 80, "published": 8080}]}
        await s.client.up(web=published)
        model = stack(web=published).model_dump(mode="json", exclude={"images"})
        _, found = await s.client.ask("POST", "/v1/stacks/shop/plan", {"model": model})
        assert not found["changes"] and found["ports"] == []


async def test_why_a_service_waits(s: Setting) -> None:
    s.agent.auto = False
    needs = {"db": {"condition": "service_completed_successfully"}}
    await s.client.up(web={"image": "web:1", "depends_on": needs}, db={"image": "db:1"})
    status, found = await s.client.ask("GET", "/v1/stacks/shop/why?service=web")
    assert (status, found["error"]["code"]) == (404, "event-unknown")
    assert "shop/web is as it is (starting): nothing has happened" in found["error"]["message"]
    message = "waiting for db to complete (it is failed)"
    for task in s.agent.assignments["shop"].tasks:
        state = {"state": "pending", "message": message} if task.service == "web" else {"state": "failed"}
        s.agent.running[task.id] = s.agent._become(task).model_copy(update=state)
    await s.agent.tell("shop")
    await s.agent.emit("task.failed", stack="shop", service="db", slot=1, message="exit 3")
    await s.agent.until(lambda: s.agent.forgotten == 1)
    status, found = await s.client.ask("GET", "/v1/stacks/shop/why?service=web")
    assert status == 200 and found["sentence"] == f"web is {message}"
    assert [fact["sentence"] for fact in found["before"]] == ["db.1 failed: exit 3"]
