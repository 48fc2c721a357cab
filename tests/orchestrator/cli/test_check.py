"""`gorae check`: each key with its verdict, on 80 columns and as JSON; what up would refuse, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.compose.files import bytes_of

FINE = "services:\n  a:\n    image: x\n"
MIXED = """\
version: "3"
services:
  web:
    image: nginx
    restart: always
    runtime: runc
    attach: false
    volumes: ["/x:/x:z"]
    healthcheck: {test: exit 0, interval: 5s}
  db:
    image: redis
    restart: unless-stopped
    scale: 2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("GORAE_ROOT", str(tmp_path / "nothing"))
    for name in ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "shop"


def check(
    capsys: pytest.CaptureFixture[str], text: str, *words: str, code: int, name: str = "compose.yaml"
) -> tuple[str, str]:
    Path(name).write_text(text)
    assert main(["check", *words]) == code
    out, err = capsys.readouterr()
    return out, err


def found(out: str) -> dict[str, tuple[str, str, int]]:
    """key → (verdict, value, line)"""
    document: dict[str, Any] = json.loads(out)
    return {row["key"]: (row["verdict"], row["value"], row["line"]) for row in document["findings"]}


def test_the_table_on_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = check(capsys, MIXED, code=1)
    assert out.splitlines() == [
        "PLACE           KEY                          WHY",
        "refused",
        "compose.yaml:6  web.runtime                  gorae runs containers with crun",
        "ignored, with a warning",
        "compose.yaml:1  version                      it is obsolete and has no effect",
        "compose.yaml:7  web.attach                   gorae logs shows every service",
        "honoured in another way than docker compose does",
        "compose.yaml:5  web.restart: always          a service stopped with gorae stop",
        "                                             stays stopped at boot",
        "compose.yaml:9  web.healthcheck              a container that turns unhealthy is",
        "                                             restarted, unless `restart` is no,",
        "                                             or as x-gorae-on-unhealthy says",
        "ignored: it changes nothing",
        "compose.yaml:8  web.volumes[0].bind.selinux  gorae sets no SELinux labels",
        "stack shop: 15 keys: 9 honoured, 1 ignored, 2 honoured in another way, 2 ignored",
        "with a warning, 1 refused",
    ]
    assert err == ""


def test_what_is_honoured_is_listed_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    lines = check(capsys, MIXED, "--all", code=1)[0].splitlines()
    start = lines.index("honoured")
    assert "compose.yaml:11  db.image" in lines[start:]
    assert "compose.yaml:9   web.healthcheck.test" in lines[start:]
    assert all(len(line) <= 80 for line in lines)


def test_files_that_are_honoured_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, FINE, code=0) == ("stack shop: 1 key: 1 honoured\n", "")


def test_json_has_every_finding_with_its_place(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out, err = check(capsys, MIXED, "--json", code=1)
    document = json.loads(out)
    assert (document["stack"], document["files"], document["problems"]) == ("shop", [str(folder / "compose.yaml")], [])
    assert document["findings"][0] == {
        "verdict": "refused",
        "key": "services.web.runtime",
        "value": "",
        "why": "gorae runs containers with crun",
        "file": "compose.yaml",
        "line": 6,
        "column": 5,
    }
    rows = found(out)
    assert rows["services.web.restart"] == ("differs", "always", 5)
    assert rows["services.db.restart"] == ("supported", "", 12)
    assert rows["services.db.scale"] == ("supported", "", 13)
    assert rows["services.web.volumes[0].bind.selinux"] == ("ignored", "", 8)
    assert err == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("services: {a: {imag: x}, b: {image: x, cap_add: [A]}}", "imag cap_add", id="unknown key"),
        pytest.param("services: {a: {image: 'x${A?why}', privileged: true}}", "why privileged", id="variable"),
    ],
)
def test_wrong_files_are_told_as_up_does_all_at_once(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = check(capsys, text, code=1)
    assert out == ""
    assert main(["up"]) == 2
    assert capsys.readouterr().err == err
    assert all(word in err for word in words.split())
    out, err = check(capsys, text, "--json", code=1)
    document = json.loads(out)
    assert (document["stack"], document["findings"], err) == (None, [], "")
    assert {problem["file"] for problem in document["problems"]} == {"compose.yaml"}
    assert all(problem["line"] == 1 for problem in document["problems"])


def test_a_value_that_gorae_cannot_use_is_told_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = FINE + "    user: a b\n    privileged: true\n"
    out, err = check(capsys, text, code=1)
    assert "compose.yaml:5  a.privileged  gorae does not support it yet" in out
    assert err.startswith("compose.yaml:4:11: cannot use 'a b' as services.a.user: ")
    assert "privileged" not in err
    document = json.loads(check(capsys, text, "--json", code=1)[0])
    assert [problem["column"] for problem in document["problems"]] == [11]


def test_a_warning_of_reading_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    text = "services: {a: {image: 'x$MISSING'}}"
    assert "note  compose.yaml:1:23: the variable MISSING is not set" in check(capsys, text, code=0)[1]
    assert len(json.loads(check(capsys, text, "--json", code=0)[0])["warnings"]) == 1


def test_services_of_other_profiles_are_not_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    text = FINE + "  b: {image: y, profiles: [more], privileged: true}\n"
    assert "1 refused" not in check(capsys, text, code=0)[0]
    assert "1 refused" in check(capsys, text, "--profile", "more", code=1)[0]


def test_a_network_is_judged_by_its_driver(capsys: pytest.CaptureFixture[str]) -> None:
    text = "services: {a: {image: x, networks: [f, b]}}\nnetworks: {f: {driver: bridge}, b: {driver: overlay}}\n"
    rows = found(check(capsys, text, "--json", code=1)[0])
    assert rows["networks.b.driver"] == ("refused", "overlay", 2)
    assert rows["networks.f.driver"] == ("supported", "", 2)


def test_no_file_is_nothing_that_up_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 1
    assert capsys.readouterr().err.startswith("cannot find a Compose file")


def test_files_are_read_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "orchestrator.compose.assemble.bytes_of", lambda path, *more: opened.append(path.name) or bytes_of(path, *more)
    )
    check(capsys, FINE, code=0)
    assert opened == ["compose.yaml"]
