"""What each task's resolver knows: by networks, by stack, by task."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from agent.decide.zone import Place, hostname, reaches_host, sights, text
from agent.wire.messages import Naming
from tests.agent.decide.make import task


def on(*networks: str, aliases: tuple[str, ...] = (), internal: bool = False) -> dict[str, object]:
    return {"networks": [{"network": name, "aliases": aliases, "internal": internal} for name in networks]}


PLACES = [
    Place("shop", task("w1", "web", 1, container=on("front", "shared", aliases=("www",))), "10.0.0.1"),
    Place("shop", task("w2", "web", 2, container=on("front", "shared", aliases=("www",))), "10.0.0.2"),
    Place("shop", task("d1", "db", 1, container=on("back", internal=True)), "10.0.0.3"),
    Place("blog", task("b1", "web", 1, container=on("shared")), "10.0.0.4"),
    Place("blog", task("n1", "none", 1, container={"network_mode": "none"}), "10.0.0.5"),
]
REACHED = {("shop", "web"): ("10.9.0.1",), ("shop", "db"): ("10.9.0.3",), ("blog", "web"): ("10.9.0.4",)}
SEEN = sights(PLACES, REACHED)


@pytest.mark.parametrize(
    ("who", "name", "addresses"),
    [
        pytest.param("w1", "web", ("10.9.0.1",), id="a stack's own name hides a neighbour's"),
        pytest.param("b1", "web", ("10.9.0.4",), id="and so it is for the neighbour"),
        pytest.param("b1", "www", ("10.9.0.1",), id="a neighbour's alias"),
        pytest.param("b1", "web.shared", ("10.9.0.4",), id="service and network"),
        pytest.param("w1", "web.front", ("10.9.0.1",), id="on either of its networks"),
        pytest.param("b1", "web.front", None, id="not on a network it is not on"),
        pytest.param("w1", "tasks.web", ("10.0.0.1", "10.0.0.2"), id="all tasks"),
        pytest.param("b1", "shop-web-2", ("10.0.0.2",), id="one container"),
        pytest.param("w1", "shop-web-2.front", ("10.0.0.2",), id="one container and its network"),
        pytest.param("w1", "db", None, id="not what shares no network"),
        pytest.param("d1", "web", None, id="nor the other way"),
    ],
)
def test_what_is_seen(who: str, name: str, addresses: tuple[str, ...] | None) -> None:
    assert SEEN[who].view.names.get(name) == addresses


def test_a_task_itself() -> None:
    assert SEEN["w2"].own == {"web": ("10.0.0.2",), "web-2": ("10.0.0.2",), "shop-web-2": ("10.0.0.2",)}
    assert "n1" not in SEEN, "without a network there is nobody to ask"
    assert (SEEN["w1"].outside, SEEN["d1"].outside) == (True, False)


def test_addresses_have_names_that_lead_back() -> None:
    assert SEEN["w1"].view.pointers == {
        "10.0.0.1": "shop-web-1.front",
        "10.0.0.2": "shop-web-2.front",
        "10.9.0.1": "web.front",
        "10.0.0.4": "blog-web-1.shared",
        "10.9.0.4": "web.shared",
    }


def test_tasks_that_see_the_same_share_a_view_in_the_text() -> None:
    document = json.loads(text(SEEN))
    assert len(document["views"]) == 3
    assert document["tasks"]["w1"]["view"] == document["tasks"]["w2"]["view"] != document["tasks"]["b1"]["view"]
    assert text(SEEN) == text(sights(PLACES, REACHED)), "the same state, the same file"


def test_what_is_no_name_is_left_out() -> None:
    odd = "x" * 64
    seen = sights([Place("s", task("t", odd, 1, container={"networks": [{"network": "ü"}]}), "10.0.0.1")], {})
    document = json.loads(text(seen))
    assert document["views"][0]["names"] == {} and document["views"][0]["pointers"] == {}


def test_what_a_file_says_of_names() -> None:
    naming = {
        "container": "the-db",
        "domain": "example.org",
        "links": {"store": "web", "gone": "nobody"},
        "servers": ("192.0.2.53",),
        "hosts": {"printer": ("192.0.2.9",), "web": ("192.0.2.10",), "outer": ("host-gateway",)},
    }
    places = [
        Place("shop", task("d1", "db", 1, container={"naming": naming}), "10.0.0.1"),
        Place("shop", task("w1", "web", 1), "10.0.0.2"),
    ]
    seen = sights(places, {("shop", "db"): ("10.0.0.1",), ("shop", "web"): ("10.9.0.2",)})
    assert seen["d1"].own == {
        "store": ("10.9.0.2",),
        "printer": ("192.0.2.9",),
        "web": ("192.0.2.10",),
        "outer": ("169.254.1.1",),
        **dict.fromkeys(("db", "db-1", "the-db", "db-1.example.org"), ("10.0.0.1",)),
    }
    assert [reaches_host(place.task) for place in places] == [True, False]
    assert (seen["d1"].servers, seen["w1"].servers) == (("192.0.2.53",), ())
    assert seen["w1"].view.names["the-db"] == ("10.0.0.1",)
    assert "shop-db-1" not in seen["w1"].view.names and "store" not in seen["w1"].view.names
    assert seen["w1"].view.pointers["10.0.0.1"] == "the-db.shop_default"


@pytest.mark.parametrize(
    "said",
    [
        {"search": ("a\nnameserver 192.0.2.66",)},
        {"options": ("ndots:1\nnameserver 192.0.2.66",)},
        {"domain": "a b"},
        {"container": "a\n"},
        {"hosts": {"a b": ("192.0.2.1",)}},
        {"hosts": {"a": ("192.0.2.1\n192.0.2.2 bank",)}},
        {"links": {"a\n": "web"}},
        {"servers": ("example.org",)},
    ],
    ids=lambda said: next(iter(said)),
)
def test_what_would_smuggle_in_a_line_does_not_come_over_the_bus(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Naming.model_validate(said)


@pytest.mark.parametrize(
    ("given", "name"),
    [(None, "a-service-2"), ("db.example", "db.example"), ("x" * 70, "x" * 63)],
    ids=["of its service", "its own", "cut to what the kernel takes"],
)
def test_hostname(given: str | None, name: str) -> None:
    assert hostname(task("t", "A_service", 2, container={"hostname": given[:64] if given else None})) == name


def test_ipv6_is_told_where_the_network_has_it() -> None:
    six, four = {"network": "six", "ipv6": True}, {"network": "four"}
    places = [
        Place("shop", task("w1", "web", 1, container={"networks": [six, four]}), "10.0.0.1", "fd67::1"),
        Place("shop", task("d1", "db", 1, container={"networks": [six]}), "10.0.0.2", "fd67::2"),
        Place("shop", task("o1", "old", 1, container={"networks": [four]}), "10.0.0.3"),
    ]
    seen = sights(places, {("shop", "web"): ("10.0.1.1", "fd67::101")})
    assert seen["d1"].view.names["web"] == ("10.0.1.1", "fd67::101")
    assert seen["d1"].view.names["tasks.web"] == ("10.0.0.1", "fd67::1")
    assert seen["d1"].view.pointers["fd67::1"] == "shop-web-1.six"
    assert seen["o1"].view.names["web"] == ("10.0.1.1",)
    assert seen["o1"].view.names["tasks.web"] == ("10.0.0.1",)
    assert "fd67::1" not in seen["o1"].view.pointers
    assert seen["w1"].own["web"] == ("10.0.0.1", "fd67::1")
