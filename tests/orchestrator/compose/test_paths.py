"""Relative paths become absolute (03-compose-file.md): which ones, and from where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose import mounts

from .support import composed, document, refusals


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".", "/f"),
        ("./x", "/f/x"),
        ("x/y", "/f/x/y"),
        ("../x", "/x"),
        ("../../../x", "/x"),
        ("./x/../y/", "/f/y"),
        ("/abs/../b", "/abs/../b"),
        ("~", "/home/u"),
        ("~/x/", "/home/u/x"),
        ("C:\\x", "C:\\x"),
        ("x//y", "/f/x/y"),
        ("", "/f"),
    ],
)
def test_source(path: str, found: str) -> None:
    assert mounts.source(path, "/f", "/home/u") == found


@pytest.mark.parametrize(
    ("path", "home", "message"),
    [("~", None, "HOME is not set"), ("~/x", "", "HOME is not set"), ("~bob/x", "/h", "~user is not supported")],
)
def test_no_source(path: str, home: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mounts.source(path, "/f", home)


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        pytest.param("services: {a: {build: ctx}}", "services.a.build.context", "@/ctx", id="build"),
        pytest.param("services: {a: {build: {context: ../ctx}}}", "services.a.build.context", "@/../ctx", id="build.context"),
        pytest.param("services: {a: {build: 'git@h:r.git'}}", "services.a.build.context", "git@h:r.git", id="a repository"),
        pytest.param("services: {a: {build: 'github.com/u/r'}}", "services.a.build.context", "github.com/u/r", id="github.com"),
        pytest.param("services: {a: {build: 'ssh://h/r'}}", "services.a.build.context", "ssh://h/r", id="a URL"),
        pytest.param("services: {a: {build: {dockerfile: d/D}}}", "services.a.build.dockerfile", "d/D", id="dockerfile is the context's"),
        pytest.param("services: {a: {build: {additional_contexts: {c: ./c}}}}", "services.a.build.additional_contexts.c", "@/c", id="additional_contexts"),
        pytest.param("services: {a: {build: {additional_contexts: [c=docker-image://i]}}}", "services.a.build.additional_contexts.c", "docker-image://i", id="additional_contexts, an image"),
        pytest.param("services: {a: {image: x, volumes: ['./b:/b']}}", "services.a.volumes.0.source", "@/b", id="bind, short"),
        pytest.param("services: {a: {image: x, volumes: [{type: bind, source: b, target: /b}]}}", "services.a.volumes.0.source", "@/b", id="bind, long"),
        pytest.param("services: {a: {image: x, volumes: ['~/b:/b']}}", "services.a.volumes.0.source", "/home/u/b", id="home"),
        pytest.param("services: {a: {image: x, volumes: ['bb:/b']}}\nvolumes: {bb: }", "services.a.volumes.0.source", "bb", id="a volume is no path"),
        pytest.param("services: {a: {image: x, develop: {watch: [{path: ./w, action: rebuild}]}}}", "services.a.develop.watch.0.path", "@/w", id="watch"),
        pytest.param("services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: ./s}}", "secrets.s.file", "@/s", id="secret"),
        pytest.param("services: {a: {image: x, configs: [c]}}\nconfigs: {c: {file: c}}", "configs.c.file", "@/c", id="config"),
        pytest.param(
            "services: {a: {image: x, volumes: ['vv:/v']}}\nvolumes: {vv: {driver: local, driver_opts: {type: none, o: bind, device: ./d}}}",
            "volumes.vv.driver_opts.device",
            "@/d",
            id="a bound volume",
        ),
        pytest.param(
            "services: {a: {image: x, volumes: ['vv:/v']}}\nvolumes: {vv: {driver_opts: {type: none, o: bind, device: ./d}}}",
            "volumes.vv.driver_opts.device",
            "./d",
            id="without driver: local it stays",
        ),
        pytest.param(
            "services: {a: {image: x, volumes: ['vv:/v']}}\nvolumes: {vv: {driver: local, driver_opts: {type: nfs, o: 'addr=h', device: ':/d'}}}",
            "volumes.vv.driver_opts.device",
            ":/d",
            id="a volume that is no bind",
        ),
    ],
)  # fmt: skip
def test_key(tmp_path: Path, text: str, where: str, found: str) -> None:
    home = tmp_path / "proj"
    home.mkdir()
    result: Any = document(home, text + "\n", {"HOME": "/home/u"})
    for part in where.split("."):
        result = result[int(part)] if isinstance(result, list) else result[part]
    assert result == (str(tmp_path / found[5:]) if found.startswith("@/../") else found)


def test_the_project_directory_is_where_paths_begin(tmp_path: Path) -> None:
    text = "services: {a: {build: ctx}}\n"
    found = document(tmp_path, {"compose.yaml": text, "other/.env": ""}, project_directory=Path("other"))
    assert found["services"]["a"]["build"]["context"] == "@/other/ctx"


def test_a_path_that_cannot_be_resolved_is_reported_once_and_where_it_is(tmp_path: Path) -> None:
    text = "services: {a: {image: x, volumes: ['~/b:/b'], build: ~bob/c}}\n"
    assert refusals(tmp_path, text) == [
        "compose.yaml:1:36: cannot use the path ~/b: HOME is not set, and ~ stands for it",
        "compose.yaml:1:54: cannot use the path ~bob/c: ~user is not supported; write the path out",
    ]


def test_paths_with_variables_stay_when_variables_do(tmp_path: Path) -> None:
    root = composed(tmp_path, "services: {a: {image: x, volumes: ['./$D:/b']}}\n", interpolated=False).document()
    assert root["services"]["a"]["volumes"] == ["./$D:/b"] or root["services"]["a"]["volumes"][0]["source"] == "./$D"
