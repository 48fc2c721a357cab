"""What a tree takes on the disk: blocks, each file once, nothing outside it."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from agent.kit import disk, mounts, syscalls
from tests.agent.room import Room

MB = 1 << 20


@pytest.mark.parametrize(
    ("room", "inodes", "flags", "said"),
    [
        pytest.param(9, 9, 0, "", id="room"),
        pytest.param(0, 9, 0, "no space left on the disk of /srv", id="full"),
        pytest.param(9, 0, 0, "no space left on the disk of /srv", id="no inodes"),
        pytest.param(9, 9, os.ST_RDONLY, "the file system of /srv is read-only", id="read-only"),
    ],
)
def test_why_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch, room: int, inodes: int, flags: int, said: str
) -> None:
    found = os.statvfs_result((4096, 4096, 99, room, room, 99, inodes, inodes, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert disk.trouble(Path("/srv")) == said


def test_what_is_not_there_has_no_reason(tmp_path: Path) -> None:
    assert disk.trouble(tmp_path / "none") == ""


def test_absent_or_no_directory_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    assert [disk.blocks(tmp_path / name) for name in ("none", "file")] == [0, 0]


def test_a_file_with_several_names_counts_once_and_a_hole_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    before = disk.blocks(tmp_path / "tree")
    (tmp_path / "tree/file").write_bytes(os.urandom(MB))
    for number in range(5):
        os.link(tmp_path / "tree/file", tmp_path / f"tree/below/{number}")
    with (tmp_path / "tree/sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert MB <= disk.blocks(tmp_path / "tree") - before < MB + MB // 4


def test_it_counts_as_du_does(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"tree/{number % 7}/{number}").mkdir(parents=True)
        (tmp_path / f"tree/{number % 7}/{number}/file").write_bytes(os.urandom(100 * number))
        (tmp_path / f"tree/link{number}").symlink_to("/usr")
    du = subprocess.run(["du", "-s", "-B1", str(tmp_path / "tree")], check=True, capture_output=True, text=True).stdout
    assert disk.blocks(tmp_path / "tree") == int(du.split()[0])


def test_deeper_than_any_path(tmp_path: Path) -> None:
    """As a container can nest them: PATH_MAX is 4096."""
    (tmp_path / "tree").mkdir()
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.write(file := os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd), os.urandom(MB))
    os.close(file)
    os.close(fd)
    assert disk.blocks(tmp_path / "tree") >= MB
    subprocess.run(["rm", "-r", str(tmp_path / "tree")], check=True)


def test_it_ends_when_it_is_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    (tmp_path / "below").mkdir()
    (tmp_path / "file").write_bytes(os.urandom(MB))
    assert disk.blocks(tmp_path, stop) < MB


@pytest.mark.host
def test_no_mount_point_is_crossed(host_room: Room) -> None:
    tree = host_room.root / "tree"
    (tree / "mount").mkdir(parents=True)
    before = disk.blocks(tree)
    syscalls.mount("tmpfs", tree / "mount", "tmpfs", 0, None)
    try:
        (tree / "mount/file").write_bytes(os.urandom(MB))
        assert disk.blocks(tree) <= before
        assert disk.blocks(tree / "mount") >= MB, "unless it is what was asked for"
    finally:
        mounts.detach(tree / "mount")
