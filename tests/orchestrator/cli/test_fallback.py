"""With the orchestrator down, root asks the agent."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.messages import PublishedPort, StackStatus, TaskStatus
from orchestrator.cli.main import main
from tests.support.logs import said


class FakeAgent:
    """Answers each connection's one request line with what `answers` has for its op."""

    def __init__(self, root: Path) -> None:
        self.answers: dict[str, list[dict[str, Any] | bytes]] = {}
        self.asked: list[dict[str, Any]] = []
        (root / "run").mkdir()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(root / "run" / "agent.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as file:
                request = json.loads(file.readline())
                self.asked.append(request)
                for answer in self.answers[request["op"]]:
                    file.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def agent(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgent]:
    monkeypatch.setenv("GORAE_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.chdir(root)
    fake = FakeAgent(root)
    port = PublishedPort(target=80, published=8080)
    tasks = (
        TaskStatus(id="t1", service="web", slot=1, template="x", state="running", pid=7, since=1.0, ports=(port,)),
        TaskStatus(id="t2", service="web", slot=2, template="x", state="preparing", since=2.0),
    )
    status = StackStatus(store_id="s", stack="shop", observed_generation=3, epoch=1, seq=1, tasks=tasks)
    fake.answers["status"] = [{"result": [status.model_dump(mode="json")]}]
    yield fake
    fake.close()


def test_status(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "note  the orchestrator is down: this is what the agent says\n"
    assert captured.out.splitlines()[1].split()[:4] == ["shop", "web", "1/2", "starting"]
    assert captured.out.splitlines()[1].endswith("0.0.0.0:8080 → 80")


def test_status_of_a_drained_host(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = agent.answers["status"]
    for task in answer["result"][0]["tasks"]:
        task.update(state="stopped", reason="host-drained", since=time.time() - 90)
    assert main(["status"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the host is drained since 1m: nothing runs until gorae drain --undo" and "stopped" in said[2]


def test_status_of_one_stack_as_json(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "shop/web"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [task["pid"] for task in document["stacks"][0]["services"][0]["tasks"]] == [7, None]
    for words in (["other"], ["shop/other"]):
        assert main(["status", *words]) == 1
        assert f"cannot find {words[0]}: the agent runs nothing of that name\n" in capsys.readouterr().err


def test_logs(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers["logs"] = [said("hello"), {"result": {}}]
    assert main(["logs", "shop", "--tail", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "web.1 │ hello\n"
    assert "these logs come from the agent" in captured.err
    assert agent.asked == [{"op": "logs", "stack": "shop", "follow": False, "tail": 3}]


def test_following_goes_on_when_the_agent_starts_anew(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the connection; who follows comes back to the place it had come to. Ctrl-C ends it."""
    agent.answers["logs"] = [said("one")]
    turns = iter([[said("two", offset=49)], KeyboardInterrupt])

    def pause(seconds: float) -> None:
        following = next(turns)
        if following is KeyboardInterrupt:
            raise KeyboardInterrupt
        agent.answers["logs"] = list(following)  # type: ignore[call-overload]

    monkeypatch.setattr("time.sleep", pause)
    assert main(["logs", "shop", "-f"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "web.1 │ one\nweb.1 │ two\n"
    assert [asked.get("after") for asked in agent.asked] == [None, "t:5:31:0"]
    assert captured.err.count("what was written meanwhile comes when it is back") == 2
    assert captured.err.count("gorae is back") == 1


def test_others_are_told_that_the_daemon_is_away(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["status"]) == 3
    assert "cannot reach gorae" in capsys.readouterr().err
    assert agent.asked == []
