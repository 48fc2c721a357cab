"""The user's own passwords: which file, which entry, and that no more than needed is handed over."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import keys


def key(name: str) -> str:
    return base64.b64encode(f"{name}:secret".encode()).decode()


def entry(name: str) -> dict[str, str]:
    return {"auth": key(name)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


AUTHS = {
    "ghcr.io": entry("wide"),
    "ghcr.io/team": entry("team"),
    "other.example.com": entry("other"),
    "https://index.docker.io/v1/": entry("hub"),
    "old.example.com:5000": {"auth": ""},
}


@pytest.mark.parametrize(
    ("image", "found"),
    [
        pytest.param("ghcr.io/one/app:1", {"ghcr.io": key("wide")}, id="registry"),
        pytest.param("ghcr.io/team/app:1", {"ghcr.io/team": key("team")}, id="the narrowest scope"),
        pytest.param("ghcr.io/team/app@sha256:aa", {"ghcr.io/team": key("team")}, id="by digest"),
        pytest.param("redis:7", {"docker.io": key("hub")}, id="Docker Hub has another name there"),
        pytest.param("docker.io/me/app", {"docker.io": key("hub")}, id="Docker Hub, written out"),
        pytest.param("quay.io/x/y", {}, id="unknown"),
        pytest.param("old.example.com:5000/x", {}, id="an entry without a password"),
    ],
)
def test_docker_config(home: Path, image: str, found: dict[str, str]) -> None:
    write(home / ".docker/config.json", {"auths": AUTHS})
    assert keys.of([image]) == found


def test_only_what_the_images_need(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": AUTHS})
    assert keys.of(["ghcr.io/one/app", "redis", "ghcr.io/one/other"]) == {
        "ghcr.io": key("wide"),
        "docker.io": key("hub"),
    }


def test_podmans_files_come_first(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"ghcr.io": entry("docker"), "quay.io": entry("docker")}})
    write(home / ".config/containers/auth.json", {"auths": {"ghcr.io": entry("config")}})
    assert keys.of(["ghcr.io/a/b", "quay.io/a/b"]) == {"ghcr.io": key("config"), "quay.io": key("docker")}
    write(home / "run/containers/auth.json", {"auths": {"ghcr.io": entry("runtime")}})
    assert keys.of(["ghcr.io/a/b"]) == {"ghcr.io": key("runtime")}


def test_a_file_that_is_named_counts_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".docker/config.json", {"auths": AUTHS})
    write(home / "named.json", {"auths": {"quay.io": entry("named")}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "named.json"))
    assert keys.of(["ghcr.io/a/b", "quay.io/a/b"]) == {"quay.io": key("named")}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"credHelpers": {"ghcr.io": "test"}}, id="credHelpers"),
        pytest.param({"auths": {"ghcr.io": {}}, "credsStore": "test"}, id="credsStore"),
    ],
)
def test_credential_helpers(home: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> None:
    helper = home / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread name; echo "{\\"Username\\": \\"$1-$name\\", \\"Secret\\": \\"secret\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    write(home / ".docker/config.json", document)
    assert keys.of(["ghcr.io/a/b"]) == {"ghcr.io": key("get-ghcr.io")}


@pytest.mark.parametrize(
    "text",
    [pytest.param("{", id="no JSON"), pytest.param("[]", id="no object"), pytest.param('{"auths": 5}', id="odd")],
)
def test_a_bad_file_gives_nothing(home: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / ".docker/config.json", text)
    assert keys.of(["ghcr.io/a/b"]) == {}
    assert ("cannot read the passwords in" in capsys.readouterr().err) == (text == "{")


def test_a_folder_of_others_has_no_passwords_of_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    asked = list(keys._paths())
    monkeypatch.setattr("os.access", lambda path, mode: path != "/run/containers")
    assert list(keys._paths()) == [path for path in asked if not path.startswith("/run/containers/")]


def test_a_helper_that_is_not_there_is_noted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / ".docker/config.json", {"credHelpers": {"ghcr.io": "gone-for-good"}})
    assert keys.of(["ghcr.io/a/b"]) == {}
    assert "docker-credential-gone-for-good" in capsys.readouterr().err
