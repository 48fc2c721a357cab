"""What runs in containers, as the API tells it."""

from __future__ import annotations

import json
from typing import Any

from tests.orchestrator.api.test_api import TWO, Setting, s

__all__ = ["s"]  # the fixture


async def test_stats_are_relayed_with_what_was_asked(s: Setting) -> None:
    await s.client.up(**TWO)
    s.agent.answers["stats"] = [{"line": {"at": 1.0, "tasks": []}}, {"line": {"at": 2.0, "tasks": []}}, {"result": {}}]
    lines = await s.client.lines("GET", "/v1/stats?stack=shop&service=web&follow=true&every=0.5")
    assert [line["at"] for line in lines] == [1.0, 2.0]
    asked = s.agent.requests[-1]
    assert asked == {"op": "stats", "follow": True, "every": 0.5, "stack": "shop", "services": ["web"]}


async def test_who_is_not_known_is_refused_before_the_agent_is_asked(s: Setting) -> None:
    await s.client.up(**TWO)
    for path in ("stats?stack=shop&service=wbe", "processes?stack=shop&service=wbe", "stacks/shop/inspect?service=wbe"):
        status, answer = await s.client.ask("GET", f"/v1/{path}")
        assert (status, answer["error"]["code"]) == (404, "service-unknown"), path
        assert "web" in answer["error"]["hint"]
    assert (await s.client.ask("GET", "/v1/processes?stack=nope"))[1]["error"]["code"] == "stack-unknown"


async def test_processes(s: Setting) -> None:
    await s.client.up(**TWO)
    container = {"task": "t", "service": "web", "slot": 1, "processes": [{"pid": 1}]}
    s.agent.answers["processes"] = [{"result": [container]}]
    status, answer = await s.client.ask("GET", "/v1/processes?stack=shop&service=web")
    assert (status, answer["containers"]) == (200, [container])
    s.agent.answers["processes"] = [{"result": []}]
    status, answer = await s.client.ask("GET", "/v1/processes?stack=shop&service=web")
    assert (status, answer["error"]["code"]) == (400, "nothing-runs")


async def test_inspect_hides_what_looks_like_a_secret(s: Setting) -> None:
    web: dict[str, Any] = {"image": "web:1", "environment": {"DB_PASSWORD": "hunter2", "TZ": "UTC"}}
    await s.client.up(web=web, db={"image": "db:1"})
    s.agent.answers["containers"] = [{"result": [{"task": "t", "container": {"environment": ["DB_PASSWORD=hunter2"]}}]}]
    status, found = await s.client.ask("GET", "/v1/stacks/shop/inspect?service=web")
    assert status == 200 and "hunter2" not in json.dumps(found)
    assert list(found["desired"]["services"]) == ["web"]
    assert found["desired"]["services"]["web"]["environment"]["TZ"] == "UTC"
    assert [row["name"] for row in found["observed"]["services"]] == ["web"]
    assert s.agent.requests[-1]["services"] == ["web"]


async def test_networks_and_who_is_on_them(s: Setting) -> None:
    answer = await s.client.up(**TWO)
    await s.client.converge(answer["result"]["generation"])
    _, found = await s.client.ask("GET", "/v1/networks")
    assert [network["name"] for network in found["networks"]] == ["shop_default"]
    _, network = await s.client.ask("GET", "/v1/networks/shop_default")
    assert [(member["service"], member["slot"]) for member in network["members"]] == [("db", 1), ("web", 1), ("web", 2)]
    status, refusal = await s.client.ask("GET", "/v1/networks/shop_defualt")
    assert (status, refusal["error"]["code"]) == (404, "network-unknown") and "shop_default" in refusal["error"]["hint"]
