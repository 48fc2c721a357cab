"""What is said of one container: enough to understand it, and nothing that should stay hidden."""

from __future__ import annotations

import json
from typing import Any

from agent.decide.inspect import document
from agent.ports import Exit, Process
from tests.agent.decide.make import record

CONFIG: dict[str, Any] = {
    "process": {
        "args": ["serve", "--password=hunter2"],
        "env": ["A=1", "DB_PASSWORD=hunter2", "URL=redis://u:hunter2@h"],
        "cwd": "/srv",
        "user": {"uid": 33, "gid": 33},
        "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]},
        "noNewPrivileges": True,
    },
    "hostname": "web-1",
    "root": {"path": "/r", "readonly": True},
    "mounts": [{"destination": "/data", "type": "bind", "source": "/v/data", "options": ["rw"], "uidMappings": []}],
    "linux": {"namespaces": [{"type": "user", "path": "/x"}, {"type": "pid"}], "seccomp": {"many": "rules"}},
}


def test_a_running_one() -> None:
    made = record(
        state="running", attempt=3, restarts=2, process=Process(4711, 99, 4700), exit=Exit(1, None, False, 5.0)
    )
    said = document(made, CONFIG)
    assert said["attempts"]["attempt"] == 3 and said["attempts"]["last_exit"]["code"] == 1
    assert said["process"] == {"pid": 4711, "conmon": 4700}
    inside = said["container"]
    assert inside["mounts"] == [{"destination": "/data", "type": "bind", "source": "/v/data", "options": ["rw"]}]
    assert inside["capabilities"] == ["CAP_CHOWN", "CAP_KILL"] and inside["read_only"] and inside["seccomp"]
    assert inside["namespaces"] == ["user", "pid"]
    text = json.dumps(said)
    assert "hunter2" not in text and '"A=1"' in text


def test_one_that_never_ran() -> None:
    said = document(record(state="pending"), None)
    assert (said["container"], said["process"], said["attempts"]["last_exit"]) == (None, None, None)
