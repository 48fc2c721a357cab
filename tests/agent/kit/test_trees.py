"""Deleting trees that somebody else made."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path

import pytest

from agent.kit import mounts, syscalls, trees
from agent.kit.errors import Permanent, Temporary
from tests.agent.room import Room


def test_absent_is_success(tmp_path: Path) -> None:
    trees.delete(tmp_path / "none")
    trees.delete(tmp_path / "none" / "deeper")


@pytest.mark.parametrize("kind", ["file", "link-to-directory", "dangling", "fifo"])
def test_a_single_entry(tmp_path: Path, kind: str) -> None:
    kept, entry = tmp_path / "kept", tmp_path / "entry"
    kept.mkdir()
    (kept / "file").touch()
    if kind == "file":
        entry.touch()
    elif kind == "fifo":
        os.mkfifo(entry)
    else:
        entry.symlink_to("none" if kind == "dangling" else kept)
    trees.delete(entry)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_symlinks_are_removed_not_followed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "file").write_text("data")
    (tree / "a").mkdir(parents=True)
    for place in (tree, tree / "a"):
        (place / "directory").symlink_to(outside)
        (place / "file").symlink_to(outside / "file")
        (place / "up").symlink_to("../..")
    trees.delete(tree)
    assert not tree.exists()
    assert (outside / "file").read_text() == "data"


def test_odd_names(tmp_path: Path) -> None:
    for name in (b"-rf", b" ", b"new\nline", b"\xff\xfe", b"x" * 255, b"...", b"*", b"\\"):
        directory = tmp_path / "tree" / os.fsdecode(name)
        directory.mkdir(parents=True)
        (directory / directory.name).touch()
    trees.delete(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_deeper_than_paths_stack_and_descriptors(tmp_path: Path) -> None:
    depth = resource.getrlimit(resource.RLIMIT_NOFILE)[0] + 200
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(min(depth, 5000)):
        os.mkdir("d" * 40, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT, dir_fd=fd))
        below = os.open("d" * 40, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    trees.delete(tree)
    assert not tree.exists()


def test_wider_than_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_BATCH", 10)
    for number in range(95):
        (tmp_path / "tree" / str(number) / "x").mkdir(parents=True)
    trees.delete(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


@pytest.mark.host
def test_what_is_immutable_is_reported_and_the_rest_goes(host_room: Room) -> None:
    tree = host_room.root / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    stuck = tree / "a" / "stuck"
    for path in (stuck, tree / "a" / "b" / "file", tree / "file"):
        path.touch()
    if subprocess.run(["chattr", "+i", str(stuck)], check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(Permanent, match="stuck") as caught:
            trees.delete(tree)
        assert caught.value.code == "undeletable"
        assert sorted(path.name for path in tree.rglob("*")) == ["a", "stuck"]
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)
    trees.delete(tree)
    assert not tree.exists()


@pytest.mark.host
def test_a_mount_of_the_same_file_system_is_not_entered(host_room: Room) -> None:
    tree, precious = host_room.root / "tree", host_room.root / "precious"
    (tree / "point").mkdir(parents=True)
    precious.mkdir()
    (precious / "file").touch()
    syscalls.mount(precious, tree / "point", flags=syscalls.MS_BIND)
    with pytest.raises(Temporary):
        trees.delete(tree)
    with pytest.raises(Temporary):
        trees.delete(tree / "point")
    assert (precious / "file").exists()
    mounts.detach(tree / "point")
    trees.delete(tree)


def test_make_dir_ignores_the_umask_and_repairs(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    before = os.umask(0o077)
    try:
        for mode in (0o711, 0o755):
            trees.make_dir(place, mode, os.getuid(), os.getgid())
            assert place.stat().st_mode & 0o7777 == mode
    finally:
        os.umask(before)
    assert place.parent.stat().st_mode & 0o7777 == 0o711


def test_make_dir_is_no_directory_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        trees.make_dir(tmp_path / "file" / "x", 0o755)
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0", ".x", "-x", "a" * 200, "a\n", "é"])
def test_component_refuses(name: str) -> None:
    with pytest.raises(Permanent):
        trees.component(name)


@pytest.mark.parametrize("name", ["t1", "t0123456789a", "a.b-c_d", "9"])
def test_component_takes(name: str) -> None:
    assert trees.component(name) == name


def test_mount_points_are_unescaped() -> None:
    table = "\n".join(
        [
            "1 0 8:1 / / rw - ext4 /dev/vda rw",
            "2 1 0:5 / /run/g/tasks/t1/ns/user rw shared:1 - nsfs nsfs rw",
            r"3 1 0:5 / /run/g/a\040b\134c rw - tmpfs tmpfs rw",
            "4 1 0:5 / /run/gg rw - tmpfs tmpfs rw",
            "5 1 0:5 / /run/g rw - tmpfs tmpfs rw",
        ]
    )
    assert mounts.points(Path("/run/g"), table) == [Path("/run/g/tasks/t1/ns/user"), Path("/run/g/a b\\c")]
