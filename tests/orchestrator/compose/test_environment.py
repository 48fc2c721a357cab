"""05-services.md: environment, env_file, labels, label_file, as one service has them in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import document, refusals


@pytest.mark.parametrize(
    ("keys", "files", "found"),
    [
        pytest.param("environment: {A: 1}", {}, {"A": "1"}, id="environment"),
        pytest.param("environment: [SET, UNSET, EMPTY]", {}, {"SET": "v", "UNSET": None, "EMPTY": ""}, id="without a value"),
        pytest.param("env_file: e", {"e": "A=1\n"}, {"A": "1"}, id="env_file"),
        pytest.param("env_file: [e, f]", {"e": "A=1\nB=1\n", "f": "B=2\n"}, {"A": "1", "B": "2"}, id="the last file wins"),
        pytest.param("env_file: e\n    environment: {A: own}", {"e": "A=1\n"}, {"A": "own"}, id="environment wins"),
        pytest.param("env_file: e\n    environment: {A: }", {"e": "A=1\n"}, {"A": None}, id="even without a value"),
        pytest.param("env_file: e\n    environment: {SET: }", {"e": "SET=1\n"}, {"SET": "v"}, id="then it is the project's"),
        pytest.param("env_file: e", {"e": "SET\nUNSET\n"}, {"SET": "v"}, id="a file's name without a value"),
        pytest.param("env_file: e", {"e": "SET=file\nB=$SET\n"}, {"SET": "file", "B": "v"}, id="the project goes before the file"),
        pytest.param("env_file: [e, f]", {"e": "A=1\n", "f": "B=${A}2\n"}, {"A": "1", "B": "12"}, id="a file sees the file before"),
        pytest.param("env_file: e\n    environment: {A: own}", {"e": "B=${A}2\n"}, {"A": "own", "B": "own2"}, id="and the service's own"),
        pytest.param("env_file: [{path: e, format: raw}]", {"e": "A=$SET 'x'\n"}, {"A": "$SET 'x'"}, id="raw"),
        pytest.param("env_file: [{path: none, required: false}, e]", {"e": "A=1\n"}, {"A": "1"}, id="not required"),
        pytest.param("env_file: e", {"e": ""}, None, id="an empty file"),
    ],
)  # fmt: skip
def test_environment(tmp_path: Path, keys: str, files: dict[str, str], found: dict[str, Any] | None) -> None:
    text = f"services:\n  a:\n    image: x\n    {keys}\n"
    service = document(tmp_path, {"compose.yaml": text, **files}, {"SET": "v", "EMPTY": ""})["services"]["a"]
    assert service.get("environment") == found
    assert "env_file" not in service


@pytest.mark.parametrize(
    ("keys", "files", "found"),
    [
        pytest.param("label_file: l", {"l": "a=1\n"}, {"a": "1"}, id="label_file"),
        pytest.param("label_file: [l, m]\n    labels: [c=own]", {"l": "a=1\nb=1\nc=1\n", "m": "b=2\n"}, {"a": "1", "b": "2", "c": "own"}, id="the last file wins, labels over all"),
        pytest.param("label_file: l", {"l": "a=$SET\n"}, {"a": ""}, id="the project's variables are not seen"),
    ],
)  # fmt: skip
def test_labels(tmp_path: Path, keys: str, files: dict[str, str], found: dict[str, str]) -> None:
    text = f"services:\n  a:\n    image: x\n    {keys}\n"
    assert document(tmp_path, {"compose.yaml": text, **files}, {"SET": "v"})["services"]["a"]["labels"] == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("env_file: e", "compose.yaml:4:15: cannot find the env_file e (create it, or write `required: false`)"),
        ("env_file: [bad, e]", "bad:2:1: cannot read this line: NAME=value is expected"),
        ("label_file: l", "compose.yaml:4:17: cannot find the label_file l (create it)"),
        ("env_file: .", "compose.yaml:4:15: cannot read .: it is no regular file"),
        ("env_file: [{path: bad, format: toml}]", "compose.yaml:4:36: cannot read services.a.env_file as 'toml': raw is the only other format"),
        ("env_file: [{required: false}]", "compose.yaml:4:16: cannot use services.a.env_file[0]: `path` is missing (add path)"),
        ("env_file: [{path: bad, requird: false}]", "compose.yaml:4:28: cannot use services.a.env_file[0].requird: Compose has no such key; did you mean required?"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, keys: str, message: str) -> None:
    text = f"services:\n  a:\n    image: x\n    {keys}\n"
    assert message in refusals(tmp_path, {"compose.yaml": text, "bad": "A=1\nnot one\n"})


def test_files_are_not_looked_at_where_variables_stay(tmp_path: Path) -> None:
    text = "services: {a: {image: x, env_file: none}}\n"
    assert document(tmp_path, text, interpolated=False)["services"]["a"]["image"] == "x"
