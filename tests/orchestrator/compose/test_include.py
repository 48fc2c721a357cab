"""14-include.md: other projects' files beneath a file's own resources."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import document, refusals

A = "services: {a: {image: x}}\n"


def environment(folder: Path, files: dict[str, str], service: str = "b", **environ: str) -> dict[str, str | None]:
    found: dict[str, str | None] = document(folder, files, environ)["services"][service]["environment"]
    return found


def test_what_is_included_is_there(tmp_path: Path) -> None:
    found = document(tmp_path, {"compose.yaml": f"include: [b.yml]\n{A}", "b.yml": "services: {b: {image: y}}\n"})
    assert {name: service["image"] for name, service in found["services"].items()} == {"a": "x", "b": "y"}


@pytest.mark.parametrize(
    ("entry", "place", "folder"),
    [
        pytest.param("sub/b.yml", "sub/b.yml", "@/sub", id="the file's own folder"),
        pytest.param("{path: sub/b.yml}", "sub/b.yml", "@/sub", id="as a mapping"),
        pytest.param("{path: [sub/b.yml]}", "sub/b.yml", "@/sub", id="as a list"),
        pytest.param("{path: sub/b.yml, project_directory: .}", "sub/b.yml", "@", id="project_directory"),
        pytest.param("{path: sub/b.yml, project_directory: other}", "sub/b.yml", "@/other", id="another folder"),
    ],
)
def test_relative_paths_begin_at(tmp_path: Path, entry: str, place: str, folder: str) -> None:
    files = {
        "compose.yaml": f"include: [{entry}]\n",
        "other/x": "",
        place: "services: {b: {image: x, build: ., volumes: ['./d:/d']}}\nsecrets: {s: {file: ./s}}\n",
    }
    service = document(tmp_path, files)["services"]["b"]
    assert service["build"]["context"] == folder
    assert service["volumes"][0]["source"] == f"{folder}/d"


@pytest.mark.parametrize(
    ("entry", "files", "environ", "found"),
    [
        pytest.param("sub/b.yml", {"sub/.env": "A=sub\n"}, {}, "sub", id="its own .env"),
        pytest.param("sub/b.yml", {".env": "A=top\n", "sub/.env": "A=sub\n"}, {}, "top", id="the including file's .env goes before"),
        pytest.param("sub/b.yml", {"sub/.env": "A=sub\n"}, {"A": "shell"}, "shell", id="the shell goes before"),
        pytest.param("{path: sub/b.yml, env_file: x.env}", {"x.env": "A=x\n", "sub/.env": "A=sub\n"}, {}, "x", id="env_file takes its place"),
        pytest.param(
            "{path: sub/b.yml, env_file: [x.env, y.env]}", {"x.env": "A=x\n", "y.env": "A=y\n"}, {}, "y", id="the last env_file wins"
        ),
        pytest.param(
            "{path: sub/b.yml, project_directory: other}", {"other/.env": "A=other\n", "sub/.env": "A=sub\n"}, {}, "other", id="project_directory's .env"
        ),
        pytest.param("sub/b.yml", {}, {}, "none", id="no .env"),
    ],
)  # fmt: skip
def test_variables(tmp_path: Path, entry: str, files: dict[str, str], environ: dict[str, str], found: str) -> None:
    contents = {
        "compose.yaml": f"include: [{entry}]\n",
        "sub/b.yml": "services: {b: {image: x, environment: ['V=${A:-none}', A]}}\n",
        **files,
    }
    assert environment(tmp_path, contents, **environ) == {"V": found, "A": None if found == "none" else found}


def test_a_variable_without_a_value_is_looked_up_there_only_in_a_list(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [sub/b.yml]\n",
        "sub/b.yml": "services: {b: {image: x, environment: {A: }}}\n",
        "sub/.env": "A=sub\n",
    }
    assert environment(tmp_path, files) == {"A": None}


def test_an_included_env_stays_with_the_included_file(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [sub/b.yml]\nservices: {a: {image: x, environment: {V: '${A:-none}'}}}\n",
        "sub/b.yml": "services: {b: {image: x}}\n",
        "sub/.env": "A=sub\n",
    }
    assert environment(tmp_path, files, "a") == {"V": "none"}


def test_the_path_is_interpolated(tmp_path: Path) -> None:
    files = {"compose.yaml": f"include: ['$F.yml']\n{A}", "b.yml": "services: {b: {image: y}}\n"}
    assert set(document(tmp_path, files, {"F": "b"})["services"]) == {"a", "b"}


def test_the_files_of_one_entry_merge(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [{path: [b.yml, c.yml]}]\n",
        "b.yml": "services: {b: {image: x, user: u}}\n",
        "c.yml": "services: {b: {image: y}}\n",
    }
    service = document(tmp_path, files)["services"]["b"]
    assert (service["image"], service["user"]) == ("y", "u")


@pytest.mark.parametrize(
    ("included", "own", "key", "found"),
    [
        pytest.param("image: x", "image: y", "image", "y", id="scalar"),
        pytest.param(
            "environment: [A=1, B=1]", "environment: {B: 2}", "environment", {"A": "1", "B": "2"}, id="mapping"
        ),
        pytest.param("dns: [1.1.1.1]", "dns: 2.2.2.2", "dns", ["1.1.1.1", "2.2.2.2"], id="list"),
        pytest.param("command: [a]", "command: [b]", "command", ["b"], id="command"),
        pytest.param("environment: {A: 1}", "environment: !override {B: 2}", "environment", {"B": "2"}, id="override"),
        pytest.param("user: u", "user: !reset", "user", None, id="reset"),
    ],
)
def test_the_own_word_goes_before_what_is_included(
    tmp_path: Path, included: str, own: str, key: str, found: object
) -> None:
    files = {
        "compose.yaml": f"include: [b.yml]\nservices:\n  b:\n    {own}\n",
        "b.yml": f"services:\n  b:\n    {included}\n" + ("" if "image" in included else "    image: x\n"),
    }
    assert document(tmp_path, files)["services"]["b"].get(key) == found


def test_all_sections_are_included(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [b.yml]\nservices: {a: {image: x, networks: [n], volumes: ['vol:/v'], secrets: [s], configs: [c]}}\n",
        "b.yml": "name: other\nnetworks: {n: }\nvolumes: {vol: {name: v}}\nsecrets: {s: {file: ./s}}\nconfigs: {c: {content: t}}\n",
    }
    found = document(tmp_path, files)
    assert (found["name"], found["networks"]["n"]["name"], found["volumes"]["vol"]["name"]) == ("p", "p_n", "v")
    assert (found["secrets"]["s"]["file"], found["configs"]["c"]["content"]) == ("@/s", "t")


def test_an_included_file_includes_and_extends(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [one/b.yml]\n",
        "one/b.yml": "include: [../two/c.yml]\nservices: {b: {extends: {file: ../two/d.yml, service: d}}}\n",
        "two/c.yml": "services: {c: {image: x, build: .}}\n",
        "two/d.yml": "services: {d: {image: z, build: ./ctx}}\n",
    }
    found = document(tmp_path, files)["services"]
    assert {name: service["build"]["context"] for name, service in found.items()} == {"b": "@/two/ctx", "c": "@/two"}


def test_one_file_may_be_included_twice(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [one.yml, two.yml]\n",
        "one.yml": "include: [base.yml]\nservices: {one: {image: x, depends_on: [base]}}\n",
        "two.yml": "include: [base.yml]\nservices: {two: {image: x, depends_on: [base]}}\n",
        "base.yml": "services: {base: {image: x}}\n",
    }
    assert set(document(tmp_path, files)["services"]) == {"base", "one", "two"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(
            {"compose.yaml": "include: [compose.yaml]\n"},
            "compose.yaml:1:11: cannot include compose.yaml: it includes itself: compose.yaml → compose.yaml",
            id="itself",
        ),
        pytest.param(
            {"compose.yaml": "include: [b.yml]\n", "b.yml": "include: [sub/c.yml]\n", "sub/c.yml": "include: [../b.yml]\n"},
            "sub/c.yml:1:11: cannot include b.yml: it includes itself: b.yml → sub/c.yml → b.yml",
            id="a circle",
        ),
        pytest.param(
            {"compose.yaml": "include: [b.yml]\n"},
            "compose.yaml:1:11: cannot read b.yml: No such file or directory (check the path and its permissions)",
            id="not there",
        ),
        pytest.param(
            {"compose.yaml": "include: [{path: b.yml, env_file: no.env}]\n", "b.yml": A},
            "compose.yaml:1:11: cannot read no.env: No such file or directory (check the path and its permissions)",
            id="no env_file",
        ),
        pytest.param(
            {"compose.yaml": "include: [{env_file: x}]\n"}, "compose.yaml:1:11: cannot include this: `path` is missing (include: [FILE])", id="no path"
        ),
        pytest.param({"compose.yaml": "include: {path: b}\n"}, "compose.yaml:1:10: cannot use a mapping as include: it must be a list", id="no list"),
        pytest.param(
            {"compose.yaml": "include: [b.yml]\n", "b.yml": "services: {b: {imag: x}}\n"},
            "b.yml:1:16: cannot use services.b.imag: Compose has no such key; did you mean image?",
            id="a mistake in it",
        ),
        pytest.param(
            {"compose.yaml": "include: [b.yml]\n", "b.yml": "services: {b: {image: '${V:?say}'}}\n"},
            "b.yml:1:23: cannot replace the variables of this value: the variable V is not set (say)",
            id="a required variable in it",
        ),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    assert refusals(tmp_path, files) == [message]


def test_a_service_of_no_file_is_missed_in_the_included_one(tmp_path: Path) -> None:
    files = {"compose.yaml": f"include: [b.yml]\n{A}", "b.yml": "services: {b: {image: x, depends_on: [a, zz]}}\n"}
    assert refusals(tmp_path, files) == ["b.yml:1:42: cannot start b after zz: there is no service zz"]


def test_the_number_of_files_ends(tmp_path: Path) -> None:
    files = {f"f{n}.yml": "services: {}\n" for n in range(250)}
    (problem,) = refusals(tmp_path, {"compose.yaml": f"include: [{', '.join(files)}]\n", **files})
    assert "cannot read more than 200 files" in problem


def test_a_chain_of_files_ends(tmp_path: Path) -> None:
    files = {f"f{n}.yml": f"include: [f{n + 1}.yml]\n" for n in range(80)}
    (problem,) = refusals(tmp_path, {"compose.yaml": "include: [f0.yml]\n", **files, "f80.yml": A})
    assert "more than 50 files include each other" in problem
