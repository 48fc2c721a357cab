"""Every verb against a daemon that says what the test wants: what is asked, what is printed, which exit code."""

from __future__ import annotations

import io
import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from agent.wire.batches import Part, encode
from agent.wire.records import mark, record
from orchestrator.cli import waiting
from orchestrator.cli.main import main
from tests.orchestrator.cli.fakes import CUT, HOLD, FakeDaemon, document, error, service, stack, task
from tests.support.logs import said

RESULT = {"result": {}}  # the end of logs
FILE = "name: shop\nservices:\n  web: {image: web}\n  db: {image: redis}\n"


@pytest.fixture
def folder(root: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stack shop; the daemon knows stack blog too."""
    path = root / "shop"
    path.mkdir()
    (path / "compose.yaml").write_text(FILE)
    monkeypatch.chdir(path)
    daemon.answers["GET", "/v1/stacks"] = {"stacks": [{"name": "shop"}, {"name": "blog"}]}
    return path


def result(*actions: dict[str, Any]) -> dict[str, Any]:
    return {"result": {"stack": "shop", "generation": 3, "revision": 2, "actions": list(actions)}}


CREATE = {"action": "create", "service": "web", "slot": 1, "cause": "new"}
UP = document(stack("shop", service("web", ports=["0.0.0.0:80 → 80"]), service("db")))


def test_up_sends_the_model_and_says_what_runs(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = {"progress": {"image": "redis", "step": "pulling", "done": 1, "total": 2}}
    daemon.answers["POST", "/v1/stacks/shop"] = [progress, result(CREATE)]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [UP]
    assert main(["up"]) == 0
    out = capsys.readouterr().out
    assert "redis  pulling\n" in out
    assert out.endswith("stack shop is up: 2 services, 2 containers running\n  web 0.0.0.0:80 → 80\n")
    method, target, body = daemon.asked[0]
    assert (method, target, body["model"]["name"], body["pull"]) == ("POST", "/v1/stacks/shop", "shop", "policy")
    assert body["keys"] == {} and "images" not in body["model"]
    assert daemon.asked[1][1] == "/v1/stacks/shop/watch?generation=3"


def test_up_says_that_nothing_changed(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result({**CREATE, "action": "keep"})]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [UP]
    assert main(["up"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("2 services, 2 containers running; nothing changed")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            service(
                "web",
                task(state="failed", message="exit code 1", evidence={"log_tail": ["a", "boom\x1b[2J"]}),
                failed=True,
            ),
            ["cannot bring up shop/web: failed: exit code 1", "  │ a", "  │ boom·[2J", "try  gorae logs shop/web"],
            id="failed, with its log",
        ),
        pytest.param(
            service("web", task(state="backoff", attempt=5, message="exit code 2", evidence={"log_tail": ["x"]})),
            ["cannot bring up shop/web: backoff: exit code 2, 5th time", "  │ x", "try  gorae logs shop/web"],
            id="ends again and again",
        ),
        pytest.param(
            service(
                "web",
                task(
                    state="failed",
                    message="cannot start: no such command: nope",
                    evidence={"hint": "look at command: in compose.yaml"},
                ),
                failed=True,
            ),
            [
                "cannot bring up shop/web: failed: cannot start: no such command: nope",
                "  │ late",
                "try  look at command: in compose.yaml",
            ],
            id="the agent's own hint comes first, the log is fetched",
        ),
    ],
)
def test_up_says_what_is_not_up_and_why(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], expected: list[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    daemon.answers["GET", "/v1/logs"] = [{"kind": "line", "text": "late"}]
    bad = document(stack("shop", row, service("db"), converged=False, state=row["state"]))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [bad, HOLD]
    daemon.held.set()
    assert main(["up"]) == 1
    assert capsys.readouterr().err.splitlines() == expected


def test_up_waits_for_nobody_once_something_has_failed_for_good(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    rows = (
        service("web", task(state="failed", message="exit 3", evidence={"log_tail": ["boom"]}), failed=True),
        service("slow", task(state="starting")),
        service("ill", task(health="starting", failures=2, evidence={"probe_output": "503"})),
    )
    watched = document(stack("shop", *rows, converged=False, state="failed"))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [watched, HOLD]
    assert main(["up"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "cannot bring up shop/web: failed: exit 3",
        "  │ boom",
        "cannot bring up shop/ill: running, not healthy yet",
        "not waited for: slow; gorae goes on with what is not up yet",
        "try  gorae logs shop/web",
    ]


def test_up_gives_up_after_its_timeout(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    row = service("web", task(state="starting", health="none", evidence={"probe_output": "503\n"}))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document(stack("shop", row, converged=False)), HOLD]
    assert main(["up", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "cannot bring up shop/web: starting after 0s",
        "  │ 503",
        "try  gorae logs shop/web",
    ]


FULL = {
    **{"of": "agent", "code": "journal-full", "message": "cannot write the journal: no space left on its disk"},
    **{"hint": "free some of the disk", "since": 0.0, "stack": None},
}


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        pytest.param(
            FULL,
            ["cannot bring up shop: cannot write the journal: no space left on its disk", "try  free some of the disk"],
            id="everybody's",
        ),
        pytest.param(
            {**FULL, "stack": "shop", "message": "cannot remove a volume", "hint": ""},
            ["cannot bring up shop: cannot remove a volume", "try  gorae doctor; it is tried again and again"],
            id="its own",
        ),
        pytest.param(
            {**FULL, "stack": "blog"},
            ["cannot bring up shop/web: starting after 1s", "try  gorae logs shop/web"],
            id="another stack's",
        ),
    ],
)
def test_up_ends_when_the_daemons_do_not_get_on(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str], trouble: dict[str, Any], expected: list[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    row = service("web", task(state="starting"))
    held_up = {**document(stack("shop", row, converged=False)), "troubles": [trouble]}
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [held_up, HOLD]
    assert main(["up", "--timeout", "1"]) == 1
    assert capsys.readouterr().err.splitlines() == expected


def test_status_says_what_holds_up_the_daemons(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/status"] = {**document(stack("shop", service("web"))), "troubles": [FULL]}
    assert main(["status"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "note  for 16m: cannot write the journal: no space left on its disk; what is shown may be old",
        "try  free some of the disk",
    ]


def test_up_no_wait_does_not_watch(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    assert main(["up", "--no-wait"]) == 0
    assert capsys.readouterr().out == "stack shop is stored as revision 2: 1 change\n"
    assert len(daemon.asked) == 1


def test_a_bad_file_is_exit_code_2_and_asks_nothing(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text(FILE + "  bad: {imag: x}\n")
    assert main(["up"]) == 2
    assert "compose.yaml:5" in capsys.readouterr().err
    assert daemon.asked == []


def test_an_error_of_the_daemon_is_said_with_its_hint(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [error("cannot start shop/web: port 80 is taken", hint="another port")]
    assert main(["up"]) == 1
    assert capsys.readouterr().err == "cannot start shop/web: port 80 is taken\ntry  another port\n"
    daemon.answers["POST", "/v1/stacks/shop"] = (409, error("cannot start shop/web: no", hint="later"))
    assert main(["up"]) == 1
    assert capsys.readouterr().err == "cannot start shop/web: no\ntry  later\n"


@pytest.mark.parametrize(
    "words",
    [
        *(["up"], ["down"], ["down", "shop"], ["stop"], ["scale", "shop/web=2"], ["status"], ["ls"], ["logs"]),
        *(["events"], ["image", "ls"], ["image", "pull", "x"], ["version"]),
    ],
    ids=" ".join,
)
def test_no_daemon_is_exit_code_3(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (root / "compose.yaml").write_text(FILE)
    monkeypatch.chdir(root)
    assert main([*words, "--root", str(root)]) == 3
    assert capsys.readouterr().err.splitlines() == [
        f"cannot reach gorae at {root}/run/api/gorae.sock: it is not running",
        "try  gorae daemon --detach (as root), or gorae doctor",
    ]


@pytest.mark.parametrize(
    ("words", "path", "services"),
    [
        pytest.param(["stop"], "shop", [], id="no word: the folder's stack"),
        pytest.param(["stop", "web"], "shop", ["web"], id="a service of the folder's stack"),
        pytest.param(["stop", "web", "db"], "shop", ["web", "db"], id="two of them"),
        pytest.param(["stop", "blog"], "blog", [], id="no service here: a stack"),
        pytest.param(["stop", "blog", "web"], "blog", ["web"], id="a stack and its service"),
        pytest.param(["stop", "blog/web"], "blog", ["web"], id="explicit"),
        pytest.param(["stop", "blog/"], "blog", [], id="explicitly a stack"),
        pytest.param(["stop", "blog/web", "blog/db"], "blog", ["web", "db"], id="two, explicit"),
        pytest.param(["stop", "-p", "other", "web"], "other", ["web"], id="-p: words are services"),
        pytest.param(["stop", "-p", "other", "other/web"], "other", ["web"], id="-p, said twice"),
        pytest.param(["stop", "-f", "compose.yaml", "shop/web"], "shop", ["web"], id="-f, said twice"),
        pytest.param(["restart", "web"], "shop", ["web"], id="restart"),
        pytest.param(["start", "web"], "shop", ["web"], id="start"),
        pytest.param(["recreate", "web"], "shop", ["web"], id="recreate"),
        pytest.param(["pause", "web"], "shop", ["web"], id="pause"),
        pytest.param(["unpause", "web"], "shop", ["web"], id="unpause"),
    ],
)
def test_verbs_find_their_target(
    daemon: FakeDaemon, folder: Path, words: list[str], path: str, services: list[str]
) -> None:
    target = f"/v1/stacks/{path}/{words[0]}"
    daemon.answers["POST", target] = {"stack": path, "generation": 4, "actions": []}
    daemon.answers["GET", f"/v1/stacks/{path}/watch"] = [document(stack(path, observed_generation=4))]
    assert main(words) == 0
    assert ("POST", target, {"services": services}) in daemon.asked


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["stop", "web"], "cannot tell what web is: a service of shop here, and a stack", id="ambiguous"),
        pytest.param(["stop", "a/b/c"], "cannot understand a/b/c", id="two slashes"),
        pytest.param(["stop", "/web"], "cannot use '' as the name of a stack", id="a service of nothing"),
        pytest.param(["down", "shop?volumes=true&"], "as the name of a stack", id="a name that is a query"),
        pytest.param(["events", "-p", "a b"], "cannot use 'a b' as the name of a stack", id="a name with a blank"),
        pytest.param(["stop", "a/x", "b/y"], "cannot act on more than one stack at once", id="two stacks"),
        pytest.param(["down", "shop", "web"], "cannot remove single services", id="down of a service"),
        pytest.param(["down", "-p", "shop", "web"], "cannot remove single services", id="down of a service, with -p"),
        pytest.param(
            ["down", "-f", "compose.yaml", "blog"], "cannot remove single services", id="down of a service, with -f"
        ),
        pytest.param(
            ["stop", "-p", "shop", "blog/web"], "-p or -f says shop, the words say blog", id="-p and another stack"
        ),
        pytest.param(
            ["stop", "-f", "compose.yaml", "blog/web"],
            "-p or -f says shop, the words say blog",
            id="-f and another stack",
        ),
        pytest.param(["stop", "--timeout", "nan"], "'nan' is no number of seconds", id="no time"),
        pytest.param(["stop", "--timeout=-1"], "'-1' is no number of seconds", id="a time before now"),
        pytest.param(
            ["scale", "web=many"], "cannot scale web to 'many': it is no number from 0 to 1000", id="no number"
        ),
        pytest.param(["scale", "web=1", "web=2"], "cannot scale web twice at once", id="two numbers for one service"),
        pytest.param(["scale", "web"], "cannot scale: no number of replicas is given", id="no wish"),
        pytest.param(["stat"], "cannot understand the verb stat", id="no such verb"),
        pytest.param(["ls", "--jso"], "cannot understand the command: unrecognized arguments: --jso", id="bad option"),
        pytest.param(["logs", "--since", "soon"], "'soon' is no moment", id="bad moment"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    daemon.answers["GET", "/v1/stacks"] = {"stacks": [{"name": "shop"}, {"name": "web"}]}
    assert main(words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.splitlines()[-1].startswith("try  ")
    assert captured.out == ""


def test_scale(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/blog/scale"] = {"stack": "blog", "generation": 3, "actions": []}
    daemon.answers["GET", "/v1/stacks/blog/watch"] = [document(stack("blog", service("web")))]
    assert main(["scale", "blog", "web=5"]) == 0
    assert ("POST", "/v1/stacks/blog/scale", {"replicas": {"web": 5}}) in daemon.asked
    assert capsys.readouterr().out.splitlines()[-1] == "blog/web has 5"


@pytest.mark.parametrize(
    ("words", "method", "path", "says"),
    [
        pytest.param(["up"], "POST", "/v1/stacks/shop", "cannot bring up shop", id="up"),
        pytest.param(["start", "web"], "POST", "/v1/stacks/shop/start", "cannot start shop", id="start"),
        pytest.param(["stop"], "POST", "/v1/stacks/shop/stop", "cannot stop shop", id="stop"),
        pytest.param(["scale", "web=2"], "POST", "/v1/stacks/shop/scale", "cannot scale shop", id="scale"),
    ],
)
def test_a_stack_that_somebody_removes_meanwhile(
    daemon: FakeDaemon,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    method: str,
    path: str,
    says: str,
) -> None:
    daemon.answers[method, path] = [result()] if words == ["up"] else result()["result"]
    going = document(stack("shop", service("web", state="stopping"), state="stopping", generation=4, converged=False))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [going, document()]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.err == f"{says}: somebody else has removed it meanwhile\ntry  gorae events shop says who\n"
    assert captured.out == "shop/web  1/1 stopping\n"


def test_a_stack_that_is_made_anew_while_it_is_removed(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["DELETE", "/v1/stacks/shop"] = {"stack": "shop", "generation": 4}
    anew = stack("shop", service("web"), generation=5, observed_generation=5)
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document(anew)]
    assert main(["down", "shop"]) == 1
    assert capsys.readouterr().err.startswith("cannot remove shop: somebody else has made it anew meanwhile\n")


def test_up_waits_on_when_the_daemon_was_started_again(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    starting = document(stack("shop", service("web", task(state="starting")), converged=False))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = deque([[starting], [], CUT, [UP]])
    assert main(["up"]) == 0
    captured = capsys.readouterr()
    assert (captured.err, "stack shop is up" in captured.out) == ("", True)


def test_up_tells_of_a_daemon_that_does_not_come_back(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RETURN", 0.2)
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = []
    assert main(["up"]) == 3
    assert capsys.readouterr().err.startswith("cannot follow stack shop: the daemon ended the connection")
    daemon.answers["POST", "/v1/stacks/shop"] = [{"progress": {"image": "web", "step": "pulling"}}]
    assert main(["up"]) == 3
    assert capsys.readouterr().err.startswith("cannot tell how it ended: the daemon ended the connection")


def test_a_stack_that_somebody_changes_meanwhile_is_noted(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    changed = stack("shop", service("web", task(state="stopped"), ready=0), service("db"), generation=4)
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document({**changed, "observed_generation": 4})]
    assert main(["up"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "note  somebody else has changed stack shop too: gorae events shop\n"
    assert captured.out.splitlines()[-1] == "stack shop is up: 2 services, 1 container running"


@pytest.mark.parametrize(
    "words",
    [["up"], ["stop"], ["start"], ["restart"], ["recreate"], ["pause"], ["unpause"], ["scale", "web=3"], ["down"]],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("wait", [True, False], ids=["waits", "does not wait"])
def test_json_is_one_document_of_one_shape(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], wait: bool
) -> None:
    method = "DELETE" if words == ["down"] else "POST"
    path = "/v1/stacks/shop" + ("" if words[0] in ("up", "down") else f"/{words[0]}")
    answer = {"stack": "shop", "generation": 3} if words == ["down"] else result(CREATE)["result"]
    daemon.answers[method, path] = [{"result": answer}] if words == ["up"] else answer
    now = document() if words == ["down"] else UP
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document(stack("shop", converged=False)), now]
    assert main([*words, "--json", *([] if wait else ["--no-wait"])]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "stack": "shop",
        "generation": 3,
        "actions": [] if words == ["down"] else [CREATE],
        "status": UP["stacks"][0] if wait and words != ["down"] else None,
    }


def test_kill(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/shop/kill"] = {"stack": "shop", "signalled": 2}
    assert main(["kill", "-s", "HUP", "web"]) == main(["kill"]) == main(["kill", "--json"]) == 0
    sent = [body for method, _, body in daemon.asked if method == "POST"]
    assert sent[0] == {"services": ["web"], "signal": "HUP"} and sent[1] == {"services": [], "signal": "SIGKILL"}
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["sent HUP to 2 containers", "sent SIGKILL to 2 containers"]
    assert json.loads(said[2]) == {"stack": "shop", "signalled": 2}


def test_down_that_does_not_end_says_so(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["DELETE", "/v1/stacks/shop"] = {"stack": "shop", "generation": 4}
    row = service("web", task(state="stopping"))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [
        document(stack("shop", row, state="stopping", converged=False)),
        HOLD,
    ]
    assert main(["down", "shop", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().err.startswith("cannot remove shop/web: stopping after 0s\n")


def test_down_waits_until_it_is_gone(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["DELETE", "/v1/stacks/shop"] = {"stack": "shop", "generation": 4}
    stopping = document(stack("shop", service("web", state="stopping"), state="stopping", converged=False))
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [stopping, document()]
    assert main(["down", "shop", "--volumes"]) == 0
    assert daemon.asked[0][:2] == ("DELETE", "/v1/stacks/shop?volumes=true")
    assert capsys.readouterr().out == "shop/web  1/1 stopping\nstack shop is gone, with its volumes\n"


def test_status_of_nothing(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/status"] = document()
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "no stacks; try  gorae up, in the folder of a Compose file\n"


def test_status_json_is_the_daemons_document(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/status"] = UP
    assert main(["status", "--json", "shop", "web"]) == 0
    assert json.loads(capsys.readouterr().out) == UP
    assert daemon.asked[-1][1] == "/v1/status?stack=shop&service=web"


def test_status_says_that_the_agent_is_away(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/status"] = document(stack("shop", service("web")), online=False)
    assert main(["status"]) == 0
    assert capsys.readouterr().err.startswith("note  the agent has not answered for 1m")


def test_ls(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": "shop", "revision": 2, "services": 2, "tasks": 4, "ready": 3, "state": "running", "updated_at": 1.0}
    daemon.answers["GET", "/v1/stacks"] = {"stacks": [row]}
    assert main(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["STACK", "STATE", "SERVICES", "READY", "REVISION", "CHANGED"]
    assert lines[1].split()[:5] == ["shop", "running", "2", "3/4", "2"]
    assert main(["ls", "-q"]) == 0
    assert capsys.readouterr().out == "shop\n"


def test_logs_are_prefixed_and_raw_in_a_pipe(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    db = said("x", at=200, service="db", task="t2")
    daemon.answers["GET", "/v1/logs"] = [said("early"), said("\x1b[31mred", at=200, slot=2), db, RESULT]
    assert main(["logs", "shop", "--tail", "5", "--since", "100"]) == 0
    assert capsys.readouterr().out == "web.2 │ \x1b[31mred\ndb.1  │ x\n"
    assert daemon.asked[-1][1] == "/v1/logs?stack=shop&follow=false&since=100.0&tail=5"


def test_a_batch_of_two_is_in_order_of_time(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        Part("shop", "web", 1, "t1", 5, 0, False, record(1, "stdout", b"a") + record(3, "stdout", b"c")),
        Part("shop", "database", 1, "t2", 5, 0, False, record(2, "stderr", b"b")),
    ]
    for more, expected in (
        ([], "web.1      │ a\ndatabase.1 │ b\nweb.1      │ c\n"),
        (["--no-prefix"], "a\nb\nc\n"),
        (["--no-prefix", "--until", "0.000000002"], "a\nb\n"),
    ):
        daemon.answers["GET", "/v1/logs"] = [encode(parts), RESULT]
        assert main(["logs", "shop", *more]) == 0
        assert capsys.readouterr().out == expected


def test_without_a_word_or_a_file_logs_are_of_all_stacks(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["GET", "/v1/logs"] = [said("x"), RESULT]
    assert main(["logs"]) == 0
    assert capsys.readouterr().out == "shop/web.1 │ x\n"
    assert daemon.asked[-1][1] == "/v1/logs?follow=false"


def test_bytes_come_out_as_they_went_in(daemon: FakeDaemon, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    long = b"\xff\x00\x1b[2J" * 40_000
    pieces = [long[at : at + 8192] for at in range(0, len(long), 8192)]
    data = b"".join(record(n, "stdout", piece, "P") for n, piece in enumerate(pieces))
    data += record(99, "stdout", b"") + record(100, "stderr", b"\r\xfe")
    for size in (len(data), 1 << 15):
        ends = [data.rfind(b"\n", 0, at + size) + 1 for at in range(0, len(data), size)]
        starts = [0, *ends[:-1]]
        parts = [Part("shop", "web", 1, "t", 5, a, False, data[a:b]) for a, b in zip(starts, ends, strict=True)]
        daemon.answers["GET", "/v1/logs"] = [*(encode([part]) for part in parts), RESULT]
        assert main(["logs", "shop", "--no-prefix"]) == 0
        assert capfdbinary.readouterr().out == long + b"\n\r\xfe\n"


def test_attempts_and_gaps_are_marked(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    data = mark(1, 1) + record(2, "stdout", b"first") + mark(3, 2) + record(4, "stdout", b"second")
    other = Part("shop", "web", 1, "t2", 9, 0, True, mark(9, 1) + record(10, "stdout", b"third"))
    batches = [encode([Part("shop", "web", 1, "t1", 5, 0, False, data)]), encode([other]), RESULT]
    daemon.answers["GET", "/v1/logs"] = batches
    assert main(["logs", "shop"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "web.1 │ first",
        "--- web.1 attempt 2 ---",
        "web.1 │ second",
        "--- web.1 lines are missing here: they were dropped before they could be read ---",
        "--- web.1 attempt 1 ---",
        "web.1 │ third",
    ]
    assert main(["logs", "shop", "--no-prefix"]) == 0
    assert capsys.readouterr().out == "first\nsecond\nthird\n"
    assert main(["logs", "shop", "--json"]) == 0
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["attempt", "line", "attempt", "line", "gap", "attempt", "line"]


def test_notes_are_no_part_of_the_logs(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/logs"] = [{"note": "shop/db keeps no logs"}, said("x"), RESULT]
    assert main(["logs", "shop"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("web.1 │ x\n", "note  shop/db keeps no logs\n")


def test_logs_of_several_services_are_the_daemons_to_choose(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["GET", "/v1/logs"] = [RESULT]
    assert main(["logs", "shop/web", "db", "--tail", "5", "--until", "9"]) == 0
    assert daemon.asked[-1][1] == "/v1/logs?stack=shop&service=web&service=db&follow=false&until=9.0&tail=5"
    daemon.answers["GET", "/v1/events"] = []
    assert main(["events", "shop", "web", "db"]) == 0
    assert daemon.asked[-1][1] == "/v1/events?stack=shop&service=web&service=db&limit=200&follow=false"


@pytest.mark.parametrize("verb", ["status", "logs", "events"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["web"], "stack=shop&service=web", id="a service of the folder's stack"),
        pytest.param(["blog"], "stack=blog", id="a stack"),
        pytest.param(["--file", "compose.yaml", "--profile", "x", "db"], "stack=shop&service=db", id="a file"),
    ],
)
def test_queries_find_their_target(
    daemon: FakeDaemon, folder: Path, verb: str, words: list[str], expected: str
) -> None:
    daemon.answers["GET", f"/v1/{verb}"] = UP if verb == "status" else [RESULT] if verb == "logs" else []
    assert main([verb, *words]) == 0
    path, _, query = daemon.asked[-1][1].partition("?")
    asked = [pair for pair in query.split("&") if pair.startswith(("stack=", "service="))]
    assert (path, "&".join(asked)) == (f"/v1/{verb}", expected)


def test_following_that_ends_by_itself_is_no_success(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/events"] = []
    assert main(["events", "-f", "shop"]) == 3
    assert capsys.readouterr().err.startswith("cannot follow any longer: gorae at ")


@pytest.mark.parametrize("words", [["ls"], ["status", "--json"], ["events"]], ids=lambda words: words[0])
def test_an_answer_that_stops_in_its_middle_is_said(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    for path in ("/v1/stacks", "/v1/status", "/v1/events"):
        daemon.answers["GET", path] = CUT
    assert main(words) == 3
    captured = capsys.readouterr()
    assert (captured.out, "it ended in the middle of its answer" in captured.err) == ("", True)


def test_events_say_time_who_what_and_why(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    event = {
        **{"id": "0", "at": 1.0, "source": "agent", "kind": "task.exited", "stack": "shop", "service": "web"},
        **{"slot": 1, "reason": "exit-error", "message": "exit code 1", "cause": None},
    }
    daemon.answers["GET", "/v1/events"] = [event]
    assert main(["events"]) == 0
    out = capsys.readouterr().out
    assert "shop/web.1" in out
    assert out.endswith("exited: exit code 1\n")
    assert main(["events", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == event


def test_images(daemon: FakeDaemon, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {
        **{
            "id": "sha256:" + "a" * 64,
            "names": ["redis:7"],
            "digests": [],
            "size": 12_345_678,
            "created": "2024-05-01T",
        },
        **{"layers": 2},
    }
    daemon.answers["GET", "/v1/images"] = {"images": [image]}
    assert main(["image", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["redis:7", "a" * 12, "12.3", "MB", "2024-05-01"]
    (root / "fs.tar").write_bytes(b"")
    (root / "config.json").write_text('{"Env": ["A=1"], "Cmd": ["old"]}')
    daemon.answers["POST", "/v1/images/import"] = [{"result": image}]
    words = ["image", "import", "fs.tar", "--config", "config.json", "--cmd", "redis-server --port '6 3'", "redis:7"]
    assert main(words) == 0
    assert daemon.asked[-1][2] == {
        "path": str(root / "fs.tar"),
        "name": "redis:7",
        "config": {"Env": ["A=1"], "Cmd": ["redis-server", "--port", "6 3"]},
    }
    assert capsys.readouterr().out == "imported redis:7: 12.3 MB, 2 layers\n"
    daemon.answers["POST", "/v1/images/load"] = [{"progress": {"step": "unpacking"}}, {"result": [image, image]}]
    assert main(["image", "load", "fs.tar"]) == 0
    assert daemon.asked[-1][2] == {"path": str(root / "fs.tar")}
    assert capsys.readouterr().out == "unpacking\n" + "loaded redis:7: 12.3 MB, 2 layers\n" * 2
    (root / "layout").mkdir()
    assert main(["image", "load", "layout"]) == 0
    assert daemon.asked[-1][2] == {"path": str(root / "layout")}
    capsys.readouterr()
    daemon.answers["POST", "/v1/images/pull"] = [{"result": image}]
    assert main(["image", "pull", "redis:7"]) == 0
    assert daemon.asked[-1][2] == {"name": "redis:7", "keys": {}}
    assert capsys.readouterr().out == "pulled redis:7: 12.3 MB, 2 layers\n"
    assert main(["image", "pull", "redis:7", "--platform", "linux/arm64"]) == 0
    assert daemon.asked[-1][2]["platform"] == "linux/arm64"
    capsys.readouterr()
    daemon.answers["POST", "/v1/images/pull"] = [error("cannot pull redis:7: no such name", hint="look again")]
    assert main(["image", "pull", "redis:7"]) == 1
    assert capsys.readouterr().err == "cannot pull redis:7: no such name\ntry  look again\n"
    assert main(["image", "load", "nowhere.tar"]) == 1
    assert "cannot read nowhere.tar: No such file" in capsys.readouterr().err
    daemon.answers["POST", "/v1/images/remove"] = [{"result": {"removed": ["redis:7"], "freed": 1000}}]
    assert main(["image", "rm", "redis:7"]) == 0
    assert capsys.readouterr().out == "removed redis:7, freed 1.0 kB\n"


VOLUME: dict[str, Any] = {
    "name": "shop_data",
    "created": 0.0,
    "labels": {"tier": "gold"},
    "options": {"type": "tmpfs"},
    "stack": "shop",
    "owner": "web.1",
    "used_by": "shop/web",
    "size": 12_000,
}


def test_volumes_are_shown(daemon: FakeDaemon, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = {**VOLUME, "name": "mine", "stack": "", "owner": "", "used_by": ""}
    daemon.answers["GET", "/v1/volumes"] = {"volumes": [VOLUME, mine]}
    assert main(["volume", "ls"]) == 0
    heading, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == ["NAME", "OWNER", "USED", "BY", "CREATED"]
    assert [row[:3] for row in rows] == [["shop_data", "shop/web.1", "shop/web"], ["mine", "-", "-"]]
    assert main(["volume", "ls", "-q"]) == 0
    assert capsys.readouterr().out == "shop_data\nmine\n"
    daemon.answers["GET", "/v1/volumes/shop_data"] = VOLUME
    assert main(["volume", "inspect", "shop_data"]) == 0
    out = capsys.readouterr().out
    assert "owner     shop/web.1\nused by   shop/web\n" in out
    assert out.endswith("size      12.0 kB\nlabel     tier=gold\noption    type=tmpfs\n")
    daemon.answers["GET", "/v1/volumes"] = {"volumes": []}
    assert main(["volume", "ls"]) == 0
    assert capsys.readouterr().out == "no volumes; gorae up makes those of a stack\n"


@pytest.mark.parametrize(
    ("words", "verb", "asked", "answer", "says"),
    [
        (
            ["rm", "a", "b"],
            "remove",
            {"names": ["a", "b"]},
            {"removed": ["a", "b"], "freed": 1000},
            "removed a, b, freed 1.0 kB\n",
        ),
        (["prune"], "prune", {"all": False}, {"removed": [], "freed": 0, "left": 0}, "nothing to remove\n"),
        (
            ["prune", "--all"],
            "prune",
            {"all": True},
            {"removed": ["a"], "freed": 5, "left": 1},
            "removed a, freed 5 B\n1 named volume that no stack names: gorae volume prune --all removes what is in them\n",
        ),
        (
            ["backup", "a", "f"],
            "backup",
            {"name": "a", "path": "@/f"},
            {"size": 10, "entries": 2, "bytes": 20, "skipped": 0, "changed": 0, "writer": ""},
            "wrote f: 10 B, 2 files of 20 B\n",
        ),
        (
            ["backup", "a", "f"],
            "backup",
            {"name": "a", "path": "@/f"},
            {"size": 10, "entries": 1, "bytes": 20, "skipped": 3, "changed": 1, "writer": "shop/web"},
            "wrote f: 10 B, 1 file of 20 B\nleft out 3: sockets, devices or mounts\n"
            "warning: shop/web ran on it, 1 file changed meanwhile: the files may not be of one moment\n"
            "try  gorae stop shop/web, then back it up again\n",
        ),
        (
            ["restore", "f", "--name", "n"],
            "restore",
            {"path": "@/f", "force": False, "name": "n"},
            {"name": "n", "size": 10, "replaced": False},
            "restored n: 10 B\n",
        ),
        (
            ["restore", "f", "--force"],
            "restore",
            {"path": "@/f", "force": True},
            {"name": "n", "size": 10, "replaced": True},
            "replaced the content of n: 10 B\n",
        ),
    ],
    ids=["rm", "prune nothing", "prune all", "backup", "backup of what runs", "restore", "restore over"],
)
def test_volumes_are_changed(
    daemon: FakeDaemon,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    verb: str,
    asked: dict[str, Any],
    answer: dict[str, Any],
    says: str,
) -> None:
    daemon.answers["POST", f"/v1/volumes/{verb}"] = [{"result": answer}]
    assert main(["volume", *words]) == 0
    path = {"path": asked["path"].replace("@", str(root))} if "path" in asked else {}
    assert daemon.asked[-1][2] == {**asked, **path}
    assert "".join(capsys.readouterr()) == says


def test_a_volume_is_made(daemon: FakeDaemon, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/volumes/create"] = VOLUME
    options = ["--label", "a=b=c", "--label", "d", "-o", "type=tmpfs", "--opt", "o=size=1m"]
    assert main(["volume", "create", "shop_data", *options]) == 0
    body = {"name": "shop_data", "labels": {"a": "b=c", "d": ""}, "options": {"type": "tmpfs", "o": "size=1m"}}
    assert daemon.asked[-1][2] == body
    assert capsys.readouterr().out == "created shop_data\n"
    assert main(["volume", "create", "x", "--label", "=b"]) == 2
    assert "cannot use '=b': it has no name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "path"),
    [
        pytest.param(words, path, id=" ".join(words))
        for words, path in (
            (["status"], "/v1/status"),
            (["ls"], "/v1/stacks"),
            (["events"], "/v1/events"),
            (["image", "ls"], "/v1/images"),
            (["volume", "ls"], "/v1/volumes"),
            (["volume", "inspect", "a b"], "/v1/volumes/a%20b"),
        )
    ],
)
def test_a_query_in_json_is_the_daemons_answer_as_it_is(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], words: list[str], path: str
) -> None:
    answer = {"stacks": [], "images": [], "text": "\x1b[31mé", "later": "fields are passed on"}
    daemon.answers["GET", path] = answer
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == (answer, "")


def test_version(daemon: FakeDaemon, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = {"online": False, "version": None, "instance": None}
    daemon.answers["GET", "/v1/version"] = {"version": "9.9", "wire_version": 1, "store_id": "s", "agent": agent}
    assert main(["version"]) == 0
    assert "not seen yet, not answering" in capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["daemon"] == daemon.answers["GET", "/v1/version"]
    assert main(["--root", str(root / "none"), "version", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["daemon"] is None


def test_an_answer_that_is_not_ours_is_said(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/stacks"] = (502, ["bad gateway"])
    assert main(["ls"]) == 1
    assert "cannot use the daemon's answer: HTTP 502" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "sent"), [("if_not_present", "missing"), ("always", "always"), ("never", "never")])
def test_when_up_pulls(daemon: FakeDaemon, folder: Path, word: str, sent: str) -> None:
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [UP]
    assert main(["up", "--pull", word]) == 0
    assert daemon.asked[0][2]["pull"] == sent


def test_login_sends_the_password_from_stdin(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\n"))
    daemon.answers["POST", "/v1/logins"] = [{"result": {}}]
    assert main(["login", "-u", "kim", "--password-stdin", "r.example.com"]) == 0
    assert daemon.asked[-1][2] == {"registry": "r.example.com", "user": "kim", "password": "s3cret"}
    assert capsys.readouterr().out == "logged in to r.example.com as kim\n"
    assert main(["login", "r.example.com"]) == 2
    assert "this is no terminal\ntry  gorae login -u NAME" in capsys.readouterr().err


def test_logins_and_logout(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/logins"] = {"logins": {"r.example.com": "kim"}}
    assert main(["login", "--list"]) == 0
    assert main(["login", "--list", "--json"]) == 0
    assert capsys.readouterr().out == 'r.example.com  kim\n{"logins": {"r.example.com": "kim"}}\n'
    daemon.answers["POST", "/v1/logins/remove"] = {}
    assert main(["logout", "r.example.com"]) == 0
    assert capsys.readouterr().out == "logged out of r.example.com\n"


def test_outdated(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"stack": "shop", "services": ["web"], "image": "web:1", "id": "sha256:1", "digest": "sha256:" + "a" * 64}
    moved = {**row, "state": "outdated", "latest": "sha256:" + "b" * 64, "error": None}
    lost = {**row, "image": "db:1", "state": "unknown", "latest": None, "error": "cannot pull db:1: away"}
    answer = {"images": [moved, lost]}
    daemon.answers["GET", "/v1/status"] = document()
    daemon.answers["POST", "/v1/images/outdated"] = [{"result": answer}]
    assert main(["outdated"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["shop", "web", "web:1", "outdated", "a" * 12, "b" * 12]
    assert lines[2].split() == ["shop", "web", "db:1", "unknown", "a" * 12, "-"]
    assert lines[3:] == ["db:1: cannot pull db:1: away", "try  gorae up --pull always, for stack shop"]
    assert main(["outdated", "--json", "shop"]) == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert daemon.asked[-1][2] == {"stack": "shop", "keys": {}}


def test_progress_of_layers_and_of_further_tries(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    layer = {"image": "web:1", "layer": "aabbccddeeff", "total": 5000}
    image = {"id": "sha256:1", "names": ["web:1"], "digests": [], "size": 5000, "created": "", "layers": 1}
    daemon.answers["POST", "/v1/images/pull"] = [
        {"progress": {"image": "web:1", "step": "pulling", "done": 0, "total": 5000}},
        {"progress": {**layer, "step": "pulling", "done": 10}},
        {"progress": {"image": "web:1", "step": "again", "done": 2, "total": 0, "note": "503; try 2 in 1 s"}},
        {"progress": {"image": "web:1", "step": "again", "done": 3, "total": 0, "note": "cannot pull web:1: 503"}},
        {"progress": {**layer, "step": "unpacking", "done": 10}},
        {"progress": {**layer, "step": "done", "done": 5000}},
        {"result": image},
    ]
    assert main(["image", "pull", "web:1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "web:1  pulling",
        "web:1  503; try 2 in 1 s",
        "cannot pull web:1: 503",
        "web:1  layer aabbccddeeff  done  5.0 kB",
        "pulled web:1: 5.0 kB, 1 layer",
    ]


def test_image_inspect_and_history(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    history = [{"created": "2024-01-01T00:00:00Z", "created_by": "ADD x", "size": 5000}, {"comment": "c", "size": 0}]
    image = {
        **{
            "id": "sha256:" + "a" * 64,
            "names": ["web:1"],
            "digests": [],
            "manifest": "sha256:m",
            "used_by": "shop/web",
        },
        **{"platform": "linux/amd64", "created": "", "size": 5000, "layers": [{}], "history": history},
        **{"config": {"Cmd": ["serve"], "StopSignal": "SIGINT", "User": "kim"}},
    }
    daemon.answers["GET", "/v1/images/inspect"] = image
    assert main(["image", "inspect", "web:1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "names         web:1" and lines[-4:] == [
        "used by       shop/web",
        'cmd           ["serve"]',
        "stop signal   SIGINT",
        "user          kim",
    ]
    assert "size          5.0 kB in 1 layer" in lines
    assert main(["image", "inspect", "--json", "web:1"]) == 0
    assert json.loads(capsys.readouterr().out) == image
    assert daemon.asked[-1][1] == "/v1/images/inspect?name=web%3A1"
    assert main(["image", "history", "web:1"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["-", "0", "B", "c"],
        ["2024-01-01T00:00:00", "5.0", "kB", "ADD", "x"],
    ]
    assert main(["image", "history", "web:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == history


def test_image_save_writes_a_whole_file_or_none(
    daemon: FakeDaemon, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/images/save"] = [{"data": "YXJj"}, {"data": "aGl2ZQ=="}, {"result": {"bytes": 7}}]
    assert main(["image", "save", "-o", "out.tar", "--format", "oci-archive", "web:1", "db:1"]) == 0
    assert (root / "out.tar").read_bytes() == b"archive"
    assert daemon.asked[-1][2] == {"names": ["web:1", "db:1"], "format": "oci-archive"}
    assert capsys.readouterr().out == "saved web:1, db:1 to out.tar: 7 B\n"
    before = sorted(root.iterdir())
    daemon.answers["POST", "/v1/images/save"] = [{"data": "YXJj"}, error("cannot read image web:1: broken")]
    assert main(["image", "save", "-o", "out2.tar", "web:1"]) == 1
    daemon.answers["POST", "/v1/images/save"] = [{"data": "YXJj"}]
    assert main(["image", "save", "-o", "out2.tar", "web:1"]) == 3
    assert sorted(root.iterdir()) == before
    assert main(["image", "save", "-o", "no/such/folder/x.tar", "web:1"]) == 1
    assert "cannot write no/such/folder/x.tar: No such file" in capsys.readouterr().err


def test_image_tag_prune_and_df(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/images/tag"] = {"id": "sha256:" + "a" * 64, "names": ["b:1", "web:1"]}
    assert main(["image", "tag", "web:1", "b:1"]) == 0
    assert capsys.readouterr().out == "aaaaaaaaaaaa is b:1, web:1\n"
    daemon.answers["POST", "/v1/images/prune"] = [{"result": {"removed": ["old:1"], "freed": 5_000_000}}]
    assert main(["image", "prune", "--all", "--older", "30d", "--dry-run"]) == 0
    assert daemon.asked[-1][2] == {"all": True, "older": 30 * 86400, "dry": True}
    assert capsys.readouterr().out == "would remove old:1\n1 image, 5.0 MB to free\n"
    assert main(["image", "prune"]) == 0
    assert daemon.asked[-1][2] == {"all": False, "older": 0, "dry": False}
    assert capsys.readouterr().out == "removed old:1\n1 image, 5.0 MB freed\n"
    assert main(["image", "prune", "--older", "soon"]) == 2
    assert "'soon' is no span of time like 12h or 30d" in capsys.readouterr().err
    usage = {"images": 3, "unused": 1, "unnamed": 0, "blobs": 1000, "layers": 2000, "reclaimable": 10}
    daemon.answers["GET", "/v1/images/usage"] = {**usage, "free": 5000, "total": 9000}
    assert main(["image", "df"]) == 0
    assert "could go     10 B: gorae image prune --all" in capsys.readouterr().out
    assert main(["image", "df", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unused"] == 1


def test_df(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    def kind(size: int, reclaimable: int) -> dict[str, int]:
        return {"total": 3, "active": 2, "size": size, "reclaimable": reclaimable}

    usage = {
        "kinds": {
            "images": kind(2 * 10**9, 5 * 10**8),
            "layers": kind(3 * 10**9, 0),
            "writable": kind(10**6, 10**5),
            "volumes": kind(0, 0),
            "logs": kind(123456, 0),
        },
        "images": [{"id": "sha256:" + "a" * 64, "names": [], "size": 5, "used_by": "shop, revision 1"}],
        "tasks": [
            {"task": "t1", "stack": "", "service": "", "slot": None, "state": "gone", "writable": 0, "logs": 7},
            {"task": "t2" * 13, "stack": "s" * 40, "service": "web", "slot": 2, "state": "running"}
            | {"writable": 52428800, "logs": 7},
        ],
        "volumes": [{"name": "a", "size": 1, "used_by": ""}, {"name": "b", "size": 2, "used_by": "shop/web"}],
        "log_budget": 2 << 30,
        "free": 10**9,
        "total": 10**10,
    }
    daemon.answers["GET", "/v1/df"] = [{"result": usage}]
    assert main(["df"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "KIND             TOTAL  ACTIVE  SIZE    RECLAIMABLE",
        "images           3      2       2.0 GB  500 MB (25 %)",
        "layers           3      2       3.0 GB  0 B (0 %)",
        "writable layers  3      2       1.0 MB  100 kB (10 %)",
        "volumes          3      2       0 B     0 B",
        "logs             3      2       123 kB  0 B (0 %)",
        "total                           5.0 GB  500 MB (9 %)",
        "",
        "disk  1.0 GB free of 10.0 GB; logs may take 2.1 GB",
        "try  gorae image prune --all",
    ]
    assert main(["df", "--verbose"]) == 0
    more = capsys.readouterr().out
    assert all(len(line) <= 80 for line in more.splitlines())
    rows = [line.split() for line in more.splitlines()]
    assert ["-", "t1", "gone", "0", "B", "7", "B"] in rows
    assert ["b", "2", "B", "shop/web"] in rows and ["a", "1", "B", "-"] in rows
    assert rows.index(["b", "2", "B", "shop/web"]) < rows.index(["a", "1", "B", "-"]), "the largest first"
    assert ["a" * 12, "5", "B", "shop,", "revision", "1"] in rows
    assert any("52.4 MB" in line and "running" in line for line in more.splitlines())
    assert main(["df", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == usage
    daemon.answers["GET", "/v1/df"] = [error("cannot reach the agent")]
    assert main(["df"]) == 1


def test_image_fsck(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"what": "layer", "digest": "sha256:" + "a" * 64, "why": "/x is missing", "images": ["web:1"]}
    verdict = {"images": 1, "blobs": 3, "layers": 2, "bytes": 9, "problems": []}
    daemon.answers["POST", "/v1/images/fsck"] = [{"result": verdict}]
    assert main(["image", "fsck"]) == 0
    assert capsys.readouterr().out == "1 image, 3 blobs, 2 layers: all as they should be\n"
    used = {**problem, "used_by": "shop/web", "done": ""}
    daemon.answers["POST", "/v1/images/fsck"] = [{"result": {**verdict, "problems": [used]}}]
    assert main(["image", "fsck"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("layer sha256:aaaaaaaaaaaa: /x is missing, needed by web:1\n  try  gorae down")
    mended = {**problem, "used_by": "", "done": "unpacked again"}
    daemon.answers["POST", "/v1/images/fsck"] = [{"result": {**verdict, "problems": [mended]}}]
    assert main(["image", "fsck", "--repair", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == [mended]
    assert daemon.asked[-1][2] == {"repair": True}


def port(**more: Any) -> dict[str, Any]:
    row = {"stack": "shop", "service": "web", "protocol": "tcp", "host_ip": "", "published": 8080, "target": 80}
    return {**row, "reach": "everyone", "state": "open", "ready": 2, "tasks": 3, **more}


def test_ports_says_who_reaches_what(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET", "/v1/ports"] = {
        "firewalls": ["ufw"],
        "ports": [
            port(),
            port(published=None, host_ip="127.0.0.1", reach="this host", state="closed", ready=0, tasks=1),
            port(published=53, protocol="udp", host_ip="192.0.2.1", reach="host"),
        ],
    }
    assert main(["ports"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "STACK  SERVICE  PORT           REACHED BY             STATE",
        "shop   web      8080/tcp → 80  everyone               open, 2 of 3 ready",
        "shop   web      any/tcp → 80   this host alone        closed, 0 of 1 ready",
        "shop   web      53/udp → 80    who reaches 192.0.2.1  open, 2 of 3 ready",
    ]
    assert err.splitlines()[0] == (
        "note  ufw is not asked about published ports: they are open as listed, whatever its rules say"
    )


def test_ports_of_this_host_alone_need_no_firewall(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["GET", "/v1/ports"] = {"firewalls": ["ufw"], "ports": [port(reach="this host")]}
    assert main(["ports", "shop"]) == 0
    assert capsys.readouterr().err == ""
    assert daemon.asked[-1][1] == "/v1/ports?stack=shop"
    daemon.answers["GET", "/v1/ports"] = {"firewalls": None, "ports": []}
    assert main(["ports", "shop"]) == 0
    assert capsys.readouterr().out == "stack shop publishes no port\n"


@pytest.mark.parametrize(
    ("reach", "firewalls", "noted"),
    [("everyone", ["ufw"], True), ("everyone", [], False), ("this host", ["ufw"], False), ("everyone", None, False)],
)
def test_up_says_which_firewall_does_not_guard_its_ports(
    daemon: FakeDaemon,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    reach: str,
    firewalls: list[str] | None,
    noted: bool,
) -> None:
    (folder / "compose.yaml").write_text("name: shop\nservices:\n  web: {image: web, ports: ['8080:80']}\n")
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [UP]
    daemon.answers["GET", "/v1/ports"] = {"ports": [port(reach=reach)], "firewalls": firewalls}
    assert main(["up"]) == 0
    assert ("ufw is not asked about published ports" in capsys.readouterr().err) == noted
    del daemon.answers["GET", "/v1/ports"]
    assert main(["up"]) == 0, "with a daemon that does not know the question"


@pytest.mark.parametrize(
    ("words", "target", "said"),
    [
        (["drain"], "/v1/drain?undo=false", "the host is drained: 1 stack down"),
        (["drain", "--undo"], "/v1/drain?undo=true", "the host is drained no more: 1 stack up"),
        (["drain", "--no-wait"], "/v1/drain?undo=false", "1 stack: the drain is stored"),
    ],
    ids=["drain", "undo", "no wait"],
)
def test_drain(
    words: list[str], target: str, said: str, daemon: FakeDaemon, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/drain"] = {"drained": 5.0, "stacks": {"shop": 3}}
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [document(stack("shop", service("web", task(state="stopped"))))]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == said
    assert daemon.asked[0][:2] == ("POST", target)
    assert len(daemon.asked) == 1 + ("--no-wait" not in words)


def test_status_and_up_say_that_the_host_is_drained(
    daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down = document(stack("shop", service("web", task(state="stopped")))) | {"drained": 940.0}
    daemon.answers["GET", "/v1/status"] = down
    assert main(["status"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the host is drained since 1m: nothing runs until gorae drain --undo"
    assert "stopped" in said[2]
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [down]
    assert main(["up"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "stack shop is stored as revision 2: 1 change"
    assert said.err == "note  the host is drained: nothing starts until gorae drain --undo\n"


PROFILED = """name: shop
services:
  web: {image: web, depends_on: [db]}
  db: {image: redis}
  debug: {image: d, profiles: [debug]}
  slow: {image: s}
"""


@pytest.mark.parametrize(
    ("words", "partial", "keep", "awaited"),
    [
        ([], False, ["debug"], ""),
        (["--profile", "debug"], False, [], ""),
        (["web"], True, ["debug", "slow"], "&service=web&service=db"),
        (["debug"], True, ["db", "slow", "web"], "&service=debug"),
        (["db", "--remove-orphans"], False, ["debug", "slow", "web"], "&service=db"),
    ],
    ids=["whole file", "with a profile", "service and what it needs", "service of a profile", "without orphans"],
)
def test_up_of_some_waits_for_them_alone_and_keeps_the_rest_of_the_file(
    words: list[str], partial: bool, keep: list[str], awaited: str, daemon: FakeDaemon, folder: Path
) -> None:
    (folder / "compose.yaml").write_text(PROFILED)
    daemon.answers["POST", "/v1/stacks/shop"] = [result(CREATE)]
    daemon.answers["GET", "/v1/stacks/shop/watch"] = [UP]
    assert main(["up", *words]) == 0
    _, _, body = daemon.asked[0]
    assert (body["partial"], body["keep"]) == (partial, keep)
    assert daemon.asked[1][1] == f"/v1/stacks/shop/watch?generation=3{awaited}"


def test_run_removes_only_what_it_began(daemon: FakeDaemon, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST", "/v1/stacks/shop/run"] = 400, error("cannot run shop/mine: there is one of that name")
    for more in ([], ["--name", "mine"]):
        assert main(["run", *more, "shop/web", "id"]) == 1
    assert "DELETE" not in {method for method, _, _ in daemon.asked}
    assert capsys.readouterr().err.count("cannot run shop/mine: there is one of that name") == 2


def test_run_takes_variables_as_they_are_here(
    daemon: FakeDaemon, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST", "/v1/stacks/shop/run"] = {"service": "web-run-1"}
    monkeypatch.setenv("HERE", "a=b")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert main(["run", "-d", "-e", "HERE", "-e", "B=c=d", "-e", "E=", "shop/web", "id"]) == 0
    assert daemon.asked[-1][2]["environment"] == {"HERE": "a=b", "B": "c=d", "E": ""}
    assert main(["run", "-d", "-e", "NOWHERE", "shop/web", "id"]) == 0
    assert daemon.asked[-1][2]["environment"] == {}, "as with Docker"
