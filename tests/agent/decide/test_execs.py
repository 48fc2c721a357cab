"""The process that a person's command becomes."""

from __future__ import annotations

from typing import Any

import pytest

from agent.decide.execs import Wanted, process_spec
from agent.kit.errors import Permanent, UserError
from agent.ports import UserIds

CONFIG: dict[str, Any] = {
    "process": {
        "terminal": True,
        "consoleSize": {"height": 1, "width": 2},
        "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
        "args": ["serve"],
        "env": ["PATH=/bin", "HOME=/srv", "A=1"],
        "cwd": "/srv",
        "capabilities": {"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []},
        "noNewPrivileges": True,
    }
}


def test_it_is_as_the_container_is() -> None:
    process = process_spec(CONFIG, Wanted(("sh",)), None)
    assert process["args"] == ["sh"]
    assert process["terminal"] is False
    assert "consoleSize" not in process
    assert {key: process[key] for key in ("user", "env", "cwd", "noNewPrivileges")} == {
        key: CONFIG["process"][key] for key in ("user", "env", "cwd", "noNewPrivileges")
    }


@pytest.mark.parametrize(
    ("wanted", "ids", "key", "value"),
    [
        pytest.param({"tty": True}, None, "env", ["PATH=/bin", "HOME=/srv", "A=1", "TERM=xterm"], id="a terminal's name"),
        pytest.param({"environment": {"A": "2", "B": ""}}, None, "env", ["PATH=/bin", "HOME=/srv", "A=2", "B="], id="variables"),
        pytest.param({"user": "bob"}, UserIds(8, 9, (1,), "/home/bob"), "env", ["PATH=/bin", "HOME=/home/bob", "A=1"], id="home"),
        pytest.param(
            {"user": "bob"}, UserIds(8, 9, (1,)), "user", {"uid": 8, "gid": 9, "additionalGids": [1], "umask": 18}, id="numbers"
        ),
        pytest.param({"user": "0"}, UserIds(0, 0), "capabilities", {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}, id="root's capabilities"),
        pytest.param({"tty": True, "size": (24, 80)}, None, "consoleSize", {"height": 24, "width": 80}, id="size"),
        pytest.param({"working_dir": "/tmp"}, None, "cwd", "/tmp", id="directory"),
    ],
)  # fmt: skip
def test_what_is_wanted(wanted: dict[str, Any], ids: UserIds | None, key: str, value: object) -> None:
    assert process_spec(CONFIG, Wanted(("sh",), **wanted), ids)[key] == value


@pytest.mark.parametrize("size", [(0, 80), (24, 0), (99999, 80)])
def test_a_size_that_is_none_is_left_out(size: tuple[int, int]) -> None:
    assert "consoleSize" not in process_spec(CONFIG, Wanted(("sh",), tty=True, size=size), None)


@pytest.mark.parametrize("path", ["tmp", "/proc/self/fd/7", "/a/../proc/self/fd/7"])
def test_a_directory_that_may_lead_out(path: str) -> None:
    with pytest.raises(Permanent) as caught:
        process_spec(CONFIG, Wanted(("sh",), working_dir=path), None)
    assert caught.value.code == "bad-workdir"


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"command": ()}, id="nothing"),
        pytest.param({"command": ("",)}, id="an empty word"),
        pytest.param({"command": ("a\0b",)}, id="zero byte"),
        pytest.param({"command": ("a",), "environment": {"A=B": "c"}}, id="equals sign in a name"),
        pytest.param({"command": ("a",), "environment": {"": "c"}}, id="no name"),
        pytest.param({"command": ("a", "é" * 65_536)}, id="a word too long"),
        pytest.param({"command": ("a",), "environment": {"A": "x" * 131_070}}, id="a variable too long"),
    ],
)
def test_what_cannot_be_run(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Wanted(**bad)
