"""What images, registries and backups say never steers the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.orchestrator.cli.fakes import FakeDaemon, error

EVIL = "x\x1b[2J\x1b]0;y\x07\x9b31m\rz"
IMAGE = {
    "id": "sha256:" + "a" * 64,
    "names": ["web:1"],
    "digests": [],
    "manifest": "sha256:m",
    "used_by": "",
    "platform": EVIL,
    "created": EVIL,
    "size": 1,
    "layers": [{}],
    "history": [{"created": EVIL, "created_by": EVIL, "size": 1}],
    "config": {"User": EVIL, EVIL: [EVIL]},
}
VOLUME: dict[str, Any] = {
    "name": "data",
    "created": 1.0,
    "labels": {EVIL: EVIL},
    "options": {},
    "stack": EVIL,
    "owner": EVIL,
    "used_by": "",
    "size": 1,
}
OUTDATED = {
    "stack": "s",
    "services": ["a"],
    "image": "a:1",
    "digest": "",
    "state": "unknown",
    "latest": "",
    "error": EVIL,
}
STEPS = [{"progress": {"image": "a", "step": "again", "note": EVIL}}, {"progress": {"image": EVIL, "step": EVIL}}]


@pytest.mark.parametrize(
    ("words", "method", "path", "answer"),
    [
        (["image", "inspect", "web:1"], "GET", "/v1/images/inspect", IMAGE),
        (["image", "history", "web:1"], "GET", "/v1/images/inspect", IMAGE),
        (["image", "ls"], "GET", "/v1/images", {"images": [IMAGE]}),
        (["volume", "ls"], "GET", "/v1/volumes", {"volumes": [VOLUME]}),
        (["volume", "inspect", "data"], "GET", "/v1/volumes/data", VOLUME),
        (["outdated"], "POST", "/v1/images/outdated", [{"result": {"images": [OUTDATED]}}]),
        (["image", "pull", "a:1"], "POST", "/v1/images/pull", [*STEPS, error(f"cannot pull: {EVIL}", hint=EVIL)]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_no_control_characters(
    daemon: FakeDaemon,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    method: str,
    path: str,
    answer: Any,
    terminal: bool,
) -> None:
    daemon.answers["GET", "/v1/status"] = {"stacks": []}
    daemon.answers[method, path] = answer
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    main(words)
    said = capsys.readouterr()
    assert "z" in said.out + said.err or words == ["image", "ls"]
    assert all(char.isprintable() or char == "\n" for char in said.out + said.err)
