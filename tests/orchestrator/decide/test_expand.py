from __future__ import annotations

from typing import Any

import pytest

from agent.kit.errors import UserError
from agent.wire.messages import Dependency, Healthcheck, Mount, Policy, Port, Resources, Restart
from orchestrator.compose.model import Stack
from orchestrator.decide.expand import as_it_is, expand, template
from tests.support.orchestrating import stack


def one(**service: Any) -> Any:
    model = Stack.model_validate(
        {
            "name": "shop",
            "services": {"web": {"image": "web:1", **service}, "db": {"image": "db:1"}},
            "volumes": {"data": {"name": "shop_data"}},
        }
    )
    return expand(model, {"web:1": "sha256:1", "db:1": "sha256:2"})["web"]


def test_a_full_service() -> None:
    web = one(
        replicas=3,
        ports=[{"target": 80, "published": 8080}],
        mounts=[
            {"type": "volume", "target": "/data", "source": "data", "nocopy": True},
            {"type": "bind", "target": "/etc/x", "source": "/srv/x", "read_only": True},
            {"type": "tmpfs", "target": "/tmp", "size": 1024},
        ],
        depends_on={"db": {"condition": "service_healthy"}},
        restart={"condition": "always", "delay": 2.0},
        resources={"memory": 1 << 20, "cpus": 0.5},
        stop_signal="SIGINT",
    )
    assert (web.replicas, web.container.image, web.container.image_id) == (3, "web:1", "sha256:1")
    assert web.container.ports == (Port(target=80, published=8080),)
    assert web.container.mounts == (
        Mount(kind="volume", target="/data", source="shop_data", no_copy=True),
        Mount(kind="bind", target="/etc/x", source="/srv/x", read_only=True),
        Mount(kind="tmpfs", target="/tmp", size=1024),
    )
    assert web.policy == Policy(
        restart=Restart(condition="always", delay=2.0),
        resources=Resources(memory=1 << 20, cpus=0.5),
        stop_signal="SIGINT",
        depends_on=(Dependency(service="db", condition="service_healthy"),),
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({"disable": True}, Healthcheck(kind="none")),
        ({"test": ["NONE"]}, Healthcheck(kind="none")),
        ({"test": ["CMD", "x"], "retries": 2}, Healthcheck(kind="exec", test=("CMD", "x"), retries=2)),
        ({"interval": 5.0}, Healthcheck(kind="exec", interval=5.0)),
        ({"http_port": 80, "http_path": "/up"}, Healthcheck(kind="http", port=80, path="/up")),
        ({"tcp_port": 6379}, Healthcheck(kind="tcp", port=6379)),
    ],
    ids=["none given", "disabled", "NONE", "exec", "the image's test", "http", "tcp"],
)
def test_healthchecks(given: dict[str, Any] | None, expected: Healthcheck | None) -> None:
    assert one(healthcheck=given).policy.healthcheck == expected


def test_labels_of_a_volume_replace_no_container() -> None:
    plain, labelled = (
        one(mounts=[{"type": "volume", "source": "data", "target": "/d", "labels": labels}])
        for labels in ({}, {"a": "b"})
    )
    assert labelled.container.mounts[0].labels == {"a": "b"}
    assert plain.template == labelled.template


def sharing(**services: Any) -> dict[str, Any]:
    made = {name: {"image": "web:1", **service} for name, service in services.items()}
    volumes = {"data": {"name": "shop_data"}}
    return expand(Stack.model_validate({"name": "shop", "services": made, "volumes": volumes}), {"web:1": "sha256:1"})


def test_volumes_from() -> None:
    data = {"type": "volume", "source": "data", "target": "/data"}
    found = sharing(
        a={"mounts": [data, {"type": "volume", "target": "/anon"}, {"type": "tmpfs", "target": "/tmp"}]},
        b={"mounts": [{"type": "bind", "source": "/b", "target": "/anon"}], "volumes_from": [{"service": "a"}]},
        c={"volumes_from": [{"service": "a", "read_only": True}]},
        d={"volumes_from": [{"service": "c"}, {"service": "b"}], "mounts": [{"type": "tmpfs", "target": "/data"}]},
    )
    mounts = {
        name: [(m.target, m.source, m.owner, m.read_only) for m in one.container.mounts] for name, one in found.items()
    }
    assert mounts["b"] == [("/data", "shop_data", "", False), ("/anon", "/b", "", False)]
    assert mounts["c"] == [("/data", "shop_data", "", True), ("/anon", None, "a", True)]
    assert mounts["d"] == [("/data", None, "", False), ("/anon", "/b", "", False)]
    shares = {name: [(v.service, v.read_only) for v in one.container.volumes_from] for name, one in found.items()}
    assert shares == {"a": [], "b": [("a", False)], "c": [("a", True)], "d": [("c", False), ("a", False), ("b", False)]}


@pytest.mark.parametrize(
    ("services", "says"),
    [
        ({"a": {"volumes_from": [{"service": "x"}]}}, "volumes_from names x, which is no service"),
        ({"a": {"volumes_from": [{"service": "a"}]}}, "a → a take volumes from one another"),
        (
            {"a": {"volumes_from": [{"service": "b"}]}, "b": {"volumes_from": [{"service": "a"}]}},
            "take volumes from one another",
        ),
    ],
    ids=["nobody", "itself", "one another"],
)
def test_volumes_that_cannot_be_taken_over(services: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        sharing(**services)
    assert caught.value.code == "bad-volumes-from"


def test_a_long_chain_of_volumes_from_is_taken_in_its_stride() -> None:
    links = {f"s{n}": {"volumes_from": [{"service": f"s{m}"} for m in (n - 1, n - 2) if m >= 0]} for n in range(400)}
    found = sharing(**links | {"s0": {"mounts": [{"type": "volume", "target": "/a"}]}})
    assert found["s399"].container.mounts[0].owner == "s0"
    assert len(found["s399"].container.volumes_from) == 399


@pytest.mark.parametrize(
    ("mount", "code"),
    [
        ({"type": "volume", "target": "/d", "source": "other"}, "volume-undefined"),
        ({"type": "bind", "target": "/d"}, "bad-mount"),
        ({"type": "bind", "target": "/d", "source": "../etc"}, "bad-mount"),
        ({"type": "tmpfs", "target": "/d", "size": -1}, "bad-model"),
    ],
    ids=["not listed", "a bind of nothing", "a bind of a relative path", "less than nothing"],
)
def test_mounts_that_cannot_be(mount: dict[str, Any], code: str) -> None:
    with pytest.raises(UserError) as caught:
        one(mounts=[mount])
    assert caught.value.code == code
    assert caught.value.message.startswith("cannot start shop/web: ")


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ({"stop_grace_period": float("nan")}, "services.web.stop_grace_period is no number a machine can hold"),
        ({"resources": {"cpus": float("inf")}}, "services.web.resources.cpus is no number a machine can hold"),
        ({"resources": {"memory": 10**30}}, "services.web.resources.memory is no number a machine can hold"),
        ({"resources": {"memory": -1}}, "resources.memory: Input should be greater than"),
        ({"stop_grace_period": -1}, "policy.stop_grace: Input should be greater than"),
        (
            {"healthcheck": {"http_port": 80, "http_path": "/ HTTP/1.1\r\nX: y"}},
            "healthcheck.path: String should match",
        ),
        ({"healthcheck": {"tcp_port": 99999}}, "healthcheck.port: Input should be less than"),
        ({"command": ["a", "b\0c"]}, "services.web.command.1 holds a character that no program can be given"),
        ({"environment": {"A\ud800": "x"}}, "a key of services.web.environment holds a character"),
        ({"hostname": "a b\n"}, "'a b\\n' is no host name"),
    ],
    ids=[
        "nan",
        "inf",
        "huge",
        "negative",
        "negative time",
        "a second header",
        "no port",
        "nul",
        "surrogate",
        "hostname",
    ],
)
def test_a_model_that_could_not_be_kept_or_obeyed(service: dict[str, Any], says: str) -> None:
    """A client sends the model: what JSON, the kernel or the agent cannot take must not reach the database."""
    with pytest.raises(UserError) as caught:
        one(**service)
    assert caught.value.code == "bad-model"
    assert caught.value.message.startswith("cannot start shop") and says in caught.value.message
    assert caught.value.hint


def test_the_template_is_stable_and_sees_only_the_container() -> None:
    base = one()
    assert one(environment={"A": "1", "B": "2"}).template == one(environment={"B": "2", "A": "1"}).template
    assert one(restart={"condition": "always"}, replicas=5, stop_grace_period=1).template == base.template
    for difference in ({"command": ["x"]}, {"command": []}, {"read_only": True}, {"labels": {"a": "b"}}):
        assert one(**difference).template != base.template, difference


def test_the_template_of_this_version_is_the_template_of_all_later_ones() -> None:
    """If this fails, upgrading gorae would replace every container of every user."""
    web = expand(stack(), {"web:1": "sha256:1"})["web"]
    assert template(web.container) == web.template == "c26a019fd17b0bb0"


def test_as_it_is_reads_services_back_from_tasks() -> None:
    from tests.orchestrator.decide.test_plan import up

    model = stack(web={"image": "web:1", "replicas": 2}, db={"image": "db:1"}, off={"image": "x", "replicas": 0})
    images = {"web:1": "sha256:web:1", "db:1": "sha256:db:1", "x": "sha256:x"}
    expected = {name: want for name, want in expand(model, images).items() if want.replicas}
    assert as_it_is(up(model).tasks) == expected
