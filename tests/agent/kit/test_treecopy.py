"""Trees through a tar and back: the same at the other end, and never anything outside, whatever the tar says."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.kit.errors import UserError
from agent.kit.treepack import TreePacker
from agent.kit.treeunpack import TreeUnpacker, place


def pack(path: Path, name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(mode="w|", fileobj=out, format=tarfile.PAX_FORMAT) as tar:
        packer = TreePacker(tar, lambda: None, lambda fd, found: True, xattrs=False)
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            packer.entry(path.name, fd, name)
        finally:
            os.close(fd)
    return out.getvalue()


def unpack(data: bytes, base: Path, name: str = "", *, strip: int = 0, bits: int = 0o7777) -> TreeUnpacker:
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    unpacker = TreeUnpacker(fd, name, strip=strip, owner=None, bits=bits)
    try:
        with tarfile.open(mode="r|", fileobj=io.BytesIO(data)) as tar:
            unpacker.all(tar)
    finally:
        unpacker.close()
        os.close(fd)
    return unpacker


def hostile(*entries: tuple[str, str, str]) -> bytes:
    """(kind, name, link or content) …"""
    out = io.BytesIO()
    kinds = {
        "file": tarfile.REGTYPE,
        "dir": tarfile.DIRTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "dev": tarfile.CHRTYPE,
    }
    with tarfile.open(mode="w", fileobj=out) as tar:
        for kind, name, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kinds[kind], 0o755
            if kind in ("link", "hard"):
                entry.linkname = text
            content = text.encode() if kind == "file" else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "src"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "deep" / "a").write_bytes(b"x" * 300_000)
    (top / "deep" / "a").chmod(0o4750)
    os.utime(top / "deep" / "a", ns=(1_700_000_000_123_456_789,) * 2)
    (top / "link").symlink_to("deep/a")
    (top / "hard").hardlink_to(top / "deep" / "a")
    (top / "shut").mkdir(mode=0o555)
    os.mkfifo(top / "fifo")
    (top / "ünï\udcff").write_text("name that is no text")
    return top


def listing(top: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        times = 0 if path.is_symlink() else status.st_mtime_ns
        found[str(path.relative_to(top))] = (status.st_mode, times, content)
    return found


def test_a_tree_comes_out_as_it_went_in(tree: Path, tmp_path: Path) -> None:
    unpack(pack(tree, "src"), tmp_path, "copy", strip=1)
    assert listing(tmp_path / "copy") == listing(tree)
    assert (tmp_path / "copy" / "hard").samefile(tmp_path / "copy" / "deep" / "a")


def test_entries_that_are_written_are_not_kept(tree: Path) -> None:
    with tarfile.open(mode="w|", fileobj=io.BytesIO()) as tar:
        packer = TreePacker(tar, lambda: None, lambda fd, found: True, xattrs=False)
        fd = os.open(tree, os.O_RDONLY)
        try:
            packer.top(fd, "src")
        finally:
            os.close(fd)
        assert packer.counts.entries > 5 and not vars(tar)["members"]


def test_bits_that_give_rights_stay_out(tree: Path, tmp_path: Path) -> None:
    unpack(pack(tree, "src"), tmp_path, "copy", strip=1, bits=0o777)
    assert stat.S_IMODE((tmp_path / "copy" / "deep" / "a").stat().st_mode) == 0o750


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([("file", "../out", "x")], id="up"),
        pytest.param([("file", "a/../../out", "x")], id="up in the middle"),
        pytest.param([("link", "a", "/"), ("file", "a/etc/gorae-cp-test", "x")], id="absolute link"),
        pytest.param([("link", "a", ".."), ("file", "a/out", "x")], id="relative link"),
        pytest.param([("link", "a", ".."), ("dir", "a", ""), ("file", "a/out", "x")], id="link, then directory"),
        pytest.param([("link", "a", ".."), ("dir", "a/made", "")], id="directory below a link"),
        pytest.param([("hard", "a", "../secret")], id="hard link up"),
        pytest.param([("link", "up", ".."), ("hard", "a", "up/secret")], id="hard link through a link"),
    ],
)
def test_a_hostile_tar_reaches_nothing_outside(tmp_path: Path, entries: list[tuple[str, str, str]]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises((UserError, OSError)):
        unpack(hostile(*entries), tmp_path / "in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "secret"]
    assert (tmp_path / "secret").stat().st_nlink == 1
    assert not Path("/etc/gorae-cp-test").exists()


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        pytest.param({"uid": 2**40}, "bad-owner", f"cannot give 'a' to user {2**40}, group 0", id="a uid of no number"),
        pytest.param({"gid": -5}, "bad-owner", "cannot give 'a' to user 0, group -5", id="a gid below zero"),
        pytest.param({"pax_headers": {"path": "a\0b"}}, "bad-archive", r"cannot unpack 'a\x00b': embedded", id="NUL"),
        pytest.param({"type": tarfile.SYMTYPE, "linkname": "x", "pax_headers": {"linkpath": "\0"}}, "bad-archive",
                     "cannot unpack 'a': embedded", id="link to a NUL"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_is_named(tmp_path: Path, fields: dict[str, object], code: str, said: str) -> None:
    entry = tarfile.TarInfo("a")
    for name, value in fields.items():
        setattr(entry, name, value)
    out = io.BytesIO(entry.tobuf(tarfile.PAX_FORMAT if "pax_headers" in fields else tarfile.GNU_FORMAT) + bytes(10240))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    unpacker = TreeUnpacker(fd, "", strip=0, owner="archive")
    with tarfile.open(mode="r|", fileobj=out) as tar, pytest.raises(UserError) as caught:
        unpacker.all(tar)
    unpacker.close()
    os.close(fd)
    assert (caught.value.code, caught.value.message[: len(said)]) == (code, said)
    assert not list(tmp_path.iterdir())


def test_an_absolute_name_is_taken_from_the_place(tmp_path: Path) -> None:
    unpack(hostile(("file", "/etc/gorae-cp-test", "x")), tmp_path)
    assert (tmp_path / "etc" / "gorae-cp-test").read_text() == "x"


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "secret")
    unpack(hostile(("file", "a", "new")), tmp_path / "in")
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "in" / "a").read_text() == "new" and not (tmp_path / "in" / "a").is_symlink()


def test_devices_are_left_out_and_counted(tmp_path: Path) -> None:
    made = unpack(hostile(("dev", "null", ""), ("file", "a", "x")), tmp_path)
    assert made.counts.skipped == 1 and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_cut_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    data = hostile(("file", "a", "n" * 5000))
    with pytest.raises(tarfile.ReadError):
        unpack(data[:2000], tmp_path)
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_file_takes_no_directorys_place(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot replace the directory a"):
        unpack(hostile(("file", "a", "x")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def placed(target: str, source: str = "file", name: str = "src") -> tuple[str, str]:
    fd, called = place(target, source, name)  # type: ignore[arg-type]
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink()), called
    finally:
        os.close(fd)


def test_places_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("")
    (tmp_path / "to-d").symlink_to("d")
    (tmp_path / "to-f").symlink_to("d/../f")
    here = str(tmp_path)
    expected: dict[Callable[[], tuple[str, str]], tuple[str, str]] = {
        lambda: placed(f"{here}/new"): (here, "new"),
        lambda: placed(f"{here}/d"): (f"{here}/d", "src"),
        lambda: placed(f"{here}/to-d/"): (f"{here}/d", "src"),
        lambda: placed(f"{here}/to-f"): (here, "f"),
        lambda: placed(f"{here}/new/", "directory"): (here, "new"),
        lambda: placed(f"{here}/d", "content"): (f"{here}/d", ""),
        lambda: placed("/", "archive"): ("/", ""),
    }
    for ask, answer in expected.items():
        assert ask() == answer
    with pytest.raises(UserError, match="no directory"):
        placed(f"{here}/no/new")
