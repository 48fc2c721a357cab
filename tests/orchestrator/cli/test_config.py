"""`gorae config`: each question, its answer in the form of docker compose, and what goes wrong. No daemon is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.main import main

REPOSITORY = Path(__file__).parents[3]
FILE = """
name: shop
services:
  web:
    image: "web:${TAG:-1}"
    command: "echo $$HOME ${NEED?}"
    environment: {PASS: "${PASS-pw}", EMPTY: }
    depends_on: [db]
    networks: [back]
    volumes: ["data:/d"]
  db:
    image: redis
    networks: [back]
  cron:
    build: .
    profiles: [jobs, dbs]
volumes: {data: , unused: }
networks: {back: , unused: }
"""
YAML = """\
name: shop
services:
  db:
    image: redis
    networks:
      back: null
  web:
    command:
    - echo
    - $$HOME
    - it
    depends_on:
      db:
        condition: service_started
        required: true
    environment:
      EMPTY: null
      PASS: pw
    image: web:1
    networks:
      back: null
    volumes:
    - source: data
      target: /d
      type: volume
networks:
  back:
    name: shop_back
volumes:
  data:
    name: shop_data
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "compose.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("COMPOSE_", "TAG", "PASS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEED", "it")
    monkeypatch.setenv("GORAE_ROOT", str(tmp_path / "nothing"))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["config", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys)
    assert re.sub(r"\n +(volume|bind): {}", "", out) == YAML


def test_json_is_the_same_project_with_a_command_for_each_service(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(said(capsys, "--format", "json"))
    assert list(document) == ["name", "networks", "services", "volumes"]
    assert document["services"]["web"]["command"] == ["echo", "$$HOME", "it"]
    assert document["services"]["db"]["command"] is None


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        pytest.param(["--services", "db"], ["db"], id="of one service"),
        pytest.param(["--services"], ["db", "web"], id="services"),
        pytest.param(["--images"], ["redis", "web:1"], id="images"),
        pytest.param(["--images", "cron"], ["shop-cron"], id="the image that a build makes"),
        pytest.param(["--volumes"], ["data"], id="volumes"),
        pytest.param(["--volumes", "db"], [], id="no volumes"),
        pytest.param(["--networks"], ["back"], id="networks"),
        pytest.param(["--profiles"], ["dbs", "jobs"], id="profiles"),
        pytest.param(["-q"], [], id="quiet"),
        pytest.param(
            ["--variables"],
            [
                "NAME                REQUIRED            DEFAULT VALUE       ALTERNATE VALUE",
                "NEED                true                                    ",
                "PASS                false               pw                  ",
                "TAG                 false               1                   ",
            ],
            id="variables",
        ),
    ],
)
def test_lists(words: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, *words).splitlines() == lines


def test_variables_as_documents(capsys: pytest.CaptureFixture[str]) -> None:
    need = {"Name": "NEED", "Required": True, "DefaultValue": "", "PresenceValue": ""}
    assert json.loads(said(capsys, "--variables", "--format", "json"))["NEED"] == need
    assert "  defaultvalue: pw\n" in said(capsys, "--variables", "--format", "yaml")


def test_a_variable_that_is_required_need_not_be_set_to_be_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEED")
    assert "NEED                true" in said(capsys, "--variables")


def test_environment(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / ".env").write_text("TAG=7\n")
    lines = said(capsys, "--environment").splitlines()
    assert lines == sorted(lines)
    assert {"COMPOSE_PROJECT_NAME=shop", "NEED=it", "TAG=7"} <= set(lines)


def test_hash(capsys: pytest.CaptureFixture[str]) -> None:
    every = said(capsys, "--hash", "*")
    assert re.fullmatch(r"db [0-9a-f]{64}\nweb [0-9a-f]{64}\n", every)
    assert said(capsys, "--hash", "web,db") == every
    assert said(capsys, "--hash", "db") == every.splitlines(keepends=True)[0]


def test_no_interpolate_keeps_variables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEED")
    out = said(capsys, "--no-interpolate")
    assert "image: web:${TAG:-1}\n" in out
    assert "$$HOME ${NEED?}" in out
    assert out.index("    depends_on:") < out.index("    environment:") < out.index("    image: web")


def test_a_profile_that_is_not_active(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "compose.yaml").write_text(FILE.replace("image: redis", "image: redis\n    profiles: [dbs]"))
    assert main(["config", "web"]) == 2
    assert capsys.readouterr().err.startswith("compose.yaml:8:18: cannot start web after db: db ")
    assert said(capsys, "--services", "--profile", "dbs", "web") == "db\nweb\n"


def test_profiles_and_the_project_directory(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert said(capsys, "--services", "--profile", "dbs") == "cron\ndb\nweb\n"
    assert said(capsys, "--services", "--profile", "*") == "cron\ndb\nweb\n"
    (folder / "sub").mkdir()
    out = said(capsys, "--project-directory", "sub", "cron")
    assert f"context: {folder}/sub\n" in out


def test_output_goes_to_a_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out = said(capsys)
    assert said(capsys, "-o", "out.yaml") == ""
    assert (folder / "out.yaml").read_text() == out


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        pytest.param(
            ["--hash", "web,nope"],
            2,
            "cannot find the service nope: the files have none of that name\ntry  they have db, web\n",
            id="hash of no service",
        ),
        pytest.param(["nope"], 2, "cannot find the service nope", id="no service"),
        pytest.param(["-o", "no/where"], 1, "cannot write no/where: No such file or directory\n", id="output"),
        pytest.param(["--services", "--images"], 2, "cannot print two lists at once", id="two questions"),
        pytest.param(["-f", "no.yaml"], 2, "cannot read no.yaml", id="no file"),
    ],
)
def test_what_goes_wrong(words: list[str], code: int, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *words]) == code
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(err)


def test_a_warning_is_a_note_on_stderr(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {a: {image: 'x$MISSING'}}")
    assert main(["config", "-q"]) == 0
    assert capsys.readouterr().err.startswith("note  compose.yaml:1:23: the variable MISSING is not set")


def test_it_speaks_to_no_daemon() -> None:
    code = (
        "import sys\nfrom orchestrator.cli.main import main\nmain(['config', '-q'])\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not {"asyncio", "sqlite3", "http", "orchestrator.controller"} & set(done.stderr.split())
