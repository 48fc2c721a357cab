"""plan, history, diff and rollback, and up after a rollback: what is asked, what is printed, which exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.orchestrator.cli.fakes import FakeDaemon, document, service, stack

UPDATE = {"phase": "rolled-back", "message": "web.1 failed: exit 3; back to revision 1", "back": None, "services": {}}


@pytest.fixture
def folder(root: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = root / "shop"
    path.mkdir()
    (path / "compose.yaml").write_text("name: shop\nservices:\n  web: {image: web}\n")
    monkeypatch.chdir(path)
    daemon.answers["GET", "/v1/stacks"] = {"stacks": [{"name": "shop"}]}
    return path


def planned(**fields: Any) -> dict[str, Any]:
    web = {
        **{"name": "web", "consequence": "rolling", "containers": 2, "downtime": "none", "order": "start-first"},
        **{"why": "nothing forbids it", "causes": ["web is another image now"]},
    }
    port = {"service": "web", "target": 80, "published": 8080, "protocol": "tcp", "host_ip": ""}
    changed = [{"key": "services.web.replicas", "before": 1, "after": 2}]
    found = {
        "stack": "shop",
        "changes": True,
        "services": [web],
        "pull": ["web"],
        "ports": [port],
        "difference": changed,
        "refusals": [],
    }
    return {**found, **fields}


def test_plan_prints_consequences_and_exits_with_2(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop/plan"] = planned()
    assert main(["plan"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "shop/web  rolling, 2 containers; downtime: none",
        "  start-first: nothing forbids it",
        "  because web is another image now",
        "pull  web",
        "port  0.0.0.0:8080 → 80/tcp is newly open, to shop/web",
        "services.web.replicas: 1 → 2",
    ]
    daemon.answers["POST", "/v1/stacks/shop/plan"] = planned(changes=False)
    assert main(["plan"]) == 0
    assert capsys.readouterr().out == "stack shop is as the file says; up would change nothing\n"
    taken = {"code": "port-taken", "service": "web", "message": "cannot start shop/web: no", "hint": "another port"}
    daemon.answers["POST", "/v1/stacks/shop/plan"] = planned(refusals=[taken])
    assert main(["plan"]) == 1
    assert capsys.readouterr().err == "cannot start shop/web: no\ntry  another port\n"


def test_what_comes_or_goes_whole_is_told_by_its_fields_that_are_set(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web = {"image": "web:1", "environment": {"A": "b"}, "ports": [], "restart": {"condition": "no", "delay": None}}
    difference = [
        {"key": "images.web:1", "before": None, "after": {"id": "sha256:1", "digest": ""}},
        {"key": "services.web", "before": None, "after": web},
        {"key": "services.db.environment.A", "before": None, "after": ""},
        {"key": "volumes.old", "before": {"name": "shop_old", "external": False}, "after": None},
        {"key": "networks.default", "before": None, "after": {"internal": False}},
    ]
    fields = [
        'images.web:1.id: none → "sha256:1"',
        'services.web.image: none → "web:1"',
        'services.web.environment.A: none → "b"',
        'services.web.restart.condition: none → "no"',
        'services.db.environment.A: none → ""',
        'volumes.old.name: "shop_old" → none',
        "networks.default: none → {}",
    ]
    daemon.answers["GET", "/v1/stacks/shop/diff"] = {"difference": difference}
    assert main(["diff", "1", "2"]) == 1
    assert capsys.readouterr().out.splitlines() == fields
    daemon.answers["POST", "/v1/stacks/shop/plan"] = planned(difference=difference)
    assert main(["plan"]) == 2
    assert capsys.readouterr().out.splitlines()[-3:] == fields[-3:]
    assert main(["plan"]) == 2
    assert "services.web" not in capsys.readouterr().out  # it has a line of its own above


def test_history_and_diff(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"number": 3, "at": 0.0, "uid": 1000, "current": True, "services": ["web"]}
    daemon.answers["GET", "/v1/stacks/shop/revisions"] = {"revisions": [row]}
    assert main(["history"]) == 0
    assert capsys.readouterr().out.endswith("by uid 1000  web  in use\n")
    changed = [{"key": "services.web.image", "before": "a", "after": None}]
    daemon.answers["GET", "/v1/stacks/shop/diff"] = {"difference": changed}
    assert main(["diff", "2", "3"]) == 1
    assert capsys.readouterr().out == 'services.web.image: "a" → none\n'
    assert main(["diff", "shop", "2"]) == 2


def test_rollback_waits(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/shop/rollback"] = {"stack": "shop", "generation": 3, "revision": 2}
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document(stack("shop", service("web")))]
    assert main(["rollback", "2"]) == 0
    assert capsys.readouterr().out.endswith("stack shop is as revision 2 says\n")
    posted = next(body for method, target, body in daemon.asked if target.endswith("/rollback"))
    assert posted == {"revision": 2}


def test_up_that_was_rolled_back_says_why_and_fails(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"result": {"stack": "shop", "generation": 3, "revision": 2, "actions": []}}
    daemon.answers["POST", "/v1/stacks/shop"] = [result]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document({**stack("shop", service("web")), "update": UPDATE})]
    assert main(["up"]) == 1
    assert "cannot bring up shop: web.1 failed: exit 3; back to revision 1\n" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["why"], ["run"], ["exec"], ["attach"]], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        pytest.param("wbe", "wbe is taken for a stack, being no service of a Compose file here", id="misspelt"),
        pytest.param("shop/", "shop is taken for a stack", id="a stack"),
    ],
)
def test_a_verb_of_one_service_says_what_it_took_the_word_for(
    verb: list[str], word: str, said: str, daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, word, *(["ls"] if verb == ["exec"] else [])]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_file_that_up_would_refuse_still_says_which_stack_and_service_is_meant(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "name: shop\nservices:\n  web: {image: web, privileged: true}\n  debug: {image: web, profiles: [debug]}\n"
    (folder / "compose.yaml").write_text(text)
    assert main(["up"]) == 2
    assert "privileged" in capsys.readouterr().err
    daemon.answers["GET", "/v1/stacks/shop/revisions"] = {"revisions": [], "current": None}
    assert main(["history"]) == 0
    daemon.answers["GET", "/v1/status"] = document(stack("shop", service("web"), service("debug")))
    for words in (["web"], ["debug"], []):
        assert main(["status", *words]) == 0
    assert "shop" in capsys.readouterr().out
    (folder / "compose.yaml").write_text("name: [\n")
    assert main(["history"]) == 2
