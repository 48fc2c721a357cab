"""Where a copy goes: docker cp's table."""

from __future__ import annotations

import pytest

from agent.kit.copying import Found, Source, name_of, placed, wants_content
from agent.kit.errors import UserError


@pytest.mark.parametrize(
    ("source", "target", "found", "called"),
    [
        ("file", "/a/b", "missing", ""),
        ("file", "/a/b", "file", ""),
        ("file", "/a/b", "directory", "src"),
        ("file", "/a/b/", "directory", "src"),
        ("file", "/a/b/", "missing", "no-directory"),
        ("file", "/a/b/", "file", "no-directory"),
        ("directory", "/a/b", "missing", ""),
        ("directory", "/a/b/", "missing", ""),
        ("directory", "/a/b", "file", "not-a-directory"),
        ("directory", "/a/b", "directory", "src"),
        ("content", "/a/b", "missing", ""),
        ("content", "/a/b", "file", "not-a-directory"),
        ("content", "/a/b", "directory", ""),
        ("archive", "/a/b", "missing", "no-directory"),
        ("archive", "/a/b", "file", "no-directory"),
        ("archive", "/a/b", "directory", ""),
    ],
)
def test_places(source: Source, target: str, found: Found, called: str) -> None:
    try:
        assert placed(source, "src", target, found) == called
    except UserError as error:
        assert error.code == called


@pytest.mark.parametrize(
    ("path", "name"),
    [("/etc/hosts", "hosts"), ("/etc/", "etc"), ("/", ""), (".", ""), ("a/.", "a"), ("..", ""), ("a/..", "")],
)
def test_names(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize(("path", "content"), [("/etc/.", True), (".", True), ("/etc/", False), ("/etc/a.", False)])
def test_content(path: str, content: bool) -> None:
    assert wants_content(path) is content
